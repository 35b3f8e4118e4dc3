"""The most that this device does: of a plain matrix product, and of a plain kernel that reads its memory. Imports torch."""

from __future__ import annotations

from functools import partial
from itertools import product

import torch

from engine.buffers import Tensors
from engine.machine import Machine, Run
from kernels.jit import MISSING, jit, tl

PRODUCT = 8192         # of the matrix product: n^3
READ_BYTES = 2 << 30   # some 30 times the L2 of the largest GPU: what one scan leaves there does not serve the next
HOST_BYTES = 64 << 20  # on a CPU
PART = 1 << 16         # elements of float32 that one program reads
SHAPES = tuple(product((2048, 4096, 8192), (4, 8)))  # elements that it has under way at once, and its warps


@jit
def _sums(x_ptr: tl.tensor, sum_ptr: tl.tensor, PART: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """sum_ptr[i] = the sum of part i of x."""
    program = tl.program_id(0)
    x_at = x_ptr + program.to(tl.int64) * PART + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, PART, BLOCK):
        total += tl.load(x_at + start)
    tl.store(sum_ptr + program, tl.sum(total, 0))


def ceiling_tflops(machine: Machine, dtype: torch.dtype = torch.bfloat16) -> float:
    """TFLOP/s of the largest plain product on random data: what the matrix units give here."""
    size = PRODUCT if machine.place != "cpu" else PRODUCT // 8
    a, b = (torch.randn(size, size, device=machine.place, dtype=dtype) for _ in range(2))

    def product() -> Tensors:
        return {"C": a @ b}

    times = [timing.time_ns for timing in machine.timer(product, 0).burst()]
    return float(2 * size**3 / min(times) / 1e3)


def reads(machine: Machine) -> tuple[int, list[Run]]:
    """The bytes that each of some runs reads, and these: kernels that sum READ_BYTES and hardly write, in the SHAPES; on a
    host, or without Triton, PyTorch's sum."""
    host = machine.place == "cpu"
    x = torch.randn((HOST_BYTES if host else READ_BYTES) // 4, device=machine.place)
    sums = torch.empty(x.numel() // PART, device=machine.place)

    def by_torch() -> Tensors:
        return {"sum": x.sum()}

    def by_kernel(block: int, warps: int) -> Tensors:
        _sums[(sums.numel(),)](x, sums, PART, block, num_warps=warps)
        return {"sum": sums}

    plain = host or MISSING
    return x.nbytes, [by_torch] if plain else [partial(by_kernel, block, warps) for block, warps in SHAPES]


def read_ceiling(machine: Machine) -> float:
    """Bytes a second of the fastest of `reads`."""
    read_bytes, runs = reads(machine)
    fastest = min(min(timing.time_ns for timing in machine.timer(run, 0).burst()) for run in runs)
    return read_bytes / fastest * 1e9
