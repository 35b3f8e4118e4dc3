"""Decoder-only transformers that run: their shapes, weights, caches and generation."""
