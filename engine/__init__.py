"""Runs, measures and records kernels. Knows no Qt; any front end talks to it through `engine.protocol`."""
