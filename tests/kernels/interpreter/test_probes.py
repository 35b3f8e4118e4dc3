"""What `calibrate` times computes what it says, in small: sums of all that was read, copies, whole rings, fixed points."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

from engine.bench import loads, probing
from engine.machine import HostMachine
from kernels import probes

Made = Callable[[torch.Tensor], torch.Tensor]

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1 (make test)")


@pytest.mark.parametrize(("n_bytes", "programs", "readers"), [(40_000, 3, 1), (40_000, 3, 4), (128, 2, 2), (100_001, 1, 3)])
def test_every_part_is_read_whole_by_each_of_its_readers(n_bytes: int, programs: int, readers: int) -> None:
    load = loads.reads("cpu", n_bytes, programs, readers)
    found = load.run()
    parts = found["x"].view(programs, -1).double().sum(1)
    torch.testing.assert_close(found["sum"].double(), parts.repeat(readers), rtol=1e-4, atol=1e-3)
    assert load.amount == readers * 4 * found["x"].numel()
    assert found["x"].numel() * 4 <= max(n_bytes, programs * loads.LINE_BYTES)
    assert found["x"].numel() // programs % (loads.LINE_BYTES // 4) == 0


def test_a_copy_is_one_and_what_is_counted_was_moved() -> None:
    x, y = torch.randn(3 * 2 * probes.BLOCK + 100), torch.full((3 * 2 * probes.BLOCK + 100,), torch.nan)
    load = loads.moves(x, y, 3)
    load.run()
    moved = int((~y.isnan()).sum())
    assert torch.equal(y[:moved], x[:moved])
    assert load.amount == 2 * 4 * moved == 2 * 4 * 3 * 2 * probes.BLOCK


def test_what_is_written_is_counted_once() -> None:
    y = torch.full((2 * probes.BLOCK,), torch.nan)
    load = loads.moves(None, y, 2)
    load.run()
    assert torch.equal(y, torch.zeros_like(y))
    assert load.amount == y.nbytes


def test_a_ring_visits_every_line_once_before_it_comes_back() -> None:
    lines = 24
    load = loads.chases("cpu", lines * loads.LINE_BYTES, 1)
    seen = [int(load.run()["place"]) for _ in range(lines)]
    line = loads.LINE_BYTES // 4
    assert sorted(seen) == [line * i for i in range(lines)]
    assert seen[-1] == 0  # where it began: steps of launches follow each other
    assert seen != sorted(seen)


def test_many_steps_of_a_ring_are_as_many_launches_of_one() -> None:
    load = loads.chases("cpu", 10 * loads.LINE_BYTES, 7)
    found = load.run()
    ring, at = found["ring"].tolist(), 0
    for _ in range(7):
        at = ring[at]
    assert int(found["place"]) == at
    assert load.amount == 7


@pytest.mark.parametrize(("name", "made", "per_step"), [
    ("exponentials", lambda x: torch.exp2(-x), 1), ("multiply_adds", lambda x: probes.SCALE * x + probes.SHIFT, 2)])
def test_all_that_is_counted_is_computed(name: str, made: Made, per_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "UNROLL", 3)  # few, so that one more or less is seen
    torch.manual_seed(3)
    x = torch.rand(2 * probes.LANES)
    torch.manual_seed(3)
    load = getattr(loads, name)("cpu", 2, 2)
    for _ in range(6):
        x = made(x)
    torch.testing.assert_close(load.run()["x"], x, rtol=1e-5, atol=1e-5)
    assert load.amount == 2 * probes.LANES * 6 * per_step


def test_nothing_is_launched() -> None:
    assert loads.empty("cpu", 5).run() == {}


def test_each_is_timed_as_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here by the interpreter's time, which says nothing."""
    for name, value in {"REPEATS": 1, "CHASED": 3, "COMPUTED": 1, "COPY_BYTES": 1 << 18, "COMPUTING_PER_SM": 1}.items():
        monkeypatch.setattr(probing, name, value)
    asked = probing.Probes(HostMachine(lambda: None), 2, lambda: None)
    amounts = {
        "empty": asked.empty(3), "read": asked.read(64 << 10, 2), "copy": asked.copy(), "write": asked.write(),
        "chase": asked.chase(1280), "exponentials": asked.exponentials(), "multiply_adds": asked.multiply_adds(),
    }
    steps = 2 * probes.LANES * probes.UNROLL
    assert {name: timed.amount for name, timed in amounts.items()} == {
        "empty": 1, "read": 2 << 16, "copy": 2 << 18, "write": 1 << 18, "chase": 3, "exponentials": steps,
        "multiply_adds": 2 * steps}
    assert all(timed.time.p50 > 0 and timed.clock_hz is None for timed in amounts.values())
