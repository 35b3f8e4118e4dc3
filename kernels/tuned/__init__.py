"""Tuned configurations as data: per capability a table of tiles (sm_90.toml) and what the compiler made of them.

The rows of a kernel's backward pass stand under its id with `_backward`.

First use never tunes: the nearest row serves. `sm_90.resources.json` holds registers, shared memory and spills of every
row, written by `python -m kernels.tuned`; the compile law (tests/kernels/test_compile.py) holds them true.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

import msgspec
from msgspec.structs import replace

from kernels.contract import AttentionWorkload, Compilation, Config, Device, LinearWorkload, Param, Resources

CPU = "cpu"
WARPGROUP_ROWS = 64  # that wgmma multiplies at once
BACKWARD = "_backward"
PARAMS = (
    Param(name="block_m", title="Block of queries", choices=(16, 32, 64, 128), unit="rows"),
    Param(name="block_n", title="Block of keys", choices=(16, 32, 64, 128), unit="rows"),
    Param(name="warps", title="Warps", choices=(4, 8)),
    Param(name="stages", title="Stages", choices=(1, 2, 3, 4), help="depth of the pipeline of loads"),
)  # what a row sets and a user may set instead
COMMON = tuple(param.name for param in PARAMS)


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row: the tiles for head dims up to `head_dim`, or layers of up to `batch` rows, of elements of `itemsize` bytes."""

    head_dim: int                # 0: of a layer, which has no heads
    itemsize: int
    block_m: int = 0             # 0: the kernel has no such parameter
    block_n: int = 0
    warps: int = 4
    stages: int = 1
    keys: int = 0                # for that many keys at most; 0: for any number
    causal: bool | None = None   # for masks of that kind; None: for both
    batch: int = 0               # for that many rows of a layer at most; 0: for any number
    more: dict[str, int] = {}    # parameters of this kernel alone

    @property
    def params(self) -> dict[str, int]:
        """Those that the rows of many kernels have, as far as this one's has them."""
        return {name: value for name in COMMON if (value := getattr(self, name))}

    def with_params(self, params: Mapping[str, int]) -> Row:
        """The row with these parameters in place of its own."""
        common = {name: value for name, value in params.items() if name in COMMON}
        rest = {name: value for name, value in params.items() if name not in COMMON}
        return replace(self, **common, more=self.more | rest)


class Tuned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tables of one architecture: kernel -> rows, and the capabilities it was chosen for."""

    covers: tuple[tuple[int, int], ...]
    kernels: dict[str, tuple[Row, ...]]


class Recorded(msgspec.Struct, frozen=True):
    """What the compiler reported, with its version: Compilation.key -> resources."""

    triton: str
    resources: dict[str, Resources]


@cache
def tables() -> dict[str, Tuned]:
    """Every table by name (`sm_90`, `cpu`)."""
    return {
        path.name.removesuffix(".toml"): msgspec.convert(tomllib.loads(path.read_text()), Tuned)
        for path in files(__name__).iterdir() if path.name.endswith(".toml")
    }


@cache
def recorded(table: str) -> Recorded:
    """The recorded resources of a table; empty where none were."""
    path = files(__name__) / f"{table}.resources.json"
    return msgspec.json.decode(path.read_bytes(), type=Recorded) if path.is_file() else Recorded("", {})


def table_for(device: Device) -> str:
    """The table whose capabilities hold the device's, else the nearest older one."""
    if device.capability is None:
        return CPU
    gpus = {name: tuned.covers for name, tuned in tables().items() if name != CPU}
    for name, covers in gpus.items():
        if device.capability in covers:
            return name
    older = [(max(c for c in covers if c <= device.capability), name)
             for name, covers in gpus.items() if min(covers) <= device.capability]
    return max(older)[1] if older else min((min(covers), name) for name, covers in gpus.items())[1]


