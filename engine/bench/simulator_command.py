"""`engine bench simulator`: what is typed, printed and written. Needs no GPU, and loads no torch."""

from __future__ import annotations

from pathlib import Path

import click

from engine.console import as_json, print_json, print_table
from engine.options import BadInput

PAGE = "docs/simulator.md"


@click.command()
@click.option("--only", multiple=True, metavar="WORDS",
              help="Rows whose table and name hold all these words, as 'fa3-h100 D64' or 'flash backward causal'.")
@click.option("--write", "target", is_flag=False, flag_value=PAGE, metavar="[FILE]",
              help=f"Writes the page of all tables to FILE, left out to {PAGE}.")
@as_json
def simulator(only: tuple[str, ...], target: str | None, as_json: bool) -> int:
    """Predictions beside published and measured tables: errors, and those of a plain roofline."""
    from engine.bench import published, simulator_page
    from engine.bench import simulator as bench

    if only and target is not None:
        raise BadInput("--write writes a page of all tables: leave out --only")
    try:
        tables = published.load()
    except published.TableError as error:
        raise BadInput(str(error)) from error
    results = bench.run(bench.only(tables, only))
    if target is not None:
        _write(Path(target), simulator_page.page(results))
    if as_json:
        print_json(results)
    else:
        print_table(simulator_page.OVERVIEW, simulator_page.overview(results))
    return 0


def _write(path: Path, text: str) -> None:
    """Beside it and renamed. Raises: BadInput."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
