"""Work at many batch sizes."""
