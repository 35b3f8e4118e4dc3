"""The contract can say what is to come: packed groups, split K and V, pages.

Schedules alone, executed op by op in torch and held against plain attention.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from kernels import tile_math
from kernels.contract import (
    Axis,
    Config,
    Expr,
    Launch,
    Least,
    Loop,
    Operand,
    Schedule,
    Slot,
    Table,
    TileOp,
    const,
    evaluate,
    lookup,
    var,
)
from kernels.contract.series import profile
from kernels.contract.walk import program_steps, totals, touches
from kernels.execute import _Run

D, BLOCK = 8, 16
T = torch.Tensor


def operand(name: str, *shape: int, role: Any = "input") -> Operand:
    return Operand(name=name, shape=shape, itemsize=4, role=role)


def slot(name: str, *shape: int, copies: int = 1) -> Slot:
    return Slot(name=name, shape=shape, itemsize=4, copies=copies)


def load(name: str, at: tuple[Expr, ...], tile: tuple[int, ...], **more: Any) -> TileOp:
    return TileOp(kind="load", title=f"load {name}", operand=name, at=at, tile=tile, writes=(more.pop("slot", name),), **more)


def store(name: str, at: tuple[Expr, ...], tile: tuple[int, ...], **more: Any) -> TileOp:
    return TileOp(kind="store", title=f"store {name}", operand=name, at=at, tile=tile, reads=(more.pop("slot", name),), **more)


def compute(fn: str, reads: tuple[str, ...], writes: tuple[str, ...], **args: Any) -> TileOp:
    return TileOp(kind="compute", title=fn, fn=fn, reads=reads, writes=writes, args=args)


def execute(schedule: Schedule, tensors: dict[str, T]) -> None:
    for launch in schedule.launches:
        _Run(schedule, launch, tensors, lambda: None)()


def round_trip(schedule: Schedule) -> Schedule:
    return msgspec.json.decode(msgspec.json.encode(schedule), type=Schedule)


def attention(q: T, k: T, v: T, hidden: T | None = None) -> T:
    s = q.double() @ k.double().mT * D**-0.5
    p: T = (s if hidden is None else s.masked_fill(hidden, -torch.inf)).softmax(-1)
    return p @ v.double()


@pytest.fixture(autouse=True)
def more_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tile functions of kernels that do not stand yet."""

    def unnormalised(q: T) -> tuple[T, T, T]:
        return q.new_full(q.shape[:2], -torch.inf), q.new_zeros(q.shape[:2]), q.new_zeros(q.shape)

    def merge(o: T, m_i: T, l_i: T, o_part: T, m_part: T, l_part: T) -> tuple[T, T, T]:
        new = m_i.maximum(m_part)
        base = new.nan_to_num(neginf=0.0)
        a, b = (m_i - base).exp(), (m_part - base).exp()
        return o * a[..., None] + o_part * b[..., None], new, l_i * a + l_part * b

    def empty() -> tuple[T, T, T]:
        return torch.zeros(1, 1, D), torch.full((1, 1), -torch.inf), torch.zeros(1, 1)

    def cut(s: T, *, col: int, length: int) -> T:
        return s.masked_fill(torch.arange(col, col + s.shape[-1]) >= length, -torch.inf)

    def finished(o: T, l_i: T) -> T:
        return o / l_i[..., None]

    for function in (unnormalised, merge, empty, cut, finished):
        monkeypatch.setitem(tile_math.FUNCTIONS, function.__name__, function)


