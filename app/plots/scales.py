"""Round numbers for axes."""

from __future__ import annotations

import math

from app import format as fmt
from app.plots.rows import Scale

_STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def round_up(value: float) -> float:
    """The next round number: 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten; 1 for what is not positive."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return power * next((step for step in _STEPS if step * power >= value * (1 - 1e-9)), 10.0)


def log_times(low: float, high: float) -> Scale:
    """Times in nanoseconds on a log scale: at least one decade, ticks at 1, 2 and 5 of each, or at 1 where they are many."""
    low, high = low / 1.25, high * 1.25
    if high / low < 10:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(10), middle * math.sqrt(10)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    values = (step * 10.0**decade for decade in decades for step in steps)
    return Scale(low, high, True, tuple((value, fmt.tick_ns(value)) for value in values if low <= value <= high))


def bytes_from_zero(most: float) -> Scale:
    """Bytes from 0 to `most`, ticks at multiples of a power of two, four to seven of them."""
    step = 2.0 ** math.floor(math.log2(max(most, 4.0) / 4))
    unit = 1024.0 ** (int(math.log2(step * 4)) // 10)
    ticks = tuple((i * step, fmt.tick_bytes(i * step, unit)) for i in range(int(most // step) + 1))
    return Scale(0.0, max(most, 1.0), False, ticks)
