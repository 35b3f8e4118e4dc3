"""Benches: figures that may be quoted, each checked in full. `python -m engine bench`."""
