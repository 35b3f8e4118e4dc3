"""The tile theatre: kernels played from their schedules, tile by tile."""
