"""Numbers of programs by runs: as those that are listed, and few whatever the grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Axis, Launch, Loop, Operand, Schedule, Slot, Table, TileOp, const, lookup, var
from kernels.contract.series import Series, profile
from kernels.contract.walk import program_steps
from tests.kernels.shapes import H200


@st.composite
def series(draw: st.DrawFn) -> tuple[Series, list[int]]:
    """One, and its numbers listed."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    count = math.prod(sizes)
    listed = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    whole = tuple(np.arange(size + 1) for size in sizes)
    return Series.of(whole, np.array(listed, dtype=np.int64).reshape(sizes)), listed


@given(case=series())
def test_sums_over_runs_are_sums_over_what_is_listed(case: tuple[Series, list[int]]) -> None:
    found, listed = case
    assert found.at(np.arange(len(listed))).tolist() == listed
    assert [found.upto(n) for n in range(len(listed) + 1)] == [sum(listed[:n]) for n in range(len(listed) + 1)]
    assert found.total == sum(listed)
    assert listed == listed[: found.period] * (len(listed) // found.period)
    for total in range(found.total):
        assert found.entry_at(total) == next(i for i in range(len(listed)) if sum(listed[: i + 1]) > total)
    assert found.entry_at(found.total + 0.5) == len(listed) - 1


def test_what_hangs_on_two_axes_or_on_tables_is_told_apart() -> None:
    """A diagonal, a ragged length, a loop that two dimensions share, a launch in an order of its own."""
    diagonal = ((var("m") + var("n")) * 4, const(0))
    both = (var("m") * 4 + var("j"), var("n") * 4 + var("j"))
    body = (
        TileOp(kind="load", title="", operand="X", at=diagonal, tile=(4, 3), writes=("x",)),
        Loop(var="j", last=lookup("length", var("n")), body=(
            TileOp(kind="load", title="", operand="Y", at=both, tile=(4, 4), writes=("x",)),)),
        Loop(var="i", first=var("n"), last=const(4), body=(
            TileOp(kind="store", title="", operand="Y", at=(var("i") * 4 - 2, var("m")), tile=(4, 1), reads=("x",),
                   limits=(lookup("length", var("m")), None)),)),
    )
    launch = Launch(name="", title="", grid=(Axis("m", 4, reverse=True), Axis("n", 3), Axis("b", 2)),
                    slots=(Slot(name="x", shape=(4, 4), itemsize=2),), body=body, repeat=2)
    order = tuple(np.random.default_rng(0).permutation(24).tolist())
    tables = {"length": Table((4,), (5, 0, 13, 2)), "order": Table((24,), order)}
    operands = (Operand(name="X", shape=(13, 3), itemsize=2, role="input"),
                Operand(name="Y", shape=(14, 9), itemsize=4, role="scratch"))
    for one in (launch, Launch(**{f: getattr(launch, f) for f in launch.__struct_fields__} | {"order": "order"})):
        schedule = Schedule(kernel="", operands=operands, launches=(one,), tables=tables)
        found, steps = profile(schedule, one), [program_steps(schedule, one, p) for p in range(24)]
        every = np.arange(24)
        assert found.steps.at(every).tolist() == [len(s) for s in steps]
        for side, kind in ((found.read, "load"), (found.written, "store")):
            for name, moved in side.items():
                walked = [sum(s.bytes for s in p if s.op.kind == kind and s.op.operand == name) for p in steps]
                assert moved.at(every).tolist() == walked


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("seq", [1 << 20, (1 << 20) - 1])
@pytest.mark.parametrize("kernel", ["naive", "fused_softmax", "flash"])
def test_a_million_tokens_are_few_numbers(kernel: str, seq: int, causal: bool) -> None:
    """One a run of like programs: whole tiles and edges; under a causal mask each block of flash's rows is its own."""
    w = AttentionWorkload(batch=2, heads=4, kv_heads=4, seq=seq, head_dim=128, causal=causal)
    spec = catalog()[kernel]
    config = spec.configure(w, H200)
    assert spec.schedule
    schedule, cost = spec.schedule(w, config), spec.cost(w, config)
    found = [profile(schedule, launch) for launch in schedule.launches]
    own = -(-seq // config["block_m"]) if kernel == "flash" and causal else 4
    for each in found:
        assert all(numbers.values.size <= own for numbers in (each.steps, *each.read.values(), *each.written.values()))
    for name, traffic in cost.tile.items():
        assert sum(each.read[name].total for each in found if name in each.read) == traffic.read
        assert sum(each.written[name].total for each in found if name in each.written) == traffic.written
