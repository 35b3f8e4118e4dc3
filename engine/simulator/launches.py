"""What a decoder launches beside the kernels of the catalog, as schedules: products, and passes over elements.

A library picks tiles by a table that nobody published: here, of CUTLASS's usual ones, those whose waves of programs would take
least by the matrix units and by what an SM takes of the L2. One row times a matrix is a stream of it, cut as in
kernels/linear/fused.py. Its programs ask for all that they load before all else: where there are more than run at once, those
that follow hide what those before wait for.
Biases and gains, a thousandth of what is read, are in no schedule.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec.structs import replace

from engine.simulator import occupancy
from engine.simulator.figures import DeviceSpec
from engine.simulator.spec import device_of
from engine.simulator.work import PORT
from kernels.attention.chain import products_config, schedule_of, with_resources
from kernels.attention.chain_products import product
from kernels.contract import ITEMSIZE, Axis, Config, Launch, Loop, Operand, Schedule, Slot, TileOp, const, var
from kernels.contract.workload import DType
from kernels.jit import cdiv
from kernels.linear import fused

HOPPER = (9, 0)   # the first capability with dependent launches, and with wgmma
ELEMENTS = 2048   # that a program of a pass over elements holds
PASS_WARPS, PASS_REGISTERS = 4, 32
FLOAT32 = ((128, 128, 8), (128, 64, 4), (64, 128, 4), (64, 64, 4))          # BLOCK_M, BLOCK_N, warps
SIXTEEN = ((128, 256, 8), (128, 128, 4), (128, 64, 4), (64, 128, 4), (64, 64, 4))
WARPGROUPS = ((128, 256, 12), (128, 128, 12), (64, 256, 4), (64, 128, 4), (64, 64, 4))

Kept = Literal["weights", "cache", "made"]


class Product(NamedTuple):
    """C [planes, rows, d_out] of A [planes, rows, d_in] and B [planes, d_out, d_in], transposed.

    Attributes:
        kept: where B comes from: the weights, the cache, or a launch before.
        fused: by our layers of few rows (FUSED_ROWS); else by a library.
        overlap: B is asked for while the launch before runs.
        gated: B holds two matrices of d_out / 2 outputs.
        norm: each program normalises the row of A; only of one row.
    """

    rows: int
    d_in: int
    d_out: int
    dtype: DType
    planes: int = 1
    kept: Kept = "weights"
    fused: bool = False
    overlap: bool = False
    gated: bool = False
    norm: bool = False

    @property
    def flops(self) -> int:
        """Two a multiply-add."""
        return 2 * self.planes * self.rows * self.d_in * self.d_out

    @property
    def matrix_bytes(self) -> int:
        """Of B."""
        return self.planes * self.d_in * self.d_out * ITEMSIZE[self.dtype]

    def schedule(self, spec: DeviceSpec) -> Schedule:
        return _streamed(self, spec) if self.rows == 1 else _tiled(self, spec)


class Pass(NamedTuple):
    """Each of so many elements computed from those at its place of `reads` arrays, into `writes` arrays; a norm or a softmax
    likewise. `itemsize`: bytes of an element. `sums`: how often threads wait for one of a row. The rest is of an element."""

    elements: int
    itemsize: int
    reads: int = 1
    writes: int = 1
    vector_flops: int = 1
    exps: int = 0
    sums: int = 0

    @property
    def flops(self) -> int:
        """Of products."""
        return 0

    @property
    def overlap(self) -> bool:
        return False

    def schedule(self, spec: DeviceSpec) -> Schedule:
        names = [f"in {number}" for number in range(self.reads)], [f"out {number}" for number in range(self.writes)]
        at, tile = (var("n") * ELEMENTS,), (ELEMENTS,)
        loads = (TileOp(kind="load", title=f"load {name}", operand=name, at=at, tile=tile, writes=(name,))
                 for name in names[0])
        stores = (TileOp(kind="store", title=f"store {name}", operand=name, at=at, tile=tile, reads=("x",))
                  for name in names[1])
        compute = TileOp(kind="compute", title="x", fn="x", reads=tuple(names[0]), writes=("x",),
                         vector_flops=self.vector_flops * ELEMENTS, exps=self.exps * ELEMENTS)
        slots = (*(Slot(name=name, shape=tile, itemsize=self.itemsize, place="registers") for name in names[0]),
                 Slot(name="x", shape=tile, itemsize=4, place="registers"))
        launch = Launch(
            name="pass", title="a pass over elements", grid=(Axis("n", cdiv(self.elements, ELEMENTS)),), slots=slots,
            warps=PASS_WARPS, body=(*loads, *(_summed("x") for _ in range(self.sums)), compute, *stores), sram_bytes=0,
            registers=PASS_REGISTERS)
        operands = (_operand(name, role, self.itemsize, self.elements)
                    for role, side in zip(("input", "output"), names, strict=True) for name in side)
        return Schedule(kernel="pass", operands=tuple(operands), launches=(_hiding(launch, spec),))


def _operand(name: str, role: str, itemsize: int, *shape: int) -> Operand:
    return Operand(name=name, shape=shape, itemsize=itemsize, role=role)  # type: ignore[arg-type]


def _hiding(launch: Launch, spec: DeviceSpec) -> Launch:
    """The launch, with its loads early where it has more programs than run at once."""
    if launch.programs <= spec.sms * min(occupancy.limits(launch, spec).values()):
        return launch

    def early(step: TileOp | Loop) -> TileOp | Loop:
        if isinstance(step, Loop):
            return replace(step, body=tuple(map(early, step.body)))
        return replace(step, early=step.kind == "load")

    return replace(launch, body=tuple(map(early, launch.body)))


def _summed(slot: str, vector_flops: int = 0) -> TileOp:
    """A sum over the threads of a program, who wait for it as for those of a softmax."""
    return TileOp(kind="compute", title="sums", fn="x", reads=(slot,), writes=(slot,), vector_flops=vector_flops, exps=1)


def _streamed(one: Product, spec: DeviceSpec) -> Schedule:
    """Programs own outputs of all planes, and read their rows of B once."""
    size, outs = ITEMSIZE[one.dtype], one.planes * one.d_out
    halves = 2 if one.gated else 1
    tiles = fused.configure(1, one.d_in, outs // halves, size, one.gated, spec.sms, spec.sram_bytes_per_block)
    bn, bk = halves * tiles.block_n, tiles.block_k
    k, whole = var("k") * bk, one.d_in <= bk
    loads = (
        TileOp(kind="load", title="load B", operand="B", at=(var("n") * bn, k), tile=(bn, bk), writes=("B",)),
        TileOp(kind="load", title="load A", operand="A", at=(const(0), k), tile=(1, bk), writes=("A",)),
        *((_summed("A", 3 * bk),) * 2 if one.norm else ()),  # the mean, then what lies beside it
        TileOp(kind="compute", title="C += A B", fn="x", reads=("A", "B", "C"), writes=("C",), vector_flops=2 * bn * bk))
    store = TileOp(kind="store", title="store C", operand="C", at=(const(0), var("n") * bn), tile=(1, bn), reads=("C",))
    launch = Launch(
        name="one row", title="C = A Bᵗ, one row", grid=(Axis("n", cdiv(outs, bn)),), warps=tiles.warps, sram_bytes=0,
        slots=(Slot(name="A", shape=(1, bk), itemsize=size, place="registers"),
               Slot(name="B", shape=(bn, bk), itemsize=size, place="registers", copies=1 if whole else 2),
               Slot(name="C", shape=(1, bn), itemsize=4, place="registers")),
        body=(Loop(var="k", last=const(cdiv(one.d_in, bk)), body=loads), _summed("C"), store))
    return Schedule(kernel="one row", launches=(_hiding(launch, spec),), operands=(
        _operand("A", "input", size, one.planes, one.d_in), _operand("B", "input", size, outs, one.d_in),
        _operand("C", "output", size, 1, outs)))


def _tiled(one: Product, spec: DeviceSpec) -> Schedule:
    """A program a tile of C; by our fused layers B is the tall operand, and C their transpose."""
    size = ITEMSIZE[one.dtype]
    sides = {"A": (one.rows, one.d_in), "B": (one.d_out, one.d_in)}
    first, second = ("B", "A") if one.fused else ("A", "B")
    arrays = {name: _operand(name, "input", size, 1, one.planes, *shape) for name, shape in sides.items()}
    arrays["C"] = _operand("C", "output", size, 1, one.planes, sides[first][0], sides[second][0])
    config = _fused_tiles(one, spec) if one.fused else _library_tiles(one, spec)
    steps = [product(arrays, config, "product", "C = A Bᵗ", "nt", (first, second), "C")]
    config = with_resources(config, steps)
    return schedule_of("product", tuple(arrays.values()),
                       [product(arrays, config, "product", "C = A Bᵗ", "nt", (first, second), "C")])


def _fused_tiles(one: Product, spec: DeviceSpec) -> Config:
    size = ITEMSIZE[one.dtype]
    tiles = fused.configure(
        one.rows, one.d_in, one.d_out // (2 if one.gated else 1), size, one.gated, spec.sms, spec.sram_bytes_per_block)
    params = {"block_m": tiles.block_n, "block_n": tiles.block_m, "block_k": tiles.block_k, "warps": tiles.warps,
              "stages": max(1, tiles.stages)}
    wgmma = spec.products_from_sram and tiles.block_n >= 64 and size == 2
    return Config(params=params | ({"groups": 1} if wgmma else {}))


def _library_tiles(one: Product, spec: DeviceSpec) -> Config:
    """Where two take as long, the larger."""
    size = ITEMSIZE[one.dtype]
    hopper = size == 2 and HOPPER <= spec.capability < (10, 0)
    matrix = spec.matrix_flops_per_clock.get("float16", 0) * spec.achievable_matrix
    rate = matrix if matrix and size == 2 else spec.vector_flops_per_clock

    def clocks(tile: tuple[int, int, int]) -> float:
        bm, bn, _ = tile
        waves = cdiv(one.planes * cdiv(one.rows, bm) * cdiv(one.d_out, bn), spec.sms)
        return waves * max(2 * bm * bn / rate, (bm + bn) * size / PORT)

    bm, bn, warps = min(FLOAT32 if size == 4 else WARPGROUPS if hopper else SIXTEEN, key=clocks)
    usual = products_config(size, device_of(spec))
    groups = {"groups": 2 if warps == 12 else 1} if hopper else {}
    return Config(params=usual.params | {"block_m": bm, "block_n": bn, "warps": warps} | groups)
