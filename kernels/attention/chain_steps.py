"""The launches of a chain that multiply no matrices: element by element, and by whole rows, each from HBM to HBM.

A program holds 8192 elements of whole rows in registers, as rows.py's do, and writes its result in their place; element by
element it holds 4096. PyTorch's blocks are smaller, and bound by memory too.
"""

from __future__ import annotations

from typing import Any, Literal

from kernels.attention.chain import Arrays, Step
from kernels.attention.rows import ROW_ELEMENTS, ROW_WARPS
from kernels.contract import Axis, Config, Expr, Launch, Loop, Operand, Slot, TileOp, Traffic, const, var
from kernels.jit import cdiv, next_power_of_2

Body = tuple[TileOp | Loop, ...]
ELEMENTS = 4096  # that a program holds which works element by element
LOGITS = 4  # vector flops of softmax an element: max, subtract, sum, divide


def tile(operand: Operand, elements: int) -> tuple[int, int]:
    """(rows, columns) of an operand [B, H, rows, columns] that a program holds, so many elements at most."""
    cols = min(elements, next_power_of_2(operand.shape[3]))
    return min(elements // cols, next_power_of_2(operand.shape[2])), cols


def lanes(operand: Operand, size: tuple[int, int]) -> int:
    """Elements that programs compute on, masked lanes included."""
    (batch, heads, rows, cols), (tall, wide) = operand.shape, size
    return batch * heads * cdiv(rows, tall) * tall * cdiv(cols, wide) * wide


def move(kind: Literal["load", "store"], operand: Operand, size: tuple[int, int], col: Expr, slot: str = "") -> TileOp:
    """A load or a store of a tile of [B, H, rows, columns], of [rows, columns] for all heads, or of numbers [B, H, rows]."""
    at: tuple[Expr, ...] = (var("m") * size[0], col)
    extent: tuple[int, ...] = size
    if len(operand.shape) == 3:
        at, extent = at[:1], extent[:1]
    if len(operand.shape) > 2:
        at, extent = (var("b"), var("h"), *at), (1, 1, *extent)
    side: dict[str, Any] = {"writes" if kind == "load" else "reads": (slot or operand.name,)}
    return TileOp(kind=kind, title=f"{kind} {operand.name}", operand=operand.name, at=at, tile=extent, **side)


def slot(name: str, shape: tuple[int, ...], itemsize: int = 4) -> Slot:
    """In registers."""
    return Slot(name=name, shape=shape, itemsize=itemsize, place="registers")


def launched(
    config: Config, name: str, title: str, shaped: Operand, size: tuple[int, int], slots: tuple[Slot, ...], body: Body, *,
    by_rows: bool = False,
) -> Launch:
    """Over the tiles of an operand, or over its blocks of rows alone."""
    (batch, heads, rows, cols), (tall, wide), compiled = shaped.shape, size, config.resources.get(name)
    across = () if by_rows else (Axis("n", cdiv(cols, wide)),)
    return Launch(
        name=name, title=title, warps=ROW_WARPS, slots=slots, body=body,
        grid=(*across, Axis("m", cdiv(rows, tall)), Axis("h", heads), Axis("b", batch)),
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None)


def elementwise(
    arrays: Arrays, config: Config, name: str, title: str, reads: tuple[str, ...], writes: tuple[str, ...], fn: str, *,
    vector_flops: int = 0, **args: float,
) -> Step:
    """`writes`, the first of which is [B, H, ...], from `reads`: of its shape, [rows, columns] or [B, H, rows].

    Args:
        fn: of the tiles that are read, gives those that are written.
        vector_flops: of an element.
    """
    shaped = arrays[writes[0]]
    size, (batch, heads, _, cols) = tile(shaped, ELEMENTS), shaped.shape
    col = var("n") * size[1]
    results = tuple(f"{operand} new" for operand in writes)
    named = (*zip(reads, reads, strict=True), *zip(results, writes, strict=True))
    times = {2: batch * heads, 3: cdiv(cols, size[1]), 4: 1}  # that what is read by the rank's operands is read again
    stored = {operand: Traffic(0, arrays[operand].bytes) for operand in writes}
    return Step(
        launched(
            config, name, title, shaped, size,
            tuple(slot(label, size[:1] if len(arrays[o].shape) == 3 else size, arrays[o].itemsize) for label, o in named),
            (*(move("load", arrays[operand], size, col) for operand in reads),
             TileOp(kind="compute", title=title, fn=fn, reads=reads, writes=results, args=dict(args),
                    vector_flops=vector_flops * size[0] * size[1]),
             *(move("store", arrays[operand], size, col, label) for operand, label in zip(writes, results, strict=True)))),
        hbm={operand: Traffic(arrays[operand].bytes, 0) for operand in reads} | stored,
        tile={o: Traffic(arrays[o].bytes * times[len(arrays[o].shape)], 0) for o in reads} | stored,
        vector_flops=vector_flops * lanes(shaped, size),
    )


def _by_rows(
    arrays: Arrays, config: Config, name: str, title: str, reads: tuple[str, ...], write: str, whole: TileOp,
    parts: tuple[TileOp, TileOp, TileOp], numbers: tuple[str, ...],
) -> Step:
    """`write` from `reads` by whole rows: at once where a program holds them, else in two passes over parts of them.

    Args:
        whole: what is computed on whole rows.
        parts: before the first pass, in it, and in the second.
        numbers: slots of numbers of rows.
    """
    shaped = arrays[reads[0]]
    size = tile(shaped, ROW_ELEMENTS)
    chunks = cdiv(shaped.shape[3], size[1])
    alone, again = chunks == 1, 1 if chunks == 1 else 2

    def loads(col: Expr) -> Body:
        return tuple(move("load", arrays[operand], size, col) for operand in reads)

    def stores(col: Expr) -> TileOp:
        return move("store", arrays[write], size, col, reads[0])

    at, (begin, first, second) = var("j") * size[1], parts
    body: Body = (*loads(const(0)), whole, stores(const(0))) if alone else (
        begin, Loop(var="j", last=const(chunks), body=(*loads(at), first)),
        Loop(var="j", last=const(chunks), body=(*loads(at), second, stores(at))))
    slots = (*(slot(operand, size, arrays[operand].itemsize) for operand in reads),
             *(slot(number, size[:1]) for number in (() if alone else numbers)))
    ops, count = (whole,) if alone else (first, second), lanes(shaped, size)
    each = size[0] * size[1]
    return Step(
        launched(config, name, title, shaped, size, slots, body, by_rows=True),
        hbm={o: Traffic(arrays[o].bytes, 0) for o in reads} | {write: Traffic(0, arrays[write].bytes)},
        tile={o: Traffic(arrays[o].bytes * again, 0) for o in reads} | {write: Traffic(0, arrays[write].bytes)},
        vector_flops=count * sum(op.vector_flops for op in ops) // each, exps=count * sum(op.exps for op in ops) // each,
    )


def softmax(arrays: Arrays, config: Config, read: str, write: str) -> Step:
    """`write` = softmax of the rows of `read`, 0 where all of a row is -inf."""
    rows, cols = tile(arrays[read], ROW_ELEMENTS)
    each = rows * cols
    return _by_rows(
        arrays, config, "softmax", f"{write} = softmax({read})", (read,), write,
        TileOp(kind="compute", title="softmax of whole rows", fn="softmax", reads=(read,), writes=(read,),
               vector_flops=LOGITS * each, exps=each),
        (TileOp(kind="compute", title="m = -inf, l = 0", fn="start_rows", writes=("m", "l")),
         TileOp(kind="compute", title="running max and sum", fn="row_max", reads=(read, "m", "l"), writes=("m", "l"),
                vector_flops=LOGITS * each, exps=each),
         TileOp(kind="compute", title="exp(x - m) / l", fn="normalise", reads=(read, "m", "l"), writes=(read,),
                vector_flops=2 * each, exps=each)),
        ("m", "l"))


def softmax_backward(arrays: Arrays, config: Config, gradient: str, probabilities: str, write: str) -> Step:
    """`write` = P (dP - rowsum(dP P))."""
    rows, cols = tile(arrays[gradient], ROW_ELEMENTS)
    each, both = rows * cols, (gradient, probabilities)
    return _by_rows(
        arrays, config, "softmax_backward", f"{write} = P (dP - rowsum(dP P))", both, write,
        TileOp(kind="compute", title="of whole rows", fn="softmax_gradients", reads=both, writes=(gradient,),
               vector_flops=4 * each),
        (TileOp(kind="compute", title="sum = 0", fn="start_sum", writes=("sum",)),
         TileOp(kind="compute", title="sum += rowsum(dP P)", fn="add_row_products", reads=("sum", *both), writes=("sum",),
                vector_flops=2 * each),
         TileOp(kind="compute", title="P (dP - sum)", fn="gradients_beside", reads=(*both, "sum"), writes=(gradient,),
                vector_flops=2 * each)),
        ("sum",))


def all_of_rows(arrays: Arrays, config: Config, name: str, title: str, read: str, write: str) -> Step:
    """`write` [B, H, rows]: whether all flags of a row of `read` are set."""
    shaped, flags = arrays[read], arrays[write]
    size = tile(shaped, ROW_ELEMENTS)
    chunks = cdiv(shaped.shape[3], size[1])
    return Step(
        launched(
            config, name, title, shaped, size, (slot(read, size, shaped.itemsize), slot("all", size[:1], flags.itemsize)),
            (TileOp(kind="compute", title="all = 1", fn="start_all", writes=("all",)),
             Loop(var="j", last=const(chunks), body=(
                 move("load", shaped, size, var("j") * size[1]),
                 TileOp(kind="compute", title="all so far", fn="all_so_far", reads=("all", read), writes=("all",),
                        vector_flops=size[0] * size[1]))),
             move("store", flags, size, const(0), "all")), by_rows=True),
        hbm={read: Traffic(shaped.bytes, 0), write: Traffic(0, flags.bytes)},
        tile={read: Traffic(shaped.bytes, 0), write: Traffic(0, flags.bytes)}, vector_flops=lanes(shaped, size))
