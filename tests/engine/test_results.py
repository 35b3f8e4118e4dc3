"""From events to the objects that `run --json` prints."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console

from engine import planner, results
from engine.protocol import Checked, Event, KernelSample, Planned, Refused
from tests.engine.fakes import CPU, SMALL, configure, fake

FIELDS = [
    "schema", "kernel", "device", "provenance", "workload", "config", "l2_policy", "launches", "time_us", "tflops",
    "hbm_read_bytes", "hbm_write_bytes", "tile_bytes", "peak_memory_bytes", "check", "refused",
]
NUMBERS = FIELDS[7:14]


def planned(*kernels: str, generation: int = 1, **options: Any) -> Planned:
    catalog = {kernel: fake(kernel, **options) for kernel in kernels}
    return planner.plan(configure(generation, *kernels), (CPU,), catalog, lambda device: 1 << 40)  # noqa: ARG005


def collected(*events: Event) -> list[dict[str, Any]]:
    collector = results.Collector()
    for event in events:
        collector.add(event)
    return list(msgspec.to_builtins(collector.results()))


def sample(time_us: float, launches: int = 10, kernel: str = "good", generation: int = 1) -> KernelSample:
    return KernelSample(generation=generation, kernel=kernel, launches=launches, time_ns=time_us * 1e3)


def checked(ok: bool = True, error: float = 1e-6) -> Checked:
    return Checked(generation=1, kernel="good", ok=ok, max_error=error, tolerance=1e-5, rows=64)


def test_a_result_has_the_fields_of_the_command_line() -> None:
    plan = planned("good")
    one, = collected(plan, checked(), *(sample(float(t)) for t in range(1, 12)))
    assert list(one) == FIELDS
    assert one["time_us"] == {"p20": 3.0, "p50": 6.0, "p80": 9.0, "n": 11}
    assert one["launches"] == 110
    assert one["tflops"] == pytest.approx(SMALL.nominal_flops / 6e-6 / 1e12)
    assert (one["hbm_read_bytes"], one["hbm_write_bytes"], one["tile_bytes"]) == (100, 60, None)
    assert one["peak_memory_bytes"] == plan.plans[0].peak_memory_bytes
    assert one["check"] == {"ok": True, "max_error": 1e-6, "tolerance": 1e-5}
    assert one["workload"] == msgspec.to_builtins(SMALL)
    assert one["config"] == {"block_m": 32, "other": 1}
    assert (one["kernel"], one["device"], one["provenance"], one["l2_policy"]) == ("good", "cpu", "measured", "warm")
    assert one["refused"] is None


def test_one_sample_is_its_own_quantiles() -> None:
    one, = collected(planned("good"), sample(5.0))
    assert one["time_us"] == {"p20": 5.0, "p50": 5.0, "p80": 5.0, "n": 1}


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([planned("good", constraint="no: never")], "no: never"),
        ([planned("good"), Refused(generation=1, kernel="good", reason="full: less")], "full: less"),
        ([planned("good"), checked(ok=False, error=0.5), sample(1.0)],
         "its output is wrong: error 0.5 against a tolerance of 1e-05"),
        ([planned("good")], "it was not measured: the run ended before its turn"),
    ],
)
def test_a_refused_kernel_has_a_sentence_and_no_numbers(events: list[Event], reason: str) -> None:
    one, = collected(*events)
    assert list(one) == FIELDS
    assert one["refused"] == reason
    assert all(one[name] is None for name in NUMBERS)


def test_events_of_another_generation_are_left_out() -> None:
    one, = collected(planned("good"), sample(5.0, generation=0), sample(7.0), sample(5.0, generation=2))
    assert one["time_us"]["n"] == 1
    again, = collected(planned("good"), sample(5.0), planned("good", generation=2), sample(9.0, generation=2))
    assert again["time_us"]["p50"] == 9.0
    assert collected(sample(1.0)) == []


def test_kernels_keep_the_order_in_which_they_were_chosen() -> None:
    found = collected(planned("b", "a"), sample(1.0, kernel="a"), sample(2.0, kernel="b"))
    assert [one["kernel"] for one in found] == ["b", "a"]


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=50))
def test_quantiles_are_in_order_and_within_the_samples(times: list[float]) -> None:
    one, = collected(planned("good"), *(sample(t) for t in times))
    q = one["time_us"]
    slack = 1e-9 * max(times)
    assert min(times) - slack <= q["p20"] <= q["p50"] + slack <= q["p80"] + 2 * slack <= max(times) + 3 * slack


def test_the_table_shows_every_kernel_and_every_reason() -> None:
    collector = results.Collector()
    for event in (planned("good", "slow", "none"), checked(), sample(1234.5), sample(2.5e6, kernel="slow"),
                  Refused(generation=1, kernel="none", reason="never on this device")):
        collector.add(event)
    out = io.StringIO()
    Console(file=out, width=160).print(results.table(collector.results()))
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["kernel", "good", "slow", "none"]
    assert "1.23 ms" in lines[1]
    assert "passed (1e-06)" in lines[1]
    assert "2.50 s" in lines[2]
    assert "never on this device" in lines[3]


def test_the_opaque_have_no_tile_bytes_and_the_others_theirs() -> None:
    plan = planned("good")
    from kernels.contract import Traffic

    tiled = replace(plan.plans[0], cost=replace(plan.plans[0].cost, tile={"Q": Traffic(7, 0), "O": Traffic(0, 5)}))
    one, = collected(replace(plan, plans=(tiled,)), sample(1.0))
    assert one["tile_bytes"] == 12
