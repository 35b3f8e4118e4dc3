"""GPUs that are not here: their specs as data."""
