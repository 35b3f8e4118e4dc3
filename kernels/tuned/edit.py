"""Changing a table: what a search found put among the rows, in as few as say it, and the file written as it was elsewhere."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from itertools import product
from math import inf
from pathlib import Path

import msgspec
from msgspec.structs import replace

from kernels.contract import AttentionWorkload
from kernels.tuned import COMMON, Row, Tuned, rows_of, serving, tables

SHORT_KEYS = 2048  # workloads with no more keys are tuned apart, whatever a table says already


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Workloads that are tuned together: of one head dim, element size and mask, with at most `keys` keys (0: any number)
    and more than the bracket below has."""

    kernel: str
    rows: str  # the name under which its rows stand
    head_dim: int
    itemsize: int
    causal: bool
    keys: int

    @property
    def name(self) -> str:
        """In a line."""
        keys = f"N <= {self.keys}" if self.keys else "any N"
        return f"{self.rows} D{self.head_dim} {8 * self.itemsize}-bit {'causal' if self.causal else 'full'} {keys}"


def cell_of(table: str, kernel: str, workload: AttentionWorkload) -> Cell:
    """The cell of a table that a workload falls into."""
    w, name = workload, rows_of(table, kernel, workload)
    limits = _brackets(tables()[table].kernels[name], w.head_dim, w.itemsize)
    keys = next(limit for limit in limits if (limit or inf) >= w.keys)
    return Cell(kernel=kernel, rows=name, head_dim=w.head_dim, itemsize=w.itemsize, causal=w.causal, keys=keys)


def _brackets(rows: Sequence[Row], head_dim: int, itemsize: int) -> list[int]:
    """Most keys of each bracket, ascending, 0 (any number) last."""
    known = {row.keys for row in rows if row.itemsize == itemsize and row.head_dim >= head_dim}
    return sorted(known | {SHORT_KEYS, 0}, key=lambda keys: keys or inf)


def with_cells(rows: Sequence[Row], found: Mapping[Cell, Mapping[str, int]]) -> list[Row]:
    """The rows of one name, where each cell has the parameters that were found for it, and so have narrower heads that
    have no row of their own.

    Cells of one head dim and element size stand in as few rows as say the same.
    """
    placed = list(rows)
    for head_dim, itemsize in sorted({(cell.head_dim, cell.itemsize) for cell in found}, reverse=True):  # wider heads serve too
        own = {(c.keys, c.causal): params for c, params in found.items() if (c.head_dim, c.itemsize) == (head_dim, itemsize)}
        wanted = {}
        for keys, causal in product(_brackets(rows, head_dim, itemsize), (False, True)):
            now = replace(serving(rows, head_dim, itemsize, keys or inf, causal), head_dim=head_dim, keys=keys, causal=causal)
            wanted[keys, causal] = now.with_params(own.get((keys, causal), {}))
        old = [row for row in placed if (row.head_dim, row.itemsize) == (head_dim, itemsize)]
        rest = [row for row in placed if row not in old]
        behind = [row for row in rest if (row.itemsize, row.head_dim) > (itemsize, head_dim)]
        at = placed.index(old[0]) if old else rest.index(behind[0]) if behind else len(rest)
        placed = [*rest[:at], *_fewest(wanted, rest), *rest[at:]]
    return placed


def _fewest(wanted: Mapping[tuple[int, bool], Row], others: Sequence[Row]) -> list[Row]:
    """Rows that serve every (keys, causal) as wanted: one for both masks where they agree, none that another row says.

    Args:
        others: those of other head dims and element sizes.
    """
    rows: list[Row] = []
    for keys in dict.fromkeys(keys for keys, _ in wanted):
        full, causal = wanted[keys, False], wanted[keys, True]
        both = replace(full, causal=None)
        rows += [both] if both == replace(causal, causal=None) else [full, causal]
    for row in tuple(rows):
        without = [other for other in rows if other is not row]
        if all(_same([*without, *others], *at, row=right) for at, right in wanted.items()):
            rows = without
    return rows


def _same(rows: Sequence[Row], keys: int, causal: bool, row: Row) -> bool:
    """Whether these rows give a workload the parameters of `row`."""
    try:
        found = serving(rows, row.head_dim, row.itemsize, keys or inf, causal)
    except ValueError:  # none holds it
        return False
    return (found.params, found.more) == (row.params, row.more)


def path_of(table: str) -> Path:
    """Where a table lies."""
    return Path(__file__).parent / f"{table}.toml"


def edited(text: str, found: Mapping[Cell, Mapping[str, int]]) -> str:
    """A table's file with what was found; what stays is left as it is written."""
    kernels = msgspec.convert(tomllib.loads(text), Tuned).kernels
    head, *blocks = _blocks(text)
    for name in dict.fromkeys(cell.rows for cell in found):
        rows, mine = list(kernels[name]), [block.startswith(f"[[kernels.{name}]]") for block in blocks]
        written = [block for block, own in zip(blocks, mine, strict=True) if own]
        fields = {field for block in written for field in tomllib.loads(block)["kernels"][name][0]}
        placed = with_cells(rows, {cell: params for cell, params in found.items() if cell.rows == name})
        new = [written[rows.index(row)] if row in rows else _rendered(name, row, fields) for row in placed]
        first = mine.index(True)
        rest = [block for block, own in zip(blocks[first:], mine[first:], strict=True) if not own]
        blocks = [*blocks[:first], *new, *rest]
    return "".join([head, *blocks]).rstrip("\n") + "\n"


def additions(before: str, after: str) -> str:
    """The rows that a table's file has now and had not before."""
    known = _blocks(before)
    return "".join(block for block in _blocks(after)[1:] if block not in known).rstrip("\n")


def _blocks(text: str) -> list[str]:
    """What stands before the rows, then each row with its heading and what stands before the next."""
    return re.split(r"^(?=\[\[kernels\.)", text.rstrip("\n") + "\n\n", flags=re.MULTILINE)


def _rendered(name: str, row: Row, fields: set[str]) -> str:
    """A row as the rows of its name are written: of what has a default those of `fields`, and what differs from it."""
    known = msgspec.structs.fields(Row)
    shown = [field.name for field in known if field.required or (field.name in COMMON and (
        field.name in fields or getattr(row, field.name) != field.default))]
    lines = [f"{key} = {getattr(row, key)}" for key in shown]
    lines += [f"keys = {row.keys}"] if row.keys else []
    lines += [f"causal = {str(row.causal).lower()}"] if row.causal is not None else []
    lines += [f"more = {{ {', '.join(f'{key} = {value}' for key, value in row.more.items())} }}"] if row.more else []
    return "\n".join([f"[[kernels.{name}]]", *lines]) + "\n\n"