@pytest.mark.parametrize("group", [1, 4])
def test_grouped_query_heads_packed_in_one_tile(group: int) -> None:
    b, kv_heads, n = 2, 2, 40
    at = (var("b"), var("g") * group, const(0), const(0))
    kv = (var("b"), var("g"), var("j") * BLOCK, const(0))
    launch = Launch(
        name="decode", title="one program per KV head", grid=(Axis("g", kv_heads), Axis("b", b)),
        slots=(slot("Q", group, D), slot("K", BLOCK, D, copies=3), slot("V", BLOCK, D, copies=3), slot("S", group, BLOCK),
               slot("P", group, BLOCK), slot("m", group), slot("l", group), slot("O", group, D)),
        body=(
            load("Q", at, (1, group, 1, D)), compute("unnormalised", ("Q",), ("m", "l", "O")),
            Loop(var="j", last=const(-(-n // BLOCK)), body=(
                load("K", kv, (1, 1, BLOCK, D), ahead=2), load("V", kv, (1, 1, BLOCK, D), ahead=2),
                compute("scores", ("Q", "K"), ("S",), scale=D**-0.5),
                compute("online_softmax", ("S", "m", "l", "O"), ("P", "m", "l", "O")),
                compute("accumulate_pv", ("O", "P", "V"), ("O",)))),
            compute("finished", ("O", "l"), ("O",)), store("O", at, (1, group, 1, D)),
        ),
    )
    schedule = round_trip(Schedule(kernel="packed", launches=(launch,), operands=(
        operand("Q", b, kv_heads * group, 1, D), operand("K", b, kv_heads, n, D), operand("V", b, kv_heads, n, D),
        operand("O", b, kv_heads * group, 1, D, role="output"))))
    tensors = {o.name: torch.randn(o.shape) for o in schedule.operands}
    execute(schedule, tensors)
    k, v = (tensors[x].repeat_interleave(group, 1) for x in "KV")
    assert torch.allclose(tensors["O"].double(), attention(tensors["Q"], k, v), atol=1e-5)
    assert totals(schedule).read["K"] == b * kv_heads * n * D * 4, "K is read once for its whole group"
    kinds = [(s.op.kind, s.op.operand, s.ring % 3) for s in program_steps(schedule, launch, 0)]
    assert kinds[1:6] == [("compute", "", 0), ("load", "K", 0), ("load", "V", 0), ("load", "K", 1), ("load", "V", 1)]


def test_split_kv_in_two_passes_over_ragged_lengths() -> None:
    lengths, heads, splits, n = (70, 5, 33), 2, 3, 70
    b, chunk = len(lengths), 2
    blocks = Table((b,), tuple(-(-x // BLOCK) for x in lengths))
    at, part = (var("b"), var("h"), const(0), const(0)), (var("b"), var("h"), var("s"), const(0))
    kv = (var("b"), var("h"), var("j") * BLOCK, const(0))
    cut = (None, None, lookup("length", var("b")), None)
    first = Launch(
        name="partial", title="a share of K and V", grid=(Axis("s", splits), Axis("h", heads), Axis("b", b)),
        slots=(slot("Q", 1, D), slot("K", BLOCK, D), slot("V", BLOCK, D), slot("S", 1, BLOCK), slot("P", 1, BLOCK),
               slot("m", 1), slot("l", 1), slot("O", 1, D)),
        body=(
            load("Q", at, (1, 1, 1, D)), compute("unnormalised", ("Q",), ("m", "l", "O")),
            Loop(var="j", first=var("s") * chunk, last=Least(var("s") * chunk + chunk, lookup("blocks", var("b"))), body=(
                load("K", kv, (1, 1, BLOCK, D), limits=cut), load("V", kv, (1, 1, BLOCK, D), limits=cut),
                compute("scores", ("Q", "K"), ("S",), scale=D**-0.5),
                compute("online_softmax", ("S", "m", "l", "O"), ("P", "m", "l", "O")),
                compute("accumulate_pv", ("O", "P", "V"), ("O",)))),
            store("Op", part, (1, 1, 1, D), slot="O"), store("mp", part[:3], (1, 1, 1), slot="m"),
            store("lp", part[:3], (1, 1, 1), slot="l"),
        ),
    )
    second = Launch(
        name="combine", title="the shares become one", grid=(Axis("h", heads), Axis("b", b)),
        slots=(slot("O", 1, D), slot("m", 1), slot("l", 1), slot("Op", 1, D), slot("mp", 1), slot("lp", 1)),
        body=(
            compute("empty", (), ("O", "m", "l")),
            Loop(var="s", last=const(splits), body=(
                load("Op", part, (1, 1, 1, D)), load("mp", part[:3], (1, 1, 1)), load("lp", part[:3], (1, 1, 1)),
                compute("merge", ("O", "m", "l", "Op", "mp", "lp"), ("O", "m", "l")))),
            compute("finished", ("O", "l"), ("O",)), store("O", at, (1, 1, 1, D)),
        ),
    )
    schedule = round_trip(Schedule(
        kernel="split_kv", launches=(first, second), tables={"blocks": blocks, "length": Table((b,), lengths)},
        operands=(operand("Q", b, heads, 1, D), operand("K", b, heads, n, D), operand("V", b, heads, n, D),
                  operand("Op", b, heads, splits, D, role="scratch"), operand("mp", b, heads, splits, role="scratch"),
                  operand("lp", b, heads, splits, role="scratch"), operand("O", b, heads, 1, D, role="output")),
    ))
    tensors = {o.name: torch.randn(o.shape) for o in schedule.operands}
    execute(schedule, tensors)
    for i, length in enumerate(lengths):
        wanted = attention(tensors["Q"][i], tensors["K"][i, :, :length], tensors["V"][i, :, :length])
        assert torch.allclose(tensors["O"][i].double(), wanted, atol=1e-5)
    assert totals(schedule).read["K"] == heads * sum(lengths) * D * 4, "ragged lengths are clipped, not padded"
    assert (profile(schedule, second).read["Op"].values == splits * D * 4).all()


def test_a_page_table_picks_the_pages() -> None:
    page, pages, lengths, heads = 4, 11, (9, 14), 2
    b = len(lengths)
    table = np.array([[7, 2, 9, 0], [1, 4, 10, 3]])
    used = tuple(-(-x // page) for x in lengths)
    at = (var("b"), var("h"), const(0), const(0))
    pool = (lookup("pages", var("b"), var("j")), const(0), var("h"), const(0))
    body = (
        load("Q", at, (1, 1, 1, D)), compute("unnormalised", ("Q",), ("m", "l", "O")),
        Loop(var="j", last=lookup("used", var("b")), body=(
            load("K", pool, (1, page, 1, D)), load("V", pool, (1, page, 1, D)),
            compute("scores", ("Q", "K"), ("S",), scale=D**-0.5),
            compute("cut", ("S",), ("S",), col=var("j") * page, length=lookup("length", var("b"))),
            compute("online_softmax", ("S", "m", "l", "O"), ("P", "m", "l", "O")),
            compute("accumulate_pv", ("O", "P", "V"), ("O",)))),
        compute("finished", ("O", "l"), ("O",)), store("O", at, (1, 1, 1, D)),
    )
    launch = Launch(
        name="paged", title="pages of K and V", grid=(Axis("h", heads), Axis("b", b)), body=body,
        slots=(slot("Q", 1, D), slot("K", page, D), slot("V", page, D), slot("S", 1, page), slot("P", 1, page), slot("m", 1),
               slot("l", 1), slot("O", 1, D)),
    )
    schedule = round_trip(Schedule(
        kernel="paged", launches=(launch,),
        tables={"pages": Table(table.shape, tuple(table.reshape(-1).tolist())), "used": Table((b,), used),
                "length": Table((b,), lengths)},
        operands=(operand("Q", b, heads, 1, D), operand("K", pages, page, heads, D), operand("V", pages, page, heads, D),
                  operand("O", b, heads, 1, D, role="output")),
    ))
    tensors = {o.name: torch.randn(o.shape) for o in schedule.operands}
    execute(schedule, tensors)
    for i, length in enumerate(lengths):
        k, v = (tensors[x][table[i]].reshape(-1, heads, D)[:length].transpose(0, 1) for x in "KV")
        assert torch.allclose(tensors["O"][i].double(), attention(tensors["Q"][i], k, v), atol=1e-5)
    read, _ = touches(schedule, launch)
    assert {int(p) for p in np.nonzero(read["K"].sum((1, 2, 3)))[0]} == {7, 2, 9, 1, 4, 10, 3}
    assert totals(schedule).read["K"] == sum(used) * page * heads * D * 4, "whole pages are read"


def test_persistent_programs_ordered_by_a_table() -> None:
    launch = Launch(
        name="persistent", title="items by a table", grid=(Axis("m", 4),), order="order", resident=2, slots=(slot("X", 2),),
        body=(load("X", (var("m") * 2,), (2,)),),
    )
    schedule = Schedule(kernel="x", operands=(operand("X", 8),), launches=(launch,),
                        tables={"order": Table((4,), (2, 0, 3, 1))})
    assert [program_steps(schedule, launch, p)[0].box[0][0] for p in range(4)] == [4, 0, 6, 2]


def test_expressions() -> None:
    env = {"m": np.arange(6), "k": 2}
    tables = {"t": np.array([5, 1, 0, 9, 2, 4])}
    assert evaluate(((var("m") * 3 - 4) // 2).clip(0, 4), env, tables).tolist() == [0, 0, 1, 2, 4, 4]
    assert evaluate((var("m") + var("k") * 2) % 4, env, tables).tolist() == [0, 1, 2, 3, 0, 1]
    assert evaluate(Least(var("m") * 2, lookup("t", var("m"))), env, tables).tolist() == [0, 1, 0, 6, 2, 4]
    assert evaluate((var("m") - var("m")), env, tables) == 0
    with pytest.raises(ValueError, match="applies before"):
        _ = (var("m") // 2) + 1
    with pytest.raises(ValueError, match="before clip"):
        _ = var("m").clip(0, 1) % 2
    with pytest.raises(KeyError):
        evaluate(var("x"), env, tables)
    assert Config(params={"a": 1})["a"] == 1
