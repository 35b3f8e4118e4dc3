"""Hardware bytes beside the cost formula, as they are told: a line each launch, and one for the kernel. Without torch.

DRAM bytes are what the memory's chips were asked for. With the caches flushed before each launch they are read at least once
(HBM bytes), and more often where an operand left the L2 before it was needed again; what a launch wrote last may still lie in
the L2 when it ends, and is then not counted. Where programs drift apart, how often that is differs from one execution to the
next: medians of some, and the range of what was read where it is wide. L2 bytes are what the SMs asked of it, in sectors: the
tile bytes and their rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from engine.results import Check
from kernels.contract import Workload

Cache = Literal["all", "none"]

POLICIES = {
    "all": "caches flushed before each launch",
    "none": "caches as the launch before left them, of the same kernel, just warmed up",
}
HEADS = ("row", "kernel", "launch", "DRAM read", "HBM read", "ratio", "DRAM written", "HBM written", "ratio", "L2", "tiles",
         "L2 hits")


WIDE = 1.02  # the most that was read over the least


class LaunchBytes(Struct, frozen=True, kw_only=True):
    """One launch, medians of its executions. `function`: its name on the GPU. What was not counted is None; `l2_hit_rate` is of
    the SMs' sectors. `dram_read_range`: the least and the most that an execution read."""

    launch: str
    function: str
    dram_read_bytes: int
    dram_write_bytes: int
    dram_read_range: tuple[int, int]
    l2_bytes: int | None
    l2_hit_rate: float | None
    tile_bytes: int


class KernelBytes(Struct, frozen=True, kw_only=True):
    """One kernel in a row: its launches as counted, and the closed form of all of them together."""

    kernel: str
    config: dict[str, int]
    launches: tuple[LaunchBytes, ...] = ()
    hbm_read_bytes: int | None = None
    hbm_write_bytes: int | None = None
    check: Check | None = None
    refused: str = ""

    @property
    def dram_read_bytes(self) -> int:
        """Of all its launches."""
        return sum(one.dram_read_bytes for one in self.launches)

    @property
    def dram_read_range(self) -> tuple[int, int]:
        """Of all its launches, as if each had read least, or most, in the same execution."""
        return sum(one.dram_read_range[0] for one in self.launches), sum(one.dram_read_range[1] for one in self.launches)

    @property
    def dram_write_bytes(self) -> int:
        """Of all its launches."""
        return sum(one.dram_write_bytes for one in self.launches)

    @property
    def wrong(self) -> bool:
        """Whether its output is."""
        return self.check is not None and not self.check.ok


class Result(Struct, frozen=True, kw_only=True):
    """One row. `tool`: the version of what has counted. `times`: executions that were counted."""

    row: str
    device: str
    workload: Workload
    cache: Cache
    tool: str
    times: int
    kernels: tuple[KernelBytes, ...]


def table(results: Sequence[Result]) -> str:
    """The rows as a table in Markdown, in GB, and under it how they were counted."""
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    lines += [line for result in results for kernel in result.kernels for line in _lines(result.row, kernel)]
    how = dict.fromkeys(f"{result.device}, {result.tool}; medians of {result.times} executions, {POLICIES[result.cache]}"
                        for result in results)
    return "\n".join([*lines, "", *(f"In GB. {one}; clocks left alone. DRAM and L2 are counted, HBM and tiles closed forms."
                                    for one in how)])


def _lines(row: str, kernel: KernelBytes) -> Iterator[str]:
    if kernel.refused:
        yield f"| {row} | {kernel.kernel} | refused: {kernel.refused} |" + " |" * (len(HEADS) - 3)
        return
    launches, several = kernel.launches, len(kernel.launches) > 1
    for one in launches if several else ():
        yield _line(row, kernel.kernel, one.launch, _read(one), "", "", _gb(one.dram_write_bytes), "", "",
                    _gb(one.l2_bytes), _gb(one.tile_bytes), _hits(one))
    asked = None if any(one.l2_bytes is None for one in launches) else sum(one.l2_bytes or 0 for one in launches)
    yield _line(
        row, kernel.kernel + (" (WRONG)" if kernel.wrong else ""), "all" if several else launches[0].launch,
        _read(kernel), *_beside(kernel.dram_read_bytes, kernel.hbm_read_bytes),
        _gb(kernel.dram_write_bytes), *_beside(kernel.dram_write_bytes, kernel.hbm_write_bytes),
        _gb(asked), _gb(sum(one.tile_bytes for one in launches)), "" if several else _hits(launches[0]))


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _beside(counted: int, modelled: int | None) -> tuple[str, str]:
    """What the formula says, and how many times it was counted."""
    return _gb(modelled), f"{counted / modelled:.2f}" if modelled else "n/a"


def _read(what: LaunchBytes | KernelBytes) -> str:
    """The median, and the range where it is wide."""
    least, most = what.dram_read_range
    apart = f" ({_gb(least)} to {_gb(most)})" if most > WIDE * least else ""
    return _gb(what.dram_read_bytes) + apart


def _gb(value: int | None) -> str:
    return "n/a" if value is None else f"{value / 1e9:.3f}"


def _hits(launch: LaunchBytes) -> str:
    return "n/a" if launch.l2_hit_rate is None else f"{launch.l2_hit_rate:.0%}"


def brief(result: Result) -> str:
    """A row in a line: what each kernel moved, and how many times its closed form that is."""
    said = []
    for kernel in result.kernels:
        moved = kernel.dram_read_bytes + kernel.dram_write_bytes
        _, ratio = _beside(moved, (kernel.hbm_read_bytes or 0) + (kernel.hbm_write_bytes or 0))
        said.append(f"{kernel.kernel} {'refused' if kernel.refused else f'{_gb(moved)} GB, {ratio} of its cost'}")
    return f"{result.row}: {'; '.join(said)}"
