"""python -m engine bench: what is typed and printed. The benches themselves are loaded when they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from engine.bench.calibrate_command import calibrate
from engine.bench.generate_command import generate
from engine.bench.simulator_command import simulator
from engine.bench.tool_commands import hardware_bytes, sanitize
from engine.bench.tune_command import OWN_TABLE, tune_attention
from engine.console import as_json, device_of, family_of, kernels_of, measuring, on_device, patience, print_json
from engine.options import BadInput, params_from
from kernels.contract import Device, Family, KernelSpec

if TYPE_CHECKING:
    from engine.bench.grid import Named

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def bench() -> None:
    """Figures that may be quoted: each output checked whole, medians with their spread."""


bench.add_command(hardware_bytes)
bench.add_command(sanitize)
bench.add_command(generate)
bench.add_command(simulator)
bench.add_command(calibrate)


def _of_rows(command: F) -> F:
    """The options of a bench that goes over rows."""
    options = (
        click.option("--peers", is_flag=True, help="PyTorch's and other libraries' kernels too."),
        click.option("--kernel", "kernel", metavar="ID[,ID...]",
                     help="Left out: all of ours; with --peers these and the peers."),
        click.option("--only", multiple=True, metavar="WORDS",
                     help="Rows whose names hold all these words, as 'forward D128 causal' or 'GQA B16'."),
        click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.3, show_default=True,
                     help="For each kernel in each row."),
        click.option("--record", type=click.Path(dir_okay=False, path_type=Path),
                     help="A file to which rows are appended; those that lie in it are not run again."),
        on_device,
        click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A kernel parameter, as block_n=64."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _contenders(kernel: str | None, peers: bool, family: Family) -> list[KernelSpec]:
    """The kernels as typed, or all of ours in a family; the peers too where they are asked for. Raises: BadInput."""
    from kernels.catalog import catalog

    known = catalog()
    names = kernel.split(",") if kernel else family_of(family, known)
    specs = kernels_of(names, known, family)
    kind = specs[0].kind
    return specs + [spec for spec in known.values()
                    if peers and spec.info.role == "peer" and spec.kind is kind and spec not in specs]


@bench.command()
@_of_rows
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

    where = device_of(device, devices.find())
    if tuning:
        if peers or settings:
            raise BadInput("--tune searches the parameters of our kernels: leave out --peers and --set")
        ours = _contenders(kernel, False, "attention")
        return tune_attention(rows(only), ours, where, seconds, record, target, as_json)
    if target is not None:
        raise BadInput("--write is for what a search has found: give --tune too")
    specs = _contenders(kernel, peers, "attention")
    return _run_rows(attention_, rows(only), specs, where, seconds, record, settings, as_json)


@bench.command()
@_of_rows
@as_json
def decode(
    peers: bool, kernel: str | None, only: tuple[str, ...], seconds: float, record: Path | None, device: str | None,
    as_json: bool, settings: tuple[str, ...],
) -> int:
    """Decode attention: one query token a sequence, over 15 caches of MHA, GQA and MQA."""
    from engine import devices
    from engine.bench import decode as decode_

    where, specs = device_of(device, devices.find()), _contenders(kernel, peers, "decode")
    return _run_rows(decode_, decode_.rows(only), specs, where, seconds, record, settings, as_json)


def _run_rows(
    told: Any, asked: Sequence[Named], specs: list[KernelSpec], where: Device, seconds: float, record: Path | None,
    settings: tuple[str, ...], as_json: bool, report: Callable[[list[Any]], Any] = list,
) -> int:
    """Runs the rows that a record does not hold, and prints all that were asked for.

    Args:
        told: the bench's module.
        report: from the results to what is printed as JSON.
    """
    from engine.bench.attention import holds, refusals
    from engine.bench.record import Record

    params = params_from({"settings": settings}, [spec.info for spec in specs])
    kept = Record(record, told.Result)
    if any(not holds(result, specs, where, params) for result in kept.results):
        raise BadInput(f"{record} has rows of other kernels, of other parameters or of another device: name a new file")
    patience(where)
    done = {result.row for result in kept.results}
    with measuring():
        for result in told.run([row for row in asked if row.id not in done], specs, where, seconds, params):
            kept.add(result)
            click.echo(f"{result.row}: {told.brief(result)}", err=True)
    found = [result for result in kept.results if result.row in {row.id for row in asked}]
    if as_json:
        print_json(report(found))
    else:
        click.echo(told.table(found))
    for reason in refusals(found):
        click.echo(reason, err=True)
    return 1 if any(entry.check and not entry.check.ok for result in found for entry in result.entries) else 0


@bench.command()
@_of_rows
@as_json
def linear(
    peers: bool, kernel: str | None, only: tuple[str, ...], seconds: float, record: Path | None, device: str | None,
    as_json: bool, settings: tuple[str, ...],
) -> int:
    """A linear layer over batch 1 to 256 at widths 4096 and 8192, and steps of an RNN: the knee of the roofline."""
    from engine import devices
    from engine.bench import linear as linear_
    from engine.bench.linear_rows import rows

    where, specs = device_of(device, devices.find()), _contenders(kernel, peers, "linear")
    return _run_rows(linear_, rows(only), specs, where, seconds, record, settings, as_json, linear_.report)
