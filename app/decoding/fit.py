"""How times grow: medians of neighbours, and the power of n that they follow. Free of Qt."""

from __future__ import annotations

import math

import numpy as np

from app.series import FloatArray

GROUPS = 32             # of neighbours: so many, to twice as many
DOUBT = 0.1             # standard error of an exponent that is still said
FEW, FAR = 8, 1.25      # groups, and how many times further the last position must be than the first, for an exponent


def trend(position: FloatArray, time_ns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Medians of groups of equally many neighbours; where the groups do not come out even, the first samples, which are those
    of a device that warms up, belong to none.

    Args:
        position, time_ns: [n], ascending by position.

    Returns: position and time of each group, [groups].
    """
    each = max(1, len(position) // GROUPS)
    first = len(position) % each if each > 1 else 0
    grouped = np.stack([position[first:], time_ns[first:]]).reshape(2, -1, each)
    x, y = np.median(grouped, axis=2)
    return x, y


def exponent(position: FloatArray, time_ns: FloatArray) -> float | None:
    """x of time ~ n^x, by least squares over the logarithms; None where they are few, near each other, or too scattered: where
    the standard error of x is above DOUBT.
    """
    if len(position) < FEW or position[-1] < FAR * position[0]:
        return None
    x, y = np.log(position), np.log(time_ns)
    x, y = x - x.mean(), y - y.mean()
    spread = float(x @ x)
    slope = float(x @ y) / spread
    rest = y - slope * x
    error = math.sqrt(float(rest @ rest) / (len(x) - 2) / spread)
    return slope if error <= DOUBT else None
