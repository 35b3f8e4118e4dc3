"""Round numbers for axes."""

from __future__ import annotations

import math
from collections.abc import Callable

from app import format as fmt
from app.plots.rows import Scale

MARGIN = 1.05       # that a whisker keeps from the ends of its scale
SHORTEST_NS, LONGEST_NS, LAST_IEC = 1e-2, 1e24, 6   # what prefixes of units reach: ps, Es, EiB
MOST_SI = 999e18    # what the largest prefix of units reaches: E
LEAST = 1e-300      # below it there are no powers of ten
_STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def round_up(value: float) -> float:
    """The next round number: 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten; 1 for nothing."""
    if value <= LEAST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return power * next((step for step in _STEPS if step * power >= value * (1 - 1e-9)), 10.0)


def from_zero(most: float, label: Callable[[float], str], parts: int = 4) -> Scale:
    """From 0 to `most`, some `parts` ticks at multiples of a round number."""
    step = round_up(most / parts) if most > LEAST else 1.0
    step = next((nice * 10.0**power for power in (math.floor(math.log10(step)),) for nice in (1, 2, 2.5, 5, 10)
                 if nice * 10.0**power >= step * (1 - 1e-9)), step)
    ticks = tuple((i * step, label(i * step)) for i in range(int(most / step * (1 + 1e-9)) + 1))
    return Scale(0.0, max(most, LEAST), False, ticks)


def log_times(low: float, high: float) -> Scale:
    """Times in nanoseconds on a log scale of a decade or more, between numbers that begin with 1, 2 or 5.

    What no prefix of the unit reaches lies at the end of the scale.
    """
    low, high = (min(max(value, SHORTEST_NS), LONGEST_NS) for value in (low, high))
    return log_scale(low, high, fmt.tick_ns)


def log_scale(low: float, high: float, label: Callable[[float], str]) -> Scale:
    """A log scale of a decade or more, between numbers that begin with 1, 2 or 5; ticks at those, or at powers of ten alone."""
    first = _below(low / MARGIN)
    last = max(_above(high * MARGIN), 10 * first)
    decades = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    steps = (1, 2, 5) if last / first < 100 else (1,)
    values = (step * 10.0**decade for decade in decades for step in steps)
    ticks = ((value, label(value)) for value in values if first * (1 - 1e-9) <= value <= last * (1 + 1e-9))
    return Scale(first, last, True, tuple(ticks))


def _below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(step for step in (1, 2, 5) if step == 1 or step * power <= value)


def _above(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return power * min(step for step in (1, 2, 5, 10) if step == 10 or step * power >= value)


def bytes_from_zero(most: float) -> Scale:
    """Bytes from 0 to `most`, ticks at multiples of a power of two, four to seven of them."""
    most = float(most)
    step = 2.0 ** math.floor(math.log2(max(most, 4.0) / 4))
    unit = 1024.0 ** min(int(math.log2(step * 4)) // 10, LAST_IEC)
    ticks = tuple((i * step, fmt.tick_bytes(i * step, unit)) for i in range(int(most // step) + 1))
    return Scale(0.0, max(most, 1.0), False, ticks)
