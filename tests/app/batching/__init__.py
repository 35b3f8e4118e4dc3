"""Choices, state and words of batchings."""
