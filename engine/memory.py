"""Who will own the device's memory: predicted from operands before a run, without torch.

A run keeps one set of inputs that all kernels share, and beside it each kernel's own outputs, scratch and what is saved for
it; the check of a kernel takes a chunk of float64 on top. On a GPU the caching allocator rounds (engine/allocator.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import psutil

from engine.allocator import Allocator
from engine.protocol import DeviceSample
from kernels.contract import AttentionWorkload, Device, LinearWorkload, Operand, Workload

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

CHECK_ROWS = 64              # query rows a head that the check of a live run compares
CHECK_CHUNK_BYTES = 64 * MIB  # of float64 that the check holds at once, where one head needs no more
CONTEXT_BYTES = 800 * MIB    # a CUDA context with its kernels loaded, outside torch's allocator. Source: NVML, on an H200
SPARE_BYTES = 256 * MIB      # left free on a GPU for what other programs take meanwhile
WORKSPACE_BYTES = 32 * MIB   # cuBLAS's workspace on Hopper, the largest. Source: PyTorch, CUBLAS_WORKSPACE_CONFIG
CPU_HEADROOM = 0.1           # share of RAM left to the rest of the machine


def inputs_of(operands: Iterable[Operand]) -> list[Operand]:
    """The operands that all kernels share."""
    return [operand for operand in operands if operand.role == "input"]


def owned(operands: Iterable[Operand]) -> list[Operand]:
    """The operands that a kernel needs for itself: outputs, what is saved for it, and scratch that lies in HBM."""
    return [operand for operand in operands if operand.role != "input" and operand.materialised]


def owner_of(workload: Workload) -> str:
    """The name under which inputs and outputs are counted."""
    return "X W Y" if isinstance(workload, LinearWorkload) else "Q K V O"


def peak_bytes(device: Device, workload: Workload, kernels: Sequence[Sequence[Operand]]) -> int:
    """The predicted peak of a run of kernels with these operands: on a GPU what torch reserves, on a CPU what is allocated."""
    shared = {operand.name: operand.bytes for operands in kernels for operand in inputs_of(operands)}
    own = [operand.bytes for operands in kernels for operand in owned(operands)]
    if device.kind == "cpu":
        return sum(shared.values()) + sum(own) + check_bytes(workload)
    return reserved([sum(shared.values()), *own]) + reserved([check_bytes(workload)]) + WORKSPACE_BYTES


def reserved(sizes: Iterable[int]) -> int:
    """What the caching allocator reserves for tensors of these sizes that live together, made in this order."""
    allocator = Allocator()
    for size in sizes:
        allocator.take(size)
    return allocator.reserved


class Chunk(NamedTuple):
    """What the check compares at once: of so many sequences so many KV heads, with so many query heads of each."""

    sequences: int
    kv_heads: int
    group: int


def check_chunk(workload: AttentionWorkload) -> Chunk:
    """As much as stays within CHECK_CHUNK_BYTES of float64, and at least one head."""
    w = workload
    whole = _check_head_bytes(w, w.group)
    if whole > CHECK_CHUNK_BYTES and w.pass_ == "forward":  # a backward pass sums dK and dV over the group
        return Chunk(1, 1, max(1, w.group * CHECK_CHUNK_BYTES // whole))
    heads = min(w.kv_heads, max(1, CHECK_CHUNK_BYTES // whole))
    return Chunk(min(w.batch, max(1, CHECK_CHUNK_BYTES // (whole * heads))) if heads == w.kv_heads else 1, heads, w.group)


def check_bytes(workload: Workload) -> int:
    """float64 that the check of one kernel holds at once: of a layer some rows, before and after, and a part of W."""
    if isinstance(workload, LinearWorkload):
        rows = min(CHECK_ROWS, workload.batch)
        return 8 * (rows * (workload.d_in + 2 * workload.d_out) + min(CHECK_CHUNK_BYTES // 8, workload.d_in * workload.d_out))
    chunk = check_chunk(workload)
    return chunk.sequences * chunk.kv_heads * _check_head_bytes(workload, chunk.group)


def _check_head_bytes(workload: AttentionWorkload, group: int) -> int:
    """For one KV head: Q whole, K and V repeated for the group; before that their copies, after it some [rows, N_kv]."""
    w = workload
    queries = group * w.seq * w.head_dim * (1 if w.pass_ == "forward" else 2)
    keys = w.keys * w.head_dim
    scores = group * min(CHECK_ROWS, w.seq) * w.keys * (3 if w.pass_ == "forward" else 4)
    return 8 * (queries + 2 * group * keys + max(2 * keys, scores))


def free_bytes(device: Device, sample: DeviceSample | None, context: bool = False) -> int:
    """What a run may take on a device where this process holds no tensors.

    Args:
        sample: the device's newest; not needed for a CPU.
        context: this process has its CUDA context there already.
    """
    if device.kind == "cpu":
        ram = psutil.virtual_memory()
        return max(0, int(ram.available - CPU_HEADROOM * ram.total))
    total = sample.memory_total_bytes if sample and sample.memory_total_bytes else device.memory_bytes or 0
    used = sample.memory_used_bytes if sample and sample.memory_used_bytes else 0
    return max(0, total - used - SPARE_BYTES - (0 if context else CONTEXT_BYTES))


def longest(fits: Callable[[int], bool], most: int) -> int | None:
    """The largest n up to `most` that fits, by bisection; None where `most` itself fits, 0 where nothing does."""
    if fits(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def text(size: int) -> str:
    """Bytes in a sentence: three digits, in KiB up to TiB."""
    value, unit = size / KIB, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value >= 1024:
            value, unit = value / 1024, larger
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
