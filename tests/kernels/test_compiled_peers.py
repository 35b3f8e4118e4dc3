"""The peers that torch.compile makes: right against the reference, and refused where nothing was compiled.

Dynamo traces here with the backend `eager`, which writes no code: what Inductor makes of it is for tests/gpu.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Refusal
from kernels.contract.workload import Pass
from tests.kernels.shapes import CPU, H200, error, shape, tensors_for

W = AttentionWorkload


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("workload", [
    shape(63, 2, batch=1), shape(40, 4, seq_kv=63, batch=1), shape(40, 1, causal=False, batch=1),
    shape(70, 2, window=20, batch=1),
], ids=["gqa", "more keys", "full", "window"])
def test_the_chain_agrees_with_the_reference(workload: W, direction: Pass) -> None:
    w = W(**{name: getattr(workload, name) for name in W.__struct_fields__ if name != "pass_"}, pass_=direction)
    spec = catalog()["compiled"]
    tensors = tensors_for(spec, w)
    got, wanted = spec.launch(w, Config(), tensors)(), spec.reference(w, tensors, None)
    assert set(got) == ({"O"} if direction == "forward" else {"dQ", "dK", "dV"})
    assert all(error(got[name], wanted[name]) <= spec.tolerance(w) for name in got)


@pytest.mark.usefixtures("eager")
def test_what_ran_without_being_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._dynamo.config, "disable", True)
    w, spec = shape(20, 2), catalog()["compiled"]
    with pytest.raises(Refusal, match="compil"):
        spec.launch(w, Config(), tensors_for(spec, w))


def test_what_cannot_be_compiled_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*_: object) -> object:
        raise RuntimeError("this backend makes nothing")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    w, spec = shape(20, 2), catalog()["compiled"]
    with pytest.raises(Refusal, match="cannot compile this here"):
        spec.launch(w, Config(), tensors_for(spec, w))


@pytest.mark.parametrize("name", ["compiled", "flex"])
def test_they_run_on_a_gpu_and_nowhere_without_keys(name: str) -> None:
    spec = catalog()[name]
    assert "NVIDIA GPU" in spec.constraints(shape(64), Config(), CPU)[0]
    assert not spec.constraints(shape(64), Config(), H200)
    assert "sees no key" in spec.constraints(shape(64, seq_kv=40), Config(), H200)[0]


@pytest.mark.parametrize("name", ["compiled", "sdpa_math"])
def test_a_chain_that_writes_s_and_p_is_predicted_with_them(name: str) -> None:
    operands = {operand.name: operand for operand in catalog()[name].operands(shape(64))}
    assert operands["S"].bytes == 2 * 4 * 64 * 64 * 4
    assert operands["P"].role == "scratch"
