"""What the GPU does: one file per kernel, each with its reference, launch, cost and schedule."""
