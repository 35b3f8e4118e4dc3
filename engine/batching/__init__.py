"""The same work at many batch sizes: from reading weights to arithmetic."""
