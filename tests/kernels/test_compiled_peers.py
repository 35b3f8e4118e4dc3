"""The peers that torch.compile makes: right against the reference, and refused where nothing was compiled.

Dynamo traces here with the backend `eager`, which writes no code: what Inductor makes of it is for tests/gpu. That it keeps
the chain is tried here too, for its patterns match on a CPU as on a GPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from kernels.attention import compiled
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Refusal
from kernels.contract.workload import Pass
from tests.kernels.shapes import CPU, H200, error, shape, tensors_for
from tests.kernels.shapes import name as name_of

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
def test_what_ran_without_being_compiled_is_refused() -> None:
    w, spec = shape(20, 2), catalog()["compiled"]
    with torch._dynamo.config.patch(disable=True), pytest.raises(Refusal, match="compil"):
        spec.launch(w, Config(), tensors_for(spec, w))


def test_what_cannot_be_compiled_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*_: object, **__: object) -> object:
        raise RuntimeError("this backend makes nothing")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    w, spec = shape(20, 2), catalog()["compiled"]
    with pytest.raises(Refusal, match="cannot compile this here"):
        spec.launch(w, Config(), tensors_for(spec, w))


inductor = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs g++ on a CPU")
UNMASKED = [shape(40, kv, causal=False, batch=1, dtype=dtype, direction=direction)
            for kv, dtype in ((4, "float32"), (1, "bfloat16")) for direction in ("forward", "backward")]


@inductor
@pytest.mark.parametrize("workload", UNMASKED, ids=name_of)
def test_inductor_compiles_the_unmasked_chain_as_it_is_written(workload: W) -> None:
    spec = catalog()["compiled"]
    tensors = tensors_for(spec, workload)
    got, wanted = spec.launch(workload, Config(), tensors)(), spec.reference(workload, tensors, None)
    assert not counters["inductor"]["fuse_attention"]
    assert all(error(got[name], wanted[name]) <= 2 * spec.tolerance(workload) for name in got)


@inductor
@pytest.mark.parametrize("workload", UNMASKED, ids=name_of)
def test_a_chain_that_inductor_replaced_is_refused_each_time(workload: W, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time too, when a cache could hold what the first time made."""
    monkeypatch.setitem(compiled.AS_WRITTEN, "disabled_passes", "")
    spec = catalog()["compiled"]
    for _ in range(2):
        with pytest.raises(Refusal, match="scaled_dot_product_attention in place of this chain"):
            spec.launch(workload, Config(), tensors_for(spec, workload))


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
