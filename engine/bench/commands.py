"""python -m engine bench attention: what is typed and printed. The benches themselves are loaded when they are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.console import as_bad_input, as_json, device_of, kernels_of, on_device, print_json
from engine.options import BadInput, params_from
from kernels.contract import Device
from kernels.tuned import table_for, tables
from kernels.tuned.edit import additions, edited, path_of

if TYPE_CHECKING:
    from engine.bench.grid import Row

OWN_TABLE = ""  # what --write means without a file


@click.group()
def bench() -> None:
    """Figures that may be quoted: each output checked whole, medians with their spread."""


@bench.command()
@click.option("--peers", is_flag=True, help="PyTorch's and other libraries' kernels too.")
@click.option("--kernel", "kernel", metavar="ID[,ID...]", help="Left out: all of ours; with --peers these and the peers.")
@click.option("--only", multiple=True, metavar="WORDS", help="Rows whose names hold all these words, as 'forward D128 causal'.")
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.3, show_default=True, help="For each kernel in each row.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path),
              help="A file to which rows are appended; those that lie in it are not run again.")
@on_device
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A kernel parameter, as block_m=64.")
@click.option("--tune", "tuning", is_flag=True, help="Search for faster configurations instead, near those of the table.")
@click.option("--write", "target", is_flag=False, flag_value=OWN_TABLE, metavar="[FILE]",
              help="With --tune: writes the table with what was found, to FILE or over the device's own.")
@as_json
def attention(
    peers: bool, kernel: str | None, only: tuple[str, ...], seconds: float, record: Path | None, device: str | None,
    as_json: bool, settings: tuple[str, ...], tuning: bool, target: str | None,
) -> int:
    """Attention, forward and backward, over the 24 rows of 16k tokens, grouped heads and odd shapes."""
    from engine import devices
    from engine.bench import attention as attention_
    from engine.bench.record import Record
    from kernels.catalog import catalog

    known, where = catalog(), device_of(device, devices.find())
    if tuning:
        if peers or settings:
            raise BadInput("--tune searches the parameters of our kernels: leave out --peers and --set")
        return _tune(kernel, _rows(only), seconds, record, where, target, as_json)
    if target is not None:
        raise BadInput("--write is for what a search has found: give --tune too")
    names = tuple(kernel.split(",")) if kernel else tuple(name for name, spec in known.items() if spec.info.role != "peer")
    names += tuple(name for name, spec in known.items() if peers and spec.info.role == "peer" and name not in names)
    specs = kernels_of(names, known)
    params = params_from({"settings": settings}, [spec.info for spec in specs])
    kept = Record(record, attention_.Result)
    done = {result.row for result in kept.results}
    with _measuring():
        for result in attention_.run([row for row in _rows(only) if row.id not in done], specs, where, seconds, params):
            kept.add(result)
            click.echo(f"{result.row}: {attention_.brief(result)}", err=True)
    if as_json:
        print_json(kept.results)
    else:
        click.echo(attention_.table(kept.results))
    return 1 if any(entry.check and not entry.check.ok for result in kept.results for entry in result.entries) else 0


def _tune(
    kernel: str | None, rows: list[Row], seconds: float, record: Path | None, where: Device, target: str | None, as_json: bool
) -> int:
    """Searches, cell by cell, and says which rows the table is to have."""
    from engine.bench import tune, tuning
    from engine.bench.record import Record
    from kernels.catalog import catalog

    known = catalog()
    specs = kernels_of(kernel.split(",") if kernel else [n for n, spec in known.items() if spec.info.role != "peer"], known)
    path = _table_to_write(where, target) if target is not None else None
    cells = tune.cells_of(rows, specs, where)
    if not cells:
        raise BadInput("none of these kernels has tuned rows for these workloads on this device: choose others with --kernel, "
                       "or rows with --only")
    kept = Record(record, tuning.Tuning)
    if other := next((one.device for one in kept.results if one.device != where.name), None):
        raise BadInput(f"{record} was measured on {other}, and this is {where.name}: name a new file")
    done = {one.cell for one in kept.results}
    with _measuring():
        for found in tune.run({cell: rows for cell, rows in cells.items() if cell not in done}, known, where, seconds):
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
    """Raises: BadInput where the table is another architecture's or FILE cannot be written."""
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


@contextmanager
def _measuring() -> Iterator[None]:
    """What cannot be planned was typed; a device that PyTorch cannot use is said in a sentence, too."""
    from engine.machine import Unusable

    with as_bad_input():
        try:
            yield
        except Unusable as error:
            raise BadInput(f"{error}. {error.remedy}") from error


def _rows(only: tuple[str, ...]) -> list[Row]:
    from engine.bench.grid import rows

    if not (found := rows(only)):
        raise BadInput(f"no row holds {' or '.join(only)!r}: write for example --only 'forward D128 causal N4096'")
    return found
