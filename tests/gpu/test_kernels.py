"""launch agrees with reference on a GPU: every dtype and head dim, long and odd lengths, strides, poisoned padding."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace

from kernels.attention import flash_hopper_backward
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Device, KernelSpec, Refusal
from tests.kernels.shapes import error, name, of_family, of_passes, poison_of, tensors_for

ALL = [spec for spec in catalog().values() if spec.info.family == "attention"]
OURS = [spec for spec in ALL if not spec.info.opaque]


def shape(
    seq: int, seq_kv: int = 0, kv_heads: int = 4, head_dim: int = 64, dtype: str = "bfloat16", **more: object,
) -> AttentionWorkload:
    return AttentionWorkload(
        batch=2, heads=4, kv_heads=kv_heads, seq=seq, seq_kv=seq_kv, head_dim=head_dim, dtype=dtype, **more)  # type: ignore[arg-type]


SHAPES = [
    *(shape(n, 0, kv, d, causal=c) for n, kv, d, c in (
        (1, 4, 64, True), (63, 2, 64, True), (100, 1, 32, False), (1000, 4, 128, True), (1000, 2, 128, False),
        (2048, 1, 64, True), (4096, 4, 128, True), (777, 4, 96, True), (512, 2, 192, False), (640, 4, 256, True),
        (130, 2, 40, True))),
    shape(1, 4096, 1, 128), shape(100, 1100, 2), shape(1100, 1000, 1), shape(64, 3, 4, causal=False),
    shape(1500, 0, 2, 128, window=300), shape(300, 1500, 2, window=100), shape(20000, 0, 4, 32, "bfloat16", window=64),
    shape(20, 20000, 2, 64),
]


def by_id(value: object) -> str | None:
    return value.id if isinstance(value, KernelSpec) else name(value) if isinstance(value, AttentionWorkload) else None


@pytest.mark.parametrize("spec", ALL, ids=by_id)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("workload", SHAPES, ids=by_id)
def test_launch_agrees_with_reference(spec: KernelSpec, dtype: str, workload: AttentionWorkload, device: Device) -> None:
    w = AttentionWorkload(**{
        f: getattr(workload, f) for f in workload.__struct_fields__ if f != "dtype"} | {"dtype": dtype})
    w, = of_family(spec, [w])
    if sum(o.bytes for o in spec.operands(w) if o.role == "scratch") > 1 << 33:
        pytest.skip("the square of the longest row is for kernels that do not write it")
    config = spec.configure(w, device)
    if reasons := spec.constraints(w, config, device):
        pytest.skip(reasons[0])
    tensors = tensors_for(spec, w, "cuda")
    try:
        got = spec.launch(w, config, tensors)()
    except Refusal as reason:
        pytest.skip(str(reason))
    rows = torch.arange(0, w.seq, max(1, w.seq // 500), device="cuda")
    wanted = spec.reference(w, tensors, rows)
    assert error(got["O"][:, :, rows], wanted["O"]) <= spec.tolerance(w)
    assert torch.isfinite(got["O"]).all()


STRIDED = [shape(333, 0, 2, 128), shape(200, 333, 4, 64, causal=False)]


@pytest.mark.parametrize(("spec", "workload"), of_passes(OURS, STRIDED), ids=by_id)
def test_strides_as_given_and_nan_between_them(spec: KernelSpec, workload: AttentionWorkload, device: Device) -> None:
    tensors = tensors_for(spec, workload, "cuda")
    plain = dict(tensors)
    for operand in (o.name for o in spec.operands(workload) if o.role != "scratch"):
        if tensors[operand].dim() != 4:
            continue
        b, h, n, d = tensors[operand].shape
        wide = tensors[operand].new_full((b, n + 5, h, d + 8), poison_of(tensors[operand].dtype))
        wide[:, :n, :, :d] = tensors[operand].transpose(1, 2)
        tensors[operand] = wide[:, :n, :, :d].transpose(1, 2)
    got, wanted = spec.launch(workload, spec.configure(workload, device), tensors)(), spec.reference(workload, plain, None)
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(workload)


@pytest.mark.parametrize("wanted", [1, 16, 528])
@pytest.mark.parametrize(
    "workload", [shape(333, 0, 1, 128), shape(700, 0, 1, 64, causal=False), shape(1500, 0, 1, 64, window=300)], ids=by_id)
def test_any_number_of_programs_may_share_a_kv_head(
    workload: AttentionWorkload, wanted: int, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rings go on from one query head to the next, and dK and dV are summed or not."""
    monkeypatch.setattr(flash_hopper_backward, "PROGRAMS", wanted)
    test_backward_agrees_with_reference(catalog()["flash_hopper"], "bfloat16", replace(workload, pass_="backward"), device)


BACKWARD = of_passes([s for s in ALL if "backward" in s.info.passes], [w for w in SHAPES if w.seq * w.keys <= 1 << 24])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(("spec", "workload"), [case for case in BACKWARD if case[1].pass_ == "backward"], ids=by_id)
def test_backward_agrees_with_reference(spec: KernelSpec, dtype: str, workload: AttentionWorkload, device: Device) -> None:
    """All of dQ, dK and dV; ours twice, for what one launch leaves in the scratch must not reach the next."""
    w = replace(workload, dtype=dtype)
    config = spec.configure(w, device)
    if reasons := spec.constraints(w, config, device):
        pytest.skip(reasons[0])
    tensors = tensors_for(spec, w, "cuda")
    try:
        run = spec.launch(w, config, tensors)
    except Refusal as reason:
        pytest.skip(str(reason))
    run()
    got, wanted = run(), spec.reference(w, tensors, None)
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(w) * (1 if spec in OURS else 2)


def rms(x: torch.Tensor) -> float:
    return float(x.double().square().mean().sqrt())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("kernel", ["flash", "flash_hopper"])
def test_outputs_are_as_exact_as_those_of_sdpa(
    kernel: str, pass_: str, head_dim: int, dtype: str, causal: bool, device: Device
) -> None:
    """The root of the mean square error against float64, at most 1.25 of what PyTorch's FlashAttention-2 has."""
    w = replace(shape(1024, 0, 4, head_dim, dtype), causal=causal, pass_=pass_)
    spec, peer = catalog()[kernel], catalog()["sdpa_flash"]
    config = spec.configure(w, device)
    if reasons := spec.constraints(w, config, device):
        pytest.skip(reasons[0])
    tensors = tensors_for(spec, w, "cuda")
    got = spec.launch(w, config, tensors)()
    theirs, wanted = peer.launch(w, Config(), tensors)(), spec.reference(w, tensors, None)
    for output in got:
        assert rms(got[output].double() - wanted[output]) <= 1.25 * rms(theirs[output].double() - wanted[output]), output
