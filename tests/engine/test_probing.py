"""How `calibrate` takes times, on this CPU: products of each dtype are right, launches are counted, the clock is read."""

from __future__ import annotations

from itertools import cycle

import pytest
import torch

from engine.bench import ceilings, loads, probing
from engine.bench.calibrate import Unmeasured
from engine.bench.loads import Load
from engine.bench.probing import Probes
from engine.machine import HostMachine


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Probes:
    """Of two SMs whose clock goes up and down, timed in few bursts."""
    monkeypatch.setattr(probing, "REPEATS", 2)
    monkeypatch.setattr(ceilings, "PRODUCT", 64)
    monkeypatch.setattr(ceilings, "HOST_BYTES", 1 << 20)
    monkeypatch.setattr(probing, "COPY_BYTES", 1 << 20)
    clocks = cycle([1.5e9, None, 1.5e9, 9e9])
    return Probes(HostMachine(lambda: None), 2, lambda: next(clocks))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "tf32", "int8"])
def test_a_product_is_one(dtype: str) -> None:
    torch.manual_seed(5)
    a, b = (torch.randn(32, 32) for _ in range(2))
    torch.manual_seed(5)
    load = loads.product("cpu", dtype, 32)
    found = load.run()["C"]
    if dtype == "int8":
        assert torch.equal(found, (20 * a).to(torch.int8).int() @ (20 * b).to(torch.int8).t().int())
    else:
        torch.testing.assert_close(found.float(), a @ b, rtol=0.02, atol=0.3)
    assert load.amount == 2 * 32**3


def test_eight_bit_floats_are_multiplied_where_they_can_be() -> None:
    torch.manual_seed(5)
    a, b = (torch.randn(32, 32).to(torch.float8_e4m3fn).float() for _ in range(2))
    torch.manual_seed(5)
    load = loads.product("cpu", "float8", 32)
    torch.testing.assert_close(load.run()["C"].float(), a @ b.t(), rtol=0.02, atol=0.1)


def test_times_have_their_spread_and_the_median_clock(probes: Probes) -> None:
    timed = probes.product("bfloat16")
    assert timed.amount == 2 * 64**3
    assert 0 < timed.time.p20 <= timed.time.p50 <= timed.time.p80
    assert timed.time.n >= 2
    assert timed.clock_hz == 1.5e9
    assert timed.rate == pytest.approx(timed.amount / timed.time.p50 * 1e6)


def test_tf32_is_allowed_while_it_is_timed_and_no_longer(probes: Probes, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = []
    monkeypatch.setattr(loads, "product", lambda *_: Load(lambda: allowed.append(
        torch.backends.cuda.matmul.allow_tf32) or {}, 1))  # type: ignore[func-returns-value]
    before = torch.backends.cuda.matmul.allow_tf32
    probes.product("tf32")
    assert set(allowed) == {True}
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_a_product_that_there_is_not_is_one_line(probes: Probes) -> None:
    with pytest.raises(Unmeasured) as error:
        probes.product("float3")
    assert "float3" in str(error.value)
    assert "\n" not in str(error.value)


def test_launches_of_the_host_are_counted(probes: Probes, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[int] = []
    monkeypatch.setattr(torch.cuda, "_sleep", launched.append)
    timed = probes.host_launches()
    assert launched == [0] * (3 * probing.HOST_LAUNCHES)  # the first round is warming up
    assert (timed.amount, timed.time.n) == (1, 2)
    assert timed.time.p50 < 100


def test_memory_is_read_and_what_is_read_is_counted(probes: Probes) -> None:
    assert probes.read_memory().amount == 1 << 20