def nearest(kernel: str, workload: AttentionWorkload, device: Device) -> Config:
    """The row with the element size, the smallest head dim and the fewest keys that hold the workload's."""
    return choose(table_for(device), kernel, workload)


def nearest_batch(kernel: str, workload: LinearWorkload, device: Device) -> Config:
    """The row with the element size and the smallest batch that holds the workload's."""
    return choose_batch(table_for(device), kernel, workload)


def choose_batch(table: str, kernel: str, workload: LinearWorkload) -> Config:
    """The configuration of the row of a table that serves a layer. `wgmma` as in `choose`."""
    w = workload
    fitting = [r for r in tables()[table].kernels[kernel] if r.itemsize == w.itemsize and (r.batch or math.inf) >= w.batch]
    row = min(fitting, key=lambda r: r.batch or math.inf)
    return Config(params=row.params | {"wgmma": int(table == "sm_90" and w.itemsize == 2)} | row.more)


def ring_depth(config: Config) -> int:
    """Copies of a tile that the pipeline of loads keeps: one a stage where wgmma reads them late, else one less.

    Source: the shared memory that the compiler reports (tests/kernels/test_laws.py).
    """
    return config["stages"] if config.params.get("wgmma") else max(1, config["stages"] - 1)


def loads_ahead(config: Config) -> int:
    """Whole turns that Triton's pipeline of loads runs ahead: a tile is asked for at the end of a turn, one less than stages
    before its own.

    Where a product is still under way then, as flash's P V is, it hides that, and a ring is as good as filled a turn earlier.
    Source: the machine code of flash and its backward pass for sm_90, where the copies stand before the loop's end.
    """
    return max(0, config["stages"] - 2)


def by_wgmma(config: Config, rows: int) -> bool:
    """Whether a product whose tall side has so many rows is made by warpgroups. Source: tests/kernels/test_compile.py."""
    return config.params.get("wgmma", 0) > 0 and rows >= WARPGROUP_ROWS


def choose(table: str, kernel: str, workload: AttentionWorkload) -> Config:
    """The configuration of the row of a table that serves a workload. `wgmma`: Hopper's asynchronous products, and TMA."""
    w = workload
    row = serving(tables()[table].kernels[rows_of(table, kernel, w)], w.head_dim, w.itemsize, w.keys, w.causal)
    return Config(params=row.params | {"wgmma": int(table == "sm_90" and w.itemsize == 2)} | row.more)


def rows_of(table: str, kernel: str, workload: AttentionWorkload) -> str:
    """The name under which the rows of a kernel's pass stand."""
    backward = kernel + BACKWARD
    return backward if workload.pass_ == "backward" and backward in tables()[table].kernels else kernel


def serving(rows: Iterable[Row], head_dim: int, itemsize: int, keys: float, causal: bool) -> Row:
    """The row for such a workload: the smallest head dim that holds it, then the fewest keys, then a row of its mask alone."""
    fitting = [r for r in rows if r.itemsize == itemsize and r.head_dim >= head_dim and (r.keys or math.inf) >= keys
               and r.causal in (None, causal)]
    return min(fitting, key=lambda r: (r.head_dim, r.keys or math.inf, r.causal is None))


def too_large(title: str, need: int, device: Device) -> list[str]:
    """A sentence where tiles that take `need` bytes of shared memory do not fit the SM."""
    limit = device.sram_bytes_per_block
    if device.kind == "cpu" or not limit or need <= limit:
        return []
    return [f"{title}'s tiles need {-(-need // 1024)} KiB of SRAM and this device gives a block {limit // 1024} KiB: "
            "choose a smaller block_m, block_n or stages"]


def with_resources(config: Config, compilations: tuple[Compilation, ...], device: Device) -> Config:
    """The configuration with what the compiler reported for its launches, where it was recorded."""
    known = recorded(table_for(device)).resources
    return replace(config, resources={c.launch: known[c.key] for c in compilations if c.key in known})
