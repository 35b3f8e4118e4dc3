"""Decoding: one query a sequence reads the whole KV cache."""
