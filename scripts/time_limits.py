"""`python scripts/time_limits.py`: what this GPU does at most, which specs of simulated GPUs state.

Each line is of 20 launches in one CUDA graph, the median of 15 replays, a launch: nothing, in grids of some sizes; reading,
writing and copying arrays that lie in the L2 whole or do not; and one thread's loads, each of which says where the next is.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from kernels.jit import jit, tl

LAUNCHES, REPLAYS, BLOCK = 20, 15, 2048
MIB = 1 << 20


@jit
def nothing(x_ptr: tl.tensor) -> None:
    """Begins and ends."""


@jit
def move(x_ptr: tl.tensor, y_ptr: tl.tensor, part: int, BLOCK: tl.constexpr, READ: tl.constexpr, WRITE: tl.constexpr) -> None:
    """A program reads its part of x, writes its part of y, or both; what is only read is summed."""
    program = tl.program_id(0)
    at = program.to(tl.int64) * part + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, part, BLOCK):
        x = tl.load(x_ptr + at + start) if READ else total
        if WRITE:
            tl.store(y_ptr + at + start, x)
        else:
            total += x
    if not WRITE:
        tl.store(y_ptr + program, tl.sum(total, 0))


@jit
def chase(x_ptr: tl.tensor, y_ptr: tl.tensor, steps: int) -> None:
    """Each load says where the next one is, on from where the launch before ended."""
    at = tl.load(y_ptr)
    for _ in range(steps):
        at = tl.load(x_ptr + at)
    tl.store(y_ptr, at)


def microseconds(run: Callable[[], Any]) -> float:
    """Of one launch."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            run()
    graph.replay()
    times = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / LAUNCHES)
    return statistics.median(times)


def main() -> None:
    x, y = (torch.randn(512 * MIB // 4, device="cuda") for _ in range(2))
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    for programs in (1, sms, 10 * sms, 100 * sms):
        print(f"nothing, {programs} programs: {microseconds(partial(nothing[(programs,)], x)):.2f} us")
    for name, read, write in (("read", True, False), ("write", False, True), ("copy", True, True)):
        for size in (4, 8, 16, 24, 32, 40, 44, 48, 56, 64, 96, 128, 256, 512):
            part = size * MIB // 4 // (4 * sms) // BLOCK * BLOCK
            moved = part * 4 * sms * 4
            took = microseconds(partial(move[(4 * sms,)], x, y, part, BLOCK, read, write, num_warps=8))
            print(f"{name} {moved / MIB:.1f} MiB: {took:.2f} us, {moved * (read + write) / took / 1e6:.2f} TB/s")
    for size in (1, 16, 512):  # MiB, of which every line is one step
        places = torch.randperm(size * MIB // 128, device="cuda")
        ring = torch.zeros(size * MIB // 4, device="cuda", dtype=torch.int32)
        ring[places * 32] = (places.roll(-1) * 32).int()
        out, steps = torch.zeros(1, device="cuda", dtype=torch.int32), 2000
        took = microseconds(partial(chase[(1,)], ring, out, steps, num_warps=1))
        print(f"a load that says where the next is, in {size} MiB: {took / steps * 1e3:.0f} ns")


if __name__ == "__main__":
    main()
