"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import format as fmt

SI = {"p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
IEC = {name: 1024.0**i for i, name in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))}


def number(text: str) -> float:
    return float(text.replace(fmt.THIN, "").replace(fmt.MINUS, "-"))


@given(st.floats(1e-11, 1e20), st.sampled_from((1, -1)))
def test_quantity_keeps_three_digits_and_reads_back(size: float, sign: int) -> None:
    digits, _, unit = fmt.quantity(sign * size, "B/s").partition(fmt.SPACE)
    assert number(digits) * SI[unit.removesuffix("B/s")] == pytest.approx(sign * size, rel=0.0051)
    if size < 9e20:
        assert 1 <= abs(number(digits)) < 1000


@given(st.integers(0, 2**62))
def test_bytes_read_back_and_never_show_a_fourth_digit(size: int) -> None:
    digits, _, unit = fmt.bytes_iec(size).partition(fmt.SPACE)
    assert number(digits) * IEC[unit] == pytest.approx(size, rel=0.0051)
    assert unit == "B" or sum(c.isdigit() for c in digits.lstrip("0.")) <= 3


@given(st.floats(1e-9, 1e15))
def test_the_prefix_of_an_axis_leaves_one_to_three_digits(value: float) -> None:
    factor, unit = fmt.prefix(value, "FLOP/s")
    assert unit.endswith("FLOP/s")
    assert 0.999 <= value / factor < 1000.001


@pytest.mark.parametrize("function", [
    fmt.significant, fmt.bytes_iec, fmt.gib, fmt.time_ns, fmt.tflops, fmt.rate, fmt.count, fmt.percent, fmt.ratio, fmt.power_w,
    fmt.clock_hz, fmt.temperature_c, fmt.error, fmt.exact, lambda value: fmt.quantity(value, "W"),
])
@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_what_is_missing_is_never_a_number(function, missing) -> None:  # type: ignore[no-untyped-def]  # any formatter
    assert function(missing) == fmt.NA


@pytest.mark.parametrize(("text", "expected"), [
    (fmt.quantity(1.234e12, "B/s"), "1.23 TB/s"), (fmt.quantity(999.6, "W"), "1.00 kW"), (fmt.quantity(0, "W"), "0 W"),
    (fmt.time_ns(2.314e6), "2.31 ms"), (fmt.time_ns(412e3), "412 µs"), (fmt.tflops(521.2), "521 TFLOP/s"),
    (fmt.tflops(0.0521), "52.1 GFLOP/s"), (fmt.bytes_iec(139.8 * 2**30), "140 GiB"), (fmt.bytes_iec(1000), "1 000 B"),
    (fmt.bytes_iec(1000 * 1024), "0.977 MiB"), (fmt.percent(0.38), "38 %"), (fmt.percent(0.0385), "3.9 %"),
    (fmt.percent(0), "0 %"), (fmt.percent(0.0996), "10 %"), (fmt.ratio(33.81), "33.8×"), (fmt.clock_hz(1755e6), "1 755 MHz"),
    (fmt.power_w(612.4), "612 W"), (fmt.temperature_c(54), "54 °C"), (fmt.error(4.1e-3), "4.1e-3"), (fmt.error(0), "0"),
    (fmt.spread(0.99, 1.0, 1.03), "± 2.0 %"), (fmt.significant(-3), "−3.00"), (fmt.exact(2314127), "2 314 127"),
    (fmt.tick_ns(5e5), "500 µs"), (fmt.tick_ns(1e9), "1 s"), (fmt.tick_bytes(3 * 2**30, 2**30), "3 GiB"),
    (fmt.tick_bytes(0, 2**30), "0"), (fmt.plural(1, "sample"), "1 sample"), (fmt.plural(40, "sample"), "40 samples"),
])
def test_as_drawn_in_the_plan(text: str, expected: str) -> None:
    assert text.replace(fmt.SPACE, " ").replace(fmt.THIN, " ") == expected
