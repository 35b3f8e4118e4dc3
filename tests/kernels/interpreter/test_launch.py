"""launch agrees with reference in Triton's interpreter. Needs TRITON_INTERPRET=1 before Triton is imported: `make test`
runs this folder in a process of its own. float32 and float16 only: the interpreter is silently wrong in bfloat16."""

from __future__ import annotations

import os
from itertools import product
from typing import Any

import pytest

from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, KernelSpec
from tests.kernels.shapes import SMALL, error, name, of_passes, poison_of, shape, tensors_for

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1 (make test)")

ATTENTION = [spec for spec in catalog().values() if spec.info.family == "attention"]
OURS = [spec for spec in ATTENTION if not spec.info.opaque and "float32" in spec.info.dtypes]  # Gluon is for the GPU
SHAPES = [
    *(shape(n, kv, causal=c, batch=1) for n, kv, c in product((1, 63, 100, 130), (4, 2, 1), (True, False))),
    *(shape(n, 2, causal=c, batch=2, dtype="float16") for n, c in product((63, 130), (True, False))),
    *(shape(130, 2, window=w, batch=1) for w in (1, 37)),
    shape(40, 2, seq_kv=130, batch=1), shape(100, 4, seq_kv=64, batch=1), shape(100, 1, seq_kv=160, window=20, batch=1),
    *(shape(70, 2, head_dim=d, batch=1) for d in (8, 40, 96)),
]


def by_id(value: object) -> str | None:
    return value.id if isinstance(value, KernelSpec) else name(value) if isinstance(value, AttentionWorkload) else None


@pytest.mark.parametrize(("spec", "workload"), of_passes(OURS, SHAPES), ids=by_id)
def test_launch_agrees_with_reference(spec: KernelSpec, workload: AttentionWorkload) -> None:
    tensors = tensors_for(spec, workload)
    got = spec.launch(workload, SMALL, tensors)()
    wanted = spec.reference(workload, tensors, None)
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(workload)


@pytest.fixture
def adding_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter has no atomic adds by descriptors: as those by pointers, clipped as its stores are."""
    from triton._C.libtriton import ir
    from triton.runtime.interpreter import InterpreterBuilder

    def reduce(builder: Any, kind: Any, desc: Any, value: Any, indices: Any) -> None:
        assert kind == ir.DESCRIPTOR_REDUCE_KIND.ADD
        at, inside = desc.materialize_pointers(indices)
        builder.create_atomic_rmw(ir.ATOMIC_OP.FADD, at, value, inside, ir.MEM_SEMANTIC.RELAXED, None)

    monkeypatch.setattr(InterpreterBuilder, "create_descriptor_reduce", reduce, raising=False)


LONG = AttentionWorkload(batch=1, heads=2, kv_heads=1, seq=1000, head_dim=64, dtype="float16")


@pytest.mark.parametrize(("spec", "workload"), of_passes(OURS, [LONG]), ids=by_id)
def test_long_launch_agrees_with_reference(spec: KernelSpec, workload: AttentionWorkload) -> None:
    tensors = tensors_for(spec, workload)
    got = spec.launch(workload, Config(params={"block_m": 128, "block_n": 64, "warps": 4, "stages": 2}), tensors)()
    wanted = spec.reference(workload, tensors, None)
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(workload)


BY_TMA = [catalog()[kernel] for kernel in ("naive", "fused_softmax", "flash")]


@pytest.mark.usefixtures("adding_descriptors")
@pytest.mark.parametrize(("spec", "workload"), of_passes(BY_TMA, SHAPES[8:]), ids=by_id)
def test_launch_by_descriptors_agrees_with_reference(spec: KernelSpec, workload: AttentionWorkload) -> None:
    """What TMA does on Hopper: rows beyond the keys and columns beyond the head dim are zero, and none is stored."""
    tensors = tensors_for(spec, workload)
    got = spec.launch(workload, Config(params={**SMALL.params, "wgmma": 1}), tensors)()
    wanted = spec.reference(workload, tensors, None)
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(workload)


@pytest.mark.parametrize("kernel", ["naive", "fused_softmax"])
def test_the_products_take_tiles_of_their_own(kernel: str) -> None:
    spec, workload = catalog()[kernel], shape(130, 2, seq_kv=200, batch=1)
    own = {"scores_block_m": 16, "scores_block_n": 64, "pv_block_m": 64}
    tensors = tensors_for(spec, workload)
    got = spec.launch(workload, Config(params={**SMALL.params, **own}), tensors)()
    assert error(got["O"], spec.reference(workload, tensors, None)["O"]) <= spec.tolerance(workload)


@pytest.mark.parametrize(("spec", "workload"), of_passes(OURS, [shape(63, 2)]), ids=by_id)
def test_launch_takes_strides_as_given(spec: KernelSpec, workload: AttentionWorkload) -> None:
    """[B, N, H, D] in memory, seen as [B, H, N, D]; what lies between the strides is NaN and stays out."""
    tensors = tensors_for(spec, workload)
    plain = {name: tensor.clone() for name, tensor in tensors.items()}
    for operand in (o.name for o in spec.operands(workload) if o.role != "scratch" and len(o.shape) == 4):
        b, h, n, d = tensors[operand].shape
        wide = tensors[operand].new_full((b, n, h, d + 8), poison_of(tensors[operand].dtype))
        wide[..., :d] = tensors[operand].transpose(1, 2)
        tensors[operand] = wide[..., :d].transpose(1, 2)
    got = spec.launch(workload, SMALL, tensors)()
    wanted = spec.reference(workload, plain, None)
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(workload)
