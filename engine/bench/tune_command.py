"""`engine bench attention --tune`: what is kept, told and written of a search. The search is loaded when it is called."""

from __future__ import annotations

from collections.abc import Sequence
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
    done = {one.cell for one in kept.results}
    left = {cell: rows for cell, rows in cells.items() if cell not in done}
    with measuring():
        for found in tune.run(left, {spec.id: spec for spec in specs}, where, seconds):
            kept.add(found)
            click.echo(tuning.brief(found), err=True)
    before = path_of(table_for(where)).read_text()
    after = edited(before, tuning.found(kept.results))
    if as_json:
        print_json(kept.results)
    else:
        click.echo(f"{tuning.table(kept.results)}\n\n{additions(before, after) or 'Every row of the table stays.'}")
    if path is not None:
        _write(path, after)
        click.echo(f"{path} is written; `python -m kernels.tuned` must record its resources again", err=True)
    return 1 if any(one.finalists and not one.finalist(one.present) for one in kept.results) else 0


def _table_to_write(where: Device, target: str) -> Path:
    """Raises: BadInput where the table is another architecture's."""
    table = table_for(where)
    if target != OWN_TABLE:
        return Path(target)
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
