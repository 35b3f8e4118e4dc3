"""`engine bench attention --tune`: what is kept, told and written of a search. The search is loaded when it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.bench.record import Record
from engine.console import measuring, patience, print_json
from engine.options import BadInput
from kernels.contract import Device, KernelSpec
from kernels.tuned import table_for, tables
from kernels.tuned.edit import additions, edited, path_of

if TYPE_CHECKING:
    from engine.bench.grid import Row
    from engine.bench.tuning import Tuning

OWN_TABLE = ""  # what --write means without a file


def tune_attention(
    rows: Sequence[Row], specs: Sequence[KernelSpec], where: Device, seconds: float, record: Path | None, target: str | None,
    as_json: bool,
) -> int:
    """Searches cell by cell, and says which rows the table is to have.

    Args:
        target: where the table is written; None for nowhere.

    Raises:
        BadInput: nothing is to be searched, or the record or the table cannot be used.
    """
    from engine.bench import tune, tuning

    path = _table_to_write(where, target) if target is not None else None
    cells = tune.cells_of(rows, specs, where)
    if not cells:
        raise BadInput("none of these kernels has tuned rows for these workloads on this device: choose others with --kernel, "
                       "or rows with --only")
    kept = Record(record, tuning.Tuning)
    if other := next((one.device for one in kept.results if one.device != where.name), None):
        raise BadInput(f"{record} was measured on {other}, and this is {where.name}: name a new file")
    patience(where)
    known = {spec.id: spec for spec in specs}
    done = {one.cell: one for one in kept.results if one.cell in cells and _holds(one, cells[one.cell], known, where)}
    left = {cell: rows for cell, rows in cells.items() if cell not in done}
    with measuring():
        for found in tune.run(left, known, where, seconds):
            kept.add(found)
            done[found.cell] = found
            click.echo(tuning.brief(found), err=True)
    asked = [done[cell] for cell in cells]
    before = path_of(table_for(where)).read_text()
    after = edited(before, tuning.found(asked))
    if as_json:
        print_json(asked)
    else:
        click.echo(f"{tuning.table(asked)}\n\n{additions(before, after) or 'Every row of the table stays.'}")
    if path is not None:
        _write(path, after)
        click.echo(f"{path} is written; `python -m kernels.tuned` must record its resources again", err=True)
    return 1 if any(one.finalists and not one.finalist(one.present) for one in asked) else 0


def _holds(one: Tuning, rows: Sequence[Row], known: Mapping[str, KernelSpec], where: Device) -> bool:
    """Whether what was recorded of a cell is of this table as it is, and of all the rows that are asked for."""
    from engine.bench import tune

    present = tune.present_at(known[one.cell.kernel], rows[len(rows) // 2].workload, where)
    return one.table == table_for(where) and one.present == present and {row.id for row in rows} <= set(one.rows)


def _table_to_write(where: Device, target: str) -> Path:
    """Raises: BadInput where the table is another architecture's, or the file cannot be."""
    table = table_for(where)
    if target != OWN_TABLE:
        if not (path := Path(target)).name or path.is_dir() or not path.parent.is_dir():
            raise BadInput(f"{target} is no file that can be written: give --write another")
        return path
    if where.capability and where.capability not in tables()[table].covers:
        raise BadInput(f"{table} is the nearest table to this device, not its own: give --write a file")
    return path_of(table)


def _write(path: Path, text: str) -> None:
    """Beside it, and then in its place."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror}): give --write another file") from error
