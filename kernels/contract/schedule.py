"""A schedule: which program loads, computes and stores which tile, in which order. Data, small and serialisable."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from msgspec import Struct, field

from kernels.contract.expr import Affine, Expr, Ints


class Operand(Struct, frozen=True, kw_only=True):
    """An array of a kernel: its shape in elements and where it lives.

    `saved` is what an earlier pass leaves in HBM for this one (the forward pass's O and lse for the backward): it is filled
    when the kernel is bound to tensors, so neither time nor cost of making it counts, and launches only read it.
    `materialised` is false for what a kernel computes but never writes to HBM (flash's S and P): it has a shape to be
    drawn to scale, and no op may load or store it. `dtype`: torch's name for it, where that is neither the workload's nor a
    float of `itemsize` bytes.
    """

    name: str
    shape: tuple[int, ...]
    itemsize: int
    role: Literal["input", "saved", "output", "scratch"]
    materialised: bool = True
    dtype: Literal["", "float32", "int8", "float8_e4m3fn", "int32"] = ""

    @property
    def bytes(self) -> int:
        """Size in bytes, whether or not it is materialised."""
        size = self.itemsize
        for extent in self.shape:
            size *= extent
        return size


class Slot(Struct, frozen=True, kw_only=True):
    """A named place on the SM that holds one tile of one program.

    `copies` is the depth of the ring that asynchronous loads fill ahead of their use.
    """

    name: str
    shape: tuple[int, ...]
    itemsize: int
    place: Literal["sram", "registers"] = "sram"
    copies: int = 1
    operand: str = ""

    @property
    def bytes(self) -> int:
        """Size in bytes of all copies."""
        size = self.itemsize * self.copies
        for extent in self.shape:
            size *= extent
        return size


class TileOp(Struct, frozen=True, kw_only=True, tag="op", omit_defaults=True):
    """One step of a program: a tile loaded, computed on, or stored.

    `at` are the element offsets of the tile in its operand, `tile` its extent; what lies beyond the operand's shape
    (or beyond `limits`, where given) is clipped, as the kernel's masks do. `fn` is a name in kernels/tile_math.py,
    called with the slots it reads and `args`. Work is per execution and counts whole tiles, masked lanes included.
    A load runs `ahead` iterations before its use, where its slot is a ring; `early`: it is issued as soon as the tile before it
    in its one slot has been used, and so runs beside what the program does until then. `multicast`: programs, neighbours in
    launch order, that one read of the L2 serves; each of them counts the tile as loaded. `moved_bytes`: what a compute op
    moves between SRAM and registers or matrix units, where it is known how its warps share the tiles: 0 where it is not.
    `barriers`: those that all warps of the program pass; `exchanges`: how often they hand numbers on through shared memory, by
    a store and a load on both sides of a barrier. `depth_warps`: warps that each add up a part of a product's depth. A load
    that reads a slot finds in it where its tile lies.
    """

    kind: Literal["load", "compute", "store"]
    title: str
    operand: str = ""
    at: tuple[Expr, ...] = ()
    tile: tuple[int, ...] = ()
    limits: tuple[Expr | None, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    fn: str = ""
    args: dict[str, Expr | float] = field(default_factory=dict)
    matrix_flops: int = 0
    vector_flops: int = 0
    exps: int = 0
    moved_bytes: int = 0
    barriers: int = 0
    exchanges: int = 0
    depth_warps: int = 1
    ahead: int = 0
    early: bool = False
    multicast: int = 1
    warp_role: str = ""
    mode: Literal["write", "rewrite", "add"] = "write"


class Loop(Struct, frozen=True, kw_only=True, tag="loop"):
    """`body` for `var` from `first` up to but not including `last`."""

    var: str
    first: Expr = Affine()
    last: Expr
    body: tuple[TileOp | Loop, ...]


class Axis(Struct, frozen=True):
    """One axis of a grid. A reversed axis is launched from its last coordinate to its first: longest rows first."""

    name: str
    size: int
    reverse: bool = False


class Launch(Struct, frozen=True, kw_only=True):
    """One kernel launch: a grid of programs that all run `body`.

    `grid` names its axes fastest first, as CUDA's x, y, z. `order` names a table that permutes the linear order.
    With `resident` R > 0 the launch is persistent: item i runs on program i mod R, or, `dynamic`, on the program that is free
    first, in order. `sram_bytes` and `registers` (per thread) are those that the compiler reported; None where nothing was
    compiled.

    How warps share a program's work: `groups` of four warps go through the body each on rows of its own, and so one's softmax
    may run beside another's products; 0: all warps, by fours. `async_products`: a group's softmax also runs beside products of
    its own, which it issued before and waits for after. `wgmma`: products are of warpgroups, from SRAM, at Hopper's full rate;
    else mma of single warps. `dependent`: its programs begin where the launch before leaves room, and wait for its end.
    """

    name: str
    title: str
    grid: tuple[Axis, ...]
    slots: tuple[Slot, ...]
    body: tuple[TileOp | Loop, ...]
    warps: int = 4
    sram_bytes: int | None = None
    registers: int | None = None
    order: str = ""
    resident: int = 0
    dynamic: bool = False
    groups: int = 0
    async_products: bool = False
    wgmma: bool = False
    repeat: int = 1
    dependent: bool = False

    @property
    def streams(self) -> int:
        """Groups of four warps that compute, each in its own time: what can share the units of an SM within one program."""
        return self.groups or max(1, self.warps // 4)

    @property
    def programs(self) -> int:
        """Programs in the grid."""
        count = 1
        for axis in self.grid:
            count *= axis.size
        return count

    def slot(self, name: str) -> Slot:
        """The slot of that name. Raises KeyError where there is none."""
        for slot in self.slots:
            if slot.name == name:
                return slot
        raise KeyError(name)


class Table(Struct, frozen=True, dict=True):
    """A small integer table, row by row, that expressions look up: pages, lengths, an order of programs."""

    shape: tuple[int, ...]
    values: tuple[int, ...]

    @cached_property
    def array(self) -> Ints:
        """It as an array, made once: [*shape]."""
        found = np.array(self.values, dtype=np.int64).reshape(self.shape)
        found.flags.writeable = False
        return found


class Schedule(Struct, frozen=True, kw_only=True):
    """All launches of one kernel on one workload. `tables` are the integer tables that expressions look up."""

    kernel: str
    operands: tuple[Operand, ...]
    launches: tuple[Launch, ...]
    tables: dict[str, Table] = field(default_factory=dict)

    def operand(self, name: str) -> Operand:
        """The operand of that name. Raises KeyError where there is none."""
        for operand in self.operands:
            if operand.name == name:
                return operand
        raise KeyError(name)
