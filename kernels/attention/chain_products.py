"""The matrix products of a chain of launches that writes S and P to HBM, one launch each: C = alpha A B.

A program makes one tile of C, over all of the inner dimension, in steps of BLOCK_K; tiles of A and B arrive ahead in rings.
Tiles are no larger than C.
"""

from __future__ import annotations

from typing import Literal

from kernels.attention.chain import Arrays, Step
from kernels.contract import Axis, Config, Expr, Launch, Loop, Operand, Slot, TileOp, Traffic, const, var
from kernels.jit import cdiv, next_power_of_2

Form = Literal["nt", "nn", "tn"]  # A B^T, A B, A^T B
FUNCTIONS = {"nt": "accumulate_rows", "nn": "pv", "tn": "accumulate_transposed"}
LEAST = 16  # of a tile's sides
WARPS = {4: (2, 2), 8: (4, 2), 12: (2, 1)}  # along the rows and columns of C; of twelve, two warpgroups that multiply


def tiles(config: Config, rows: int, cols: int, inner: int) -> tuple[int, int, int]:
    """(BLOCK_M, BLOCK_N, BLOCK_K) of a C of that extent."""
    sides = zip(("block_m", "block_n", "block_k"), (rows, cols, inner), strict=True)
    found = [min(config[name], max(LEAST, next_power_of_2(extent))) for name, extent in sides]
    return found[0], found[1], found[2]


def product(
    arrays: Arrays, config: Config, name: str, title: str, form: Form, factors: tuple[str, str], result: str,
    alpha: float = 1.0,
) -> Step:
    """C [B, H, M, N] from A and B [B, H, ...], of whose heads several may share one, on either side.

    Where C has fewer heads than A, those of a group are summed.
    """
    a, b, c = (arrays[operand] for operand in (*factors, result))
    batch, heads, rows, cols = c.shape
    group = max(1, a.shape[1] // heads)  # heads of A and B that are summed into one of C
    inner = a.shape[2] if form == "tn" else a.shape[3]
    bm, bn, bk = tiles(config, rows, cols, inner)
    ring, compiled, (down, across) = config["stages"], config.resources.get(name), WARPS[config["warps"]]

    def load(slot: str, operand: Operand, outer: Expr, block: int, last: bool) -> TileOp:
        """A tile of a factor; `last`: the inner dimension is its last one."""
        head = var("h") * group + var("r") if operand.shape[1] >= heads * group else var("h") // (heads // operand.shape[1])
        where, size = ((outer, var("k") * bk), (block, bk)) if last else ((var("k") * bk, outer), (bk, block))
        return TileOp(kind="load", title=f"load {operand.name}", operand=operand.name, at=(var("b"), head, *where),
                      tile=(1, 1, *size), writes=(slot,), ahead=ring - 1)

    def slot(name: str, operand: Operand, block: int, last: bool) -> Slot:
        return Slot(name=name, shape=(block, bk) if last else (bk, block), itemsize=operand.itemsize, copies=ring,
                    operand=operand.name)

    step = TileOp(kind="compute", title=title, fn=FUNCTIONS[form], reads=("C", "A", "B"), writes=("C",),
                  matrix_flops=2 * bm * bn * bk, moved_bytes=(bm * a.itemsize * across + bn * b.itemsize * down) * bk)
    at = (var("b"), var("h"), var("m") * bm, var("n") * bn)
    scaled = TileOp(kind="compute", title=f"{result} = alpha {result}", fn="scaled", reads=("C",), writes=("C",),
                    args={"scale": alpha}, vector_flops=bm * bn)
    launch = Launch(
        name=name, title=title, warps=config["warps"], groups=config.params.get("groups", 0), wgmma="groups" in config.params,
        grid=(Axis("m", cdiv(rows, bm)), Axis("n", cdiv(cols, bn)), Axis("h", heads), Axis("b", batch)),
        slots=(slot("A", a, bm, form != "tn"), slot("B", b, bn, form == "nt"),
               Slot(name="C", shape=(bm, bn), itemsize=4, place="registers", operand=result)),
        body=(
            TileOp(kind="compute", title=f"{result} = 0", fn="start_o", writes=("C",)),
            Loop(var="r", last=const(group), body=(Loop(var="k", last=const(cdiv(inner, bk)), body=(
                load("A", a, var("m") * bm, bm, form != "tn"), load("B", b, var("n") * bn, bn, form == "nt"), step)),)),
            *((scaled,) if alpha != 1 else ()),
            TileOp(kind="store", title=f"store {result}", operand=result, at=at, tile=(1, 1, bm, bn), reads=("C",)),
        ),
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )
    return _costed(launch, (a, b, c), (rows, cols, inner), (bm, bn, bk), batch * heads * group, alpha != 1, group)


def _costed(
    launch: Launch, operands: tuple[Operand, Operand, Operand], extents: tuple[int, int, int], blocks: tuple[int, int, int],
    planes: int, scaled: bool, group: int,
) -> Step:
    """Each row of A is read once for each tile along C's columns, each of B for each along its rows."""
    (a, b, c), (rows, cols, inner), (bm, bn, bk) = operands, extents, blocks
    tall, wide, deep = cdiv(rows, bm), cdiv(cols, bn), cdiv(inner, bk)
    computed = planes * tall * wide * bm * bn
    return Step(
        launch,
        hbm={a.name: Traffic(a.bytes, 0), b.name: Traffic(b.bytes, 0), c.name: Traffic(0, c.bytes)},
        tile={a.name: Traffic(planes * rows * inner * a.itemsize * wide, 0),
              b.name: Traffic(planes * cols * inner * b.itemsize * tall, 0), c.name: Traffic(0, c.bytes)},
        flops=2 * computed * deep * bk, vector_flops=computed // group if scaled else 0,
    )
