"""Choices, state and words of decodings."""
