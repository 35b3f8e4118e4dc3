"""Numbers as people read them: three significant digits, the unit always, `n/a` for what is missing."""

from __future__ import annotations

import math

NA = "n/a"
WIDE = 0.5   # of the median: a spread that is not said as ±
SPACE = "\u00a0"        # between a number and its unit
THIN = "\u202f"         # between thousands
MINUS = "\u2212"
TIMES = "\u00d7"

_SI = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_IEC = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

Number = float | int | None




def significant(value: Number, digits: int = 3) -> str:
    """Three significant digits without an exponent: `0.0123`, `1.23`, `12.3`, `1 230`. Trailing zeros stay: they are digits."""
    if value is None or not math.isfinite(value):
        return NA
    if value == 0:
        return "0"
    rounded = float(f"{abs(value):.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(rounded)))
    return (MINUS if value < 0 else "") + f"{rounded:,.{decimals}f}".replace(",", THIN)


def quantity(value: Number, unit: str) -> str:
    """With an SI prefix: `quantity(1.234e12, "B/s")` is `1.23 TB/s`."""
    if value is None or not math.isfinite(value):
        return NA
    if value == 0:
        return f"0{SPACE}{unit}"
    rounded = float(f"{abs(value):.2e}")
    power = min(max(3 * math.floor(math.log10(rounded) / 3), min(_SI)), max(_SI))
    if rounded / 10.0**power >= 1000 and power < max(_SI):
        power += 3
    return f"{significant(math.copysign(rounded, value) / 10.0**power)}{SPACE}{_SI[power]}{unit}"


def bytes_iec(value: Number) -> str:
    """Bytes in steps of 1024: `12.4 GiB`, `96 B`."""
    if value is None or not math.isfinite(value):
        return NA
    if abs(value) < 1024:
        return f"{count(value)}{SPACE}B"
    step, scaled = 1, value / 1024
    while abs(float(f"{scaled:.2e}")) >= 1000 and step + 1 < len(_IEC):  # 1000 to 1023 would be a fourth digit
        step, scaled = step + 1, scaled / 1024
    return f"{significant(scaled)}{SPACE}{_IEC[step]}"


def gib(value: Number) -> str:
    """The number of GiB alone, for an axis or a column in GiB."""
    return NA if value is None else significant(value / 2**30)


def time_ns(value: Number) -> str:
    """A duration given in nanoseconds: `412 µs`, `2.31 ms`."""
    return NA if value is None else quantity(value * 1e-9, "s")


def tflops(value: Number) -> str:
    """A throughput given in TFLOP/s: `521 TFLOP/s`, `52.1 GFLOP/s`."""
    return NA if value is None else quantity(value * 1e12, "FLOP/s")


def rate(value: Number) -> str:
    """A bandwidth given in bytes per second: `4.25 TB/s`."""
    return quantity(value, "B/s")


def count(value: Number) -> str:
    """A whole number, thousands apart: `65 536`."""
    return NA if value is None or not math.isfinite(value) else f"{round(value):,}".replace(",", THIN).replace("-", MINUS)


def percent(fraction: Number) -> str:
    """A fraction of one, whole percents: `38 %`; below ten with a decimal: `3.8 %`."""
    if fraction is None or not math.isfinite(fraction):
        return NA
    value = 100 * fraction
    return f"{value:.0f}{SPACE}%" if value == 0 or round(abs(value), 1) >= 10 else f"{value:.1f}{SPACE}%"


def signed_percent(fraction: Number) -> str:
    """A signed fraction of one: `+4.1 %`, `−12 %`."""
    if fraction is None or not math.isfinite(fraction):
        return NA
    return f"{MINUS if fraction < 0 else '+'}{percent(abs(fraction))}"


def ratio(value: Number) -> str:
    """A factor: `33.8×`."""
    return NA if value is None or not math.isfinite(value) else f"{significant(value)}{TIMES}"


def power_w(value: Number) -> str:
    """`612 W`."""
    return NA if value is None or not math.isfinite(value) else f"{count(value)}{SPACE}W"


def clock_hz(value: Number) -> str:
    """Clocks are compared in MHz: `1 755 MHz`."""
    return NA if value is None or not math.isfinite(value) else f"{count(value / 1e6)}{SPACE}MHz"


def temperature_c(value: Number) -> str:
    """`54 °C`."""
    return NA if value is None or not math.isfinite(value) else f"{count(value)}{SPACE}°C"


def error(value: Number) -> str:
    """A relative error: `4.1e-3`."""
    if value is None or not math.isfinite(value):
        return NA
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return "0" if value == 0 else f"{mantissa}e{int(exponent)}"


def spread(p20: float, p50: float, p80: float) -> str:
    """How far the middle of the samples lies apart: `± 1.2 %` of the median; where that is wide, from where to where."""
    if not p50:
        return NA
    half = (p80 - p20) / 2 / p50
    return f"±{SPACE}{percent(half)}" if half < WIDE else f"({time_ns(p20)} to {time_ns(p80)})"


def plural(value: int, noun: str) -> str:
    """`1 sample`, `40 samples`."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def exact(value: Number) -> str:
    """All its digits, for a tooltip: `2 314 127`, `0.25`."""
    if value is None or not math.isfinite(value):
        return NA
    whole = float(value).is_integer()
    return f"{value:,.0f}".replace(",", THIN) if whole else f"{value:,.6g}".replace(",", THIN)


def tick_ns(value: float) -> str:
    """A tick of a time axis, given in nanoseconds, without trailing zeros: `2 ms`, `500 µs`."""
    power = 3 * math.floor(math.log10(value * (1 + 1e-9)) / 3)
    return f"{value / 10.0**power:g}{SPACE}{_SI[power - 9]}s"


def tick(value: float, unit: str) -> str:
    """A tick of an axis with an SI prefix, without trailing zeros: `0`, `250 k`, `2 TB/s`."""
    if value == 0:
        return "0"
    factor, named = prefix(value, unit)
    return f"{value / factor:g}{SPACE}{named}".rstrip()


def tick_bytes(value: float, unit: float) -> str:
    """A tick of a byte axis in a unit that is a power of 1024: `0`, `2 GiB`."""
    return "0" if value == 0 else f"{value / unit:g}{SPACE}{_IEC[round(math.log2(unit) / 10)]}"


def prefix(value: float, unit: str) -> tuple[float, str]:
    """The factor and the prefixed unit in which `value` has one to three digits before the point: `(1e9, "GFLOP/s")`."""
    power = 0 if value <= 0 else min(max(3 * math.floor(math.log10(value * (1 + 1e-9)) / 3), min(_SI)), max(_SI))
    return 10.0**power, f"{_SI[power]}{unit}"
