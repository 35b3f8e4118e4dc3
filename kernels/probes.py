"""Kernels that find out what a GPU does at most, for `engine bench calibrate`; none of them is one of the catalog.

Each gives what can be told without a GPU: sums of what was read, copies, the place at which a ring was left, fixed points.
"""

from __future__ import annotations

from kernels.contract import Compilation
from kernels.jit import jit, tl

BLOCK = 2048        # elements of float32 that a program moves at once
LANES = 1024        # that a program computes on
WARPS = 8           # of a program that moves or computes
UNROLL = 32         # steps in a row of what is computed, so that counting them takes no part of the time
SCALE, SHIFT = 0.999, 0.001


@jit
def nothing(x_ptr: tl.tensor) -> None:
    """Begins and ends."""


@jit
def read(x_ptr: tl.tensor, sum_ptr: tl.tensor, n_part: int, parts: int, BLOCK: tl.constexpr) -> None:
    """sum_ptr[i] = the sum of part i % parts of x, past the L1, so that programs of one SM share nothing there."""
    program = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    x_at = x_ptr + (program % parts).to(tl.int64) * n_part + lanes
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n_part, BLOCK):
        total += tl.load(x_at + start, mask=lanes + start < n_part, other=0.0, cache_modifier=".cg")
    tl.store(sum_ptr + program, tl.sum(total, 0))


@jit
def move(x_ptr: tl.tensor, y_ptr: tl.tensor, n_part: int, BLOCK: tl.constexpr, READ: tl.constexpr) -> None:
    """A program's part of y, whole blocks, becomes that of x; zeros where it does not read."""
    at = tl.program_id(0).to(tl.int64) * n_part + tl.arange(0, BLOCK)
    for start in range(0, n_part, BLOCK):
        tl.store(y_ptr + at + start, tl.load(x_ptr + at + start) if READ else tl.zeros([BLOCK], dtype=tl.float32))


@jit
def chase(ring_ptr: tl.tensor, place_ptr: tl.tensor, steps: int) -> None:
    """Each load says where the next one is, on from where the launch before ended; past the L1, which keeps some of it."""
    at = tl.load(place_ptr)
    for _ in range(steps):
        at = tl.load(ring_ptr + at, cache_modifier=".cg")
    tl.store(place_ptr, at)


@jit
def exponentials(x_ptr: tl.tensor, steps: int, LANES: tl.constexpr, UNROLL: tl.constexpr) -> None:
    """x = 2^-x, steps * UNROLL times, of LANES elements a program."""
    at = x_ptr + tl.program_id(0) * LANES + tl.arange(0, LANES)
    x = tl.load(at)
    for _ in range(steps):
        for _ in tl.static_range(UNROLL):
            x = tl.exp2(-x)
    tl.store(at, x)


@jit
def multiply_adds(
    x_ptr: tl.tensor, scale: float, shift: float, steps: int, LANES: tl.constexpr, UNROLL: tl.constexpr,
) -> None:
    """x = scale x + shift, steps * UNROLL times, of LANES elements a program."""
    at = x_ptr + tl.program_id(0) * LANES + tl.arange(0, LANES)
    x = tl.load(at)
    for _ in range(steps):
        for _ in tl.static_range(UNROLL):
            x = x * scale + shift
    tl.store(at, x)


def compilations() -> tuple[Compilation, ...]:
    """Every form in which `engine/bench/probing.py` launches them. Parts are multiples of 16, as whole tensors are."""
    f, i = "*fp32", "*i32"
    computed = {"LANES": LANES, "UNROLL": UNROLL}
    return (
        _form("nothing", nothing, {"x_ptr": f}, 4),
        _form("read", read, {"x_ptr": f, "sum_ptr": f, "n_part": "i32", "parts": "i32"}, WARPS, BLOCK=BLOCK),
        _form("copy", move, {"x_ptr": f, "y_ptr": f, "n_part": "i32"}, WARPS, BLOCK=BLOCK, READ=True),
        _form("write", move, {"x_ptr": f, "y_ptr": f, "n_part": "i32"}, WARPS, BLOCK=BLOCK, READ=False),
        _form("chase", chase, {"ring_ptr": i, "place_ptr": i, "steps": "i32"}, 1),
        _form("exponentials", exponentials, {"x_ptr": f, "steps": "i32"}, WARPS, **computed),
        _form("multiply_adds", multiply_adds, {"x_ptr": f, "scale": "fp32", "shift": "fp32", "steps": "i32"}, WARPS,
              **computed),
    )


def _form(launch: str, kernel: object, signature: dict[str, str], warps: int, **constants: object) -> Compilation:
    return Compilation(launch=launch, kernel=kernel, signature=signature, constants=constants, warps=warps, stages=3)
