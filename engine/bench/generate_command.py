"""`engine bench generate`: what is typed, kept and printed. Loads torch when it is called."""

from __future__ import annotations

from pathlib import Path

import click

from engine.bench.record import Record
from engine.console import as_json, device_of, measuring, on_device, print_json
from engine.options import BadInput


@click.command()
@click.option("--only", multiple=True, metavar="WORDS", help="Rows whose names hold all these words, as 'gpt2 cached'.")
@click.option("--runs", type=click.IntRange(1, 100), help="Of each row; left out: ten of the published experiment, else three.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path),
              help="A file to which rows are appended; those that lie in it are not run again.")
@on_device
@as_json
def generate(only: tuple[str, ...], runs: int | None, record: Path | None, device: str | None, as_json: bool) -> int:
    """Whole models, token by token: the published T4 experiment beside this machine, tokens a second, growth, bandwidth."""
    from engine import devices
    from engine.bench import generate as bench
    from engine.bench.grid import holding
    from engine.models import shapes

    where = device_of(device, devices.find())
    rows = [row for row in bench.ROWS if holding(row.id, only)]
    if not rows:
        raise BadInput(f"no row holds {' or '.join(only)!r}: there are {', '.join(row.id for row in bench.ROWS)}")
    kept = Record(record, bench.Result)
    done = {(result.row, result.device) for result in kept.results}
    left = [row for row in rows if (row.id, where.name) not in done]
    if where.kind == "cpu" and left:
        click.echo("on a CPU ten runs of a thousand tokens take an hour: cut with --only and --runs", err=True)
    with measuring():
        for result in bench.run(left, {model.id: model for model in shapes.load()}, where, runs):
            kept.add(result)
            click.echo(bench.told(result), err=True)
    names = {row.id for row in rows}
    found = [result for result in kept.results if result.row in names and result.device == where.name]
    if as_json:
        print_json(found)
    else:
        click.echo(bench.table(found))
    return 0
