"""The engine without a window: python -m engine doctor | devices | kernels | run | bench | serve."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click
import msgspec

from engine.options import BadInput, default_workload, params_from, run_command, workload_from, workload_options
from engine.protocol import Bye, Command, Configure, Event, Fault, Phase, Refused, Shutdown, Start
from engine.results import Collector, Result, table
from kernels.contract import Config, Device, KernelSpec, Workload

if TYPE_CHECKING:
    from engine.bench.grid import Row

SECONDS = 2.0
FIRST = ("naive", "flash")  # without --kernel: these, and the peers that apply

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@as_json
def doctor(as_json: bool) -> int:
    """What this machine has and lacks, each with the exact remedy."""
    from engine import doctor as doctor_

    return doctor_.main(as_json)


@main.command()
@as_json
def devices(as_json: bool) -> None:
    """The devices that kernels can run on."""
    from engine import devices as devices_
    from engine.memory import text

    found = devices_.find()
    if as_json:
        _print_json(found)
        return
    _print_table(
        ("device", "name", "SMs or cores", "memory", "bandwidth"),
        [(d.id, d.name, _or_na(d.sms), text(d.memory_bytes) if d.memory_bytes else "n/a", _bandwidth(d)) for d in found],
    )


@main.command()
@as_json
def kernels(as_json: bool) -> None:
    """The kernels that exist, and what they take."""
    from kernels.catalog import catalog

    infos = [spec.info for spec in catalog().values()]
    if as_json:
        _print_json(infos)
        return
    _print_table(
        ("kernel", "role", "passes", "parameters", "summary"),
        [(i.id, i.role, ", ".join(i.passes), ", ".join(p.name for p in i.params) or "none", i.summary) for i in infos],
    )


@main.command()
@click.option("--kernel", "kernel", metavar="ID[,ID...]", help="Left out: naive, flash and the peers that apply.")
@click.option("--device", "device", metavar="ID", help="Left out: the first GPU, else the CPU.")
@click.option("--seconds", type=click.FloatRange(0, 86400, min_open=True), default=SECONDS, show_default=True,
              help="How long to measure, all kernels together, once they are ready.")
@as_json
@workload_options
def run(kernel: str | None, device: str | None, seconds: float, as_json: bool, **options: Any) -> int:
    """Run kernels side by side and print what was measured."""
    from engine import devices as devices_
    from kernels.catalog import catalog

    found, known = devices_.find(), catalog()
    where = _device(device, found)
    workload = workload_from(options, default_workload(where))
    names = _suited(known, workload, where) if kernel is None else tuple(name.strip() for name in kernel.split(","))
    params = params_from(options, [known[name].info for name in names if name in known])
    configure = Configure(generation=1, device=where.id, workload=workload, kernels=names, params=params)
    results, faults = _measure([configure, Start(seconds=seconds)], found, known)
    for fault in faults:
        click.echo(f"{fault.message}. {fault.remedy}", err=True)
    if as_json:
        _print_json(results)
    else:
        _print_rich(table(results))
    return 1 if faults or any(result.check and not result.check.ok for result in results) else 0


@main.group()
def bench() -> None:
    """Figures that may be quoted: each output checked whole, medians with their spread."""


@bench.command()
@click.option("--peers", is_flag=True, help="PyTorch's and other libraries' kernels too.")
@click.option("--kernel", "kernel", metavar="ID[,ID...]", help="Left out: all of ours; with --peers these and the peers.")
@click.option("--only", multiple=True, metavar="WORDS", help="Rows whose names hold all these words, as 'forward D128 causal'.")
@click.option("--seconds", type=click.FloatRange(0.01, 60), default=0.3, show_default=True, help="For each kernel in each row.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path),
              help="A file to which rows are appended; those that lie in it are not run again.")
@click.option("--device", "device", metavar="ID", help="Left out: the first GPU, else the CPU.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A kernel parameter, as block_m=64.")
@as_json
def attention(
    peers: bool, kernel: str | None, only: tuple[str, ...], seconds: float, record: Path | None, device: str | None,
    as_json: bool, settings: tuple[str, ...],
) -> int:
    """Attention, forward and backward, over the 24 rows of 16k tokens, grouped heads and odd shapes."""
    from engine import devices as devices_
    from engine.bench import attention as attention_
    from engine.bench.record import Record
    from kernels.catalog import catalog

    known, where = catalog(), _device(device, devices_.find())
    names = tuple(kernel.split(",")) if kernel else tuple(name for name, spec in known.items() if spec.info.role != "peer")
    names += tuple(name for name, spec in known.items() if peers and spec.info.role == "peer" and name not in names)
    specs = _specs(names, known)
    params = params_from({"settings": settings}, [spec.info for spec in specs])
    kept = Record(record)
    done = {result.row for result in kept.results}
    with _as_bad_input():
        for result in attention_.run([row for row in _rows(only) if row.id not in done], specs, where, seconds, params):
            kept.add(result)
            click.echo(f"{result.row}: {attention_.brief(result)}", err=True)
    if as_json:
        _print_json(kept.results)
    else:
        click.echo(attention_.table(kept.results))
    return 1 if any(entry.check and not entry.check.ok for result in kept.results for entry in result.entries) else 0


@main.command()
def serve() -> None:
    """Take commands and send events as JSON lines on stdin and stdout."""
    from engine.serve import serve as serve_

    stdout = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not lie between the messages
    serve_(os.fdopen(os.dup(sys.stdin.fileno()), "rb"), stdout)
    stdout.close()
    os._exit(0)  # the reader may wait for a line, the runner for a compile: neither can be ended otherwise


def _measure(
    commands: list[Command], found: tuple[Device, ...], known: Mapping[str, KernelSpec]
) -> tuple[list[Result], list[Fault]]:
    """Runs a session to the end of its run. Raises: BadInput where it refuses the commands."""
    from engine.session import Session

    events: SimpleQueue[Event] = SimpleQueue()
    session = Session(events.put, devices=found, catalog=known, presets=(), telemetry_s=None)
    for command in commands:
        session.send(command)
    threading.Thread(target=session.run, name="session", daemon=True).start()
    collector, faults = Collector(), list[Fault]()
    event: Event | None = None
    try:
        while not isinstance(event, Bye) and not (isinstance(event, Phase) and event.name == "idle"):
            event = events.get()
            collector.add(event)
            if isinstance(event, Fault):
                faults.append(event)
            elif isinstance(event, Refused) and not event.kernel:
                if faults:
                    break
                raise BadInput(event.reason)
    finally:
        session.send(Shutdown())
        while not isinstance(event, Bye):
            event = events.get()
    return collector.results(), faults


@contextmanager
def _as_bad_input() -> Iterator[None]:
    """What cannot be planned was typed."""
    from engine.planner import PlanError

    try:
        yield
    except PlanError as error:
        raise BadInput(str(error)) from error


def _device(wanted: str | None, found: tuple[Device, ...]) -> Device:
    from engine.planner import find_device

    if wanted is None:
        return next((device for device in found if device.kind == "cuda"), found[-1])
    with _as_bad_input():
        return find_device(wanted, found)


def _rows(only: tuple[str, ...]) -> list[Row]:
    from engine.bench.grid import rows

    if not (found := rows(only)):
        raise BadInput(f"no row holds {' or '.join(only)!r}: write for example --only 'forward D128 causal N4096'")
    return found


def _specs(names: tuple[str, ...], known: Mapping[str, KernelSpec]) -> list[KernelSpec]:
    from engine.planner import find_kernels

    with _as_bad_input():
        return find_kernels([name.strip() for name in names], known)


def _suited(known: Mapping[str, KernelSpec], workload: Workload, device: Device) -> tuple[str, ...]:
    from engine.planner import reasons

    peers = [spec for spec in known.values() if spec.info.role == "peer"]
    return (*FIRST, *(spec.id for spec in peers if not reasons(spec, workload, Config(), device)))


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table

    shown = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        shown.add_row(*row)
    _print_rich(shown)


def _print_rich(shown: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 140).print(shown)


def _or_na(value: int | None) -> str:
    return "n/a" if value is None else str(value)


def _bandwidth(device: Device) -> str:
    rate = device.bandwidth_bytes_per_s
    return "n/a" if rate is None else f"{rate / 1e9:,.0f} GB/s ({device.bandwidth_provenance})"


if __name__ == "__main__":
    run_command(main)
