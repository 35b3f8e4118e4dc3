"""The shapes that the laws are tried at, and the tensors for them."""

from __future__ import annotations

from itertools import product

import torch
from msgspec.structs import replace

from kernels.contract import AttentionWorkload, Config, Device, KernelSpec, Workload

CPU = Device(id="cpu", kind="cpu", name="a CPU")
H200 = Device(
    id="cuda:0", kind="cuda", name="NVIDIA H200", capability=(9, 0), sms=132, sram_bytes_per_block=227 * 1024,
    l2_bytes=60 << 20, memory_bytes=150_000_000_000, bandwidth_bytes_per_s=4.8e12,
)

SMALL = Config(params={"block_m": 32, "block_n": 16, "warps": 4, "stages": 2, "splits": 3, "block_k": 16})


def shape(seq: int, kv_heads: int = 4, *, seq_kv: int = 0, causal: bool = True, window: int = 0, dtype: str = "float32",
          head_dim: int = 32, batch: int = 2, direction: str = "forward") -> AttentionWorkload:
    """A small workload with four query heads."""
    return AttentionWorkload(
        batch=batch, heads=4, kv_heads=kv_heads, seq=seq, seq_kv=seq_kv, head_dim=head_dim, causal=causal, window=window,
        dtype=dtype, pass_=direction,  # type: ignore[arg-type]
    )


def of_family(spec: KernelSpec, workloads: list[AttentionWorkload]) -> list[AttentionWorkload]:
    """The workloads as the kernel's family has them: decoding has one query, which sees as many keys."""
    if spec.info.family != "decode":
        return workloads
    return list(dict.fromkeys(replace(w, seq=1, seq_kv=w.keys, window=0) for w in workloads))


def of_passes(specs: list[KernelSpec], workloads: list[AttentionWorkload]) -> list[tuple[KernelSpec, AttentionWorkload]]:
    """Each kernel with each workload of its family, in every pass that the kernel has."""
    return [(spec, replace(w, pass_=direction))
            for spec in specs for direction in spec.info.passes for w in of_family(spec, workloads)]


def grid() -> list[AttentionWorkload]:
    """Odd lengths, heads shared or not, causal, full and windowed, as many keys as queries, fewer and more."""
    lengths = [shape(n, kv, causal=c) for n, kv, c in product((1, 63, 100, 130), (4, 2, 1), (True, False))]
    windows = [shape(n, 2, window=w) for n, w in product((63, 130), (1, 16, 37, 500))]
    ragged = [shape(n, 2, seq_kv=m, causal=c) for n, m, c in product((1, 40, 100), (1, 64, 130), (True, False))]
    dims = [shape(70, 2, head_dim=d) for d in (8, 40, 64, 96, 128)]
    return [*lengths, *windows, *ragged, *dims, shape(100, 2, seq_kv=160, window=20), shape(160, 1, seq_kv=100, window=20)]


def name(workload: AttentionWorkload) -> str:
    """A test's id."""
    w = workload
    mask = f"window{w.window}" if w.window else "causal" if w.causal else "full"
    way = "" if w.pass_ == "forward" else "backward-"
    return f"{way}{w.dtype}-N{w.seq}x{w.keys}-H{w.heads}:{w.kv_heads}-D{w.head_dim}-{mask}"


def tensors_for(spec: KernelSpec, workload: Workload, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Random inputs; outputs, scratch and what is to be saved full of NaN, so that what is not written shows."""
    tensors = spec.inputs(workload, device, torch.Generator(device).manual_seed(getattr(workload, workload.LENGTH)))
    dtypes = {workload.itemsize: workload.dtype, 4: "float32"}
    for operand in spec.operands(workload):
        if operand.role != "input":
            dtype = getattr(torch, operand.dtype or dtypes[operand.itemsize])
            tensors[operand.name] = torch.full(operand.shape, poison_of(dtype), dtype=dtype, device=device)
    return tensors


def poison_of(dtype: torch.dtype) -> float:
    """What shows that it was not written: NaN, or a number where there is none."""
    return float("nan") if dtype.is_floating_point else 77


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """max |got - wanted| / max |wanted|; NaN counts as infinite; a reference that is zero but for the roundings of float64
    (dQ where each query sees one key) is compared absolutely."""
    if not torch.isfinite(got).all():
        return float("inf")
    top = wanted.abs().max().item()
    return (got.double() - wanted).abs().max().item() / (top if top > 1e-12 else 1.0)
