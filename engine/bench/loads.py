"""One launch of each kind that `calibrate` times, on tensors of its own: what it computes can be checked. Imports torch."""

from __future__ import annotations

from typing import NamedTuple

import torch

from engine.machine import Run, Tensors
from kernels import probes as kernels

LINE_BYTES = 128  # of memory that is read at once
F32 = 4


class Load(NamedTuple):
    """One launch, and how much it does: bytes, loads, results or flops."""

    run: Run
    amount: float


def empty(place: str, programs: int) -> Load:
    """Launches of nothing."""
    x = torch.empty(1, device=place)

    def run() -> Tensors:
        kernels.nothing[(programs,)](x)
        return {}

    return Load(run, 1)


def reads(place: str, n_bytes: int, programs: int, readers: int) -> Load:
    """Reading at most `n_bytes`, whole lines in parts alike, one for each of `programs`; for each part `readers` programs.

    Tensors: x [parts * n_part], sum [parts * readers] of the parts.
    """
    line = LINE_BYTES // F32
    n_part = max(line, n_bytes // F32 // programs // line * line)
    x, sums = torch.randn(programs * n_part, device=place), torch.empty(programs * readers, device=place)

    def run() -> Tensors:
        kernels.read[(len(sums),)](x, sums, n_part, programs, kernels.BLOCK, num_warps=kernels.WARPS)
        return {"x": x, "sum": sums}

    return Load(run, readers * x.nbytes)


def moves(x: torch.Tensor | None, y: torch.Tensor, programs: int) -> Load:
    """Copying x to y, or writing zeros where there is no x: whole blocks in parts alike, which leave a little of y."""
    n_part = y.numel() // programs // kernels.BLOCK * kernels.BLOCK
    moved = programs * n_part * F32 * (1 if x is None else 2)

    def run() -> Tensors:
        kernels.move[(programs,)](y if x is None else x, y, n_part, kernels.BLOCK, x is not None, num_warps=kernels.WARPS)
        return {"y": y}

    return Load(run, moved)


def copies(x: torch.Tensor, y: torch.Tensor) -> Load:
    """PyTorch's element-wise kernel, times one: its own copy is the driver's, which is slower where tensors are large."""

    def run() -> Tensors:
        torch.mul(x, 1.0, out=y)
        return {"y": y}

    return Load(run, x.nbytes + y.nbytes)


def chases(place: str, n_bytes: int, steps: int) -> Load:
    """Loads one after the other, in one random ring through the first elements of all lines of `n_bytes`.

    Tensors: ring [n_bytes / 4], at each first element the index of the next; place [1], where the ring was left.
    """
    line = LINE_BYTES // F32
    order = torch.randperm(max(2, n_bytes // LINE_BYTES), device=place) * line
    ring = torch.zeros(order.numel() * line, device=place, dtype=torch.int32)
    ring[order] = order.roll(-1).int()
    at = torch.zeros(1, device=place, dtype=torch.int32)

    def run() -> Tensors:
        kernels.chase[(1,)](ring, at, steps, num_warps=1)
        return {"ring": ring, "place": at}

    return Load(run, steps)


def exponentials(place: str, programs: int, steps: int) -> Load:
    """2^-x, of it again, and so on. Tensors: x [programs * LANES]."""
    x = torch.rand(programs * kernels.LANES, device=place)

    def run() -> Tensors:
        kernels.exponentials[(programs,)](x, steps, kernels.LANES, kernels.UNROLL, num_warps=kernels.WARPS)
        return {"x": x}

    return Load(run, x.numel() * steps * kernels.UNROLL)


def multiply_adds(place: str, programs: int, steps: int) -> Load:
    """SCALE x + SHIFT, of it again, and so on. Tensors: x [programs * LANES]."""
    x = torch.rand(programs * kernels.LANES, device=place)

    def run() -> Tensors:
        kernels.multiply_adds[(programs,)](
            x, kernels.SCALE, kernels.SHIFT, steps, kernels.LANES, kernels.UNROLL, num_warps=kernels.WARPS)
        return {"x": x}

    return Load(run, 2 * x.numel() * steps * kernels.UNROLL)


def product(place: str, dtype: str, size: int) -> Load:
    """A [size, size] @ B [size, size] on random data, in a dtype of the matrix units; 8 bits by functions for them alone."""
    a, b = (torch.randn(size, size, device=place) for _ in range(2))
    if dtype == "float8":
        a, b = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
        one = torch.ones(1, device=place)

        def run() -> Tensors:
            return {"C": torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)}
    elif dtype == "int8":
        a, b = (20 * a).to(torch.int8), (20 * b).to(torch.int8).t()

        def run() -> Tensors:
            return {"C": torch._int_mm(a, b)}
    else:
        kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
        a, b = a.to(kind), b.to(kind)

        def run() -> Tensors:
            return {"C": a @ b}
    return Load(run, 2 * size**3)
