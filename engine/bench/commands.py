"""python -m engine bench: what is typed and printed. The benches themselves are loaded when they are called."""

from __future__ import annotations

from pathlib import Path

import click

from engine.bench.tool_commands import hardware_bytes, sanitize
from engine.bench.tune_command import OWN_TABLE, tune_attention
from engine.console import as_json, device_of, family_of, kernels_of, measuring, on_device, patience, print_json
from engine.options import BadInput, params_from


@click.group()
def bench() -> None:
    """Figures that may be quoted: each output checked whole, medians with their spread."""


bench.add_command(hardware_bytes)
bench.add_command(sanitize)

only_option = click.option("--only", multiple=True, metavar="WORDS",
                           help="Rows whose names hold all these words, as 'forward D128 causal' or 'linear d4096'.")
seconds_option = click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.3, show_default=True,
                              help="For each kernel in each row.")
record_option = click.option("--record", type=click.Path(dir_okay=False, path_type=Path),
                             help="A file to which rows are appended; those that lie in it are not run again.")


@bench.command()
@click.option("--peers", is_flag=True, help="PyTorch's and other libraries' kernels too.")
@click.option("--kernel", "kernel", metavar="ID[,ID...]", help="Left out: all of ours; with --peers these and the peers.")
@only_option
@seconds_option
@record_option
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
    from engine.bench.grid import rows
    from engine.bench.record import Record
    from kernels.catalog import catalog

    known, where = catalog(), device_of(device, devices.find())
    if tuning:
        if peers or settings:
            raise BadInput("--tune searches the parameters of our kernels: leave out --peers and --set")
        ours = kernels_of(kernel.split(",") if kernel else family_of("attention", known), known, "attention")
        return tune_attention(rows(only), ours, where, seconds, record, target, as_json)
    if target is not None:
        raise BadInput("--write is for what a search has found: give --tune too")
    names = kernel.split(",") if kernel else family_of("attention", known)
    specs = kernels_of([*names, *(family_of("attention", known, peers=True) if peers else ())], known, "attention")
    params = params_from({"settings": settings}, [spec.info for spec in specs])
    kept = Record(record, attention_.Result)
    if any(not attention_.holds(result, specs, where, params) for result in kept.results):
        raise BadInput(f"{record} has rows of other kernels, of other parameters or of another device: name a new file")
    patience(where)
    asked, done = rows(only), {result.row for result in kept.results}
    with measuring():
        for result in attention_.run([row for row in asked if row.id not in done], specs, where, seconds, params):
            kept.add(result)
            click.echo(f"{result.row}: {attention_.brief(result)}", err=True)
    found = [result for result in kept.results if result.row in {row.id for row in asked}]
    if as_json:
        print_json(found)
    else:
        click.echo(attention_.table(found))
    for reason in attention_.refusals(found):
        click.echo(reason, err=True)
    return 1 if any(entry.check and not entry.check.ok for result in found for entry in result.entries) else 0


@bench.command()
@click.option("--peers", is_flag=True, help="PyTorch's kernel too.")
@click.option("--kernel", "kernel", metavar="ID[,ID...]", help="Left out: all of ours; with --peers these and the peers.")
@only_option
@seconds_option
@record_option
@on_device
@as_json
def linear(
    peers: bool, kernel: str | None, only: tuple[str, ...], seconds: float, record: Path | None, device: str | None,
    as_json: bool,
) -> int:
    """A linear layer over batch 1 to 256 at widths 4096 and 8192, and steps of an RNN: the knee of the roofline."""
    from engine import devices
    from engine.bench import linear as linear_
    from engine.bench.linear_rows import rows
    from engine.bench.record import Record
    from kernels.catalog import catalog

    known, where = catalog(), device_of(device, devices.find())
    names = kernel.split(",") if kernel else family_of("linear", known)
    specs = kernels_of([*names, *(family_of("linear", known, peers=True) if peers else ())], known, "linear")
    kept = Record(record, linear_.Result)
    if any(not linear_.holds(result, specs, where) for result in kept.results):
        raise BadInput(f"{record} has rows of other kernels or of another device: name a new file")
    asked, done = rows(only), {result.row for result in kept.results}
    with measuring():
        for result in linear_.run([row for row in asked if row.id not in done], specs, where, seconds):
            kept.add(result)
            click.echo(f"{result.row}: {linear_.brief(result)}", err=True)
    told = linear_.report([result for result in kept.results if result.row in {row.id for row in asked}])
    if as_json:
        print_json(told)
    else:
        click.echo(linear_.table(told))
    return 1 if any(entry.check and not entry.check.ok for result in told.rows for entry in result.entries) else 0
