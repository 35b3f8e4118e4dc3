"""Decoders that run, on the host."""
