"""What the commands share: devices and kernels as they are typed, and what is printed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click
import msgspec

from engine.options import BadInput
from engine.protocol import Bye, Command, Event, Fault, Phase, Refused, Shutdown
from kernels.contract import Device, Family, KernelSpec

if TYPE_CHECKING:
    from engine.session import Session
    from engine.simulator.spec import DeviceSpec

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
on_device = click.option("--device", "device", metavar="ID", help="Left out: the first GPU, else the CPU.")


@contextmanager
def as_bad_input() -> Iterator[None]:
    """What cannot be planned was typed."""
    from engine.planner import PlanError

    try:
        yield
    except PlanError as error:
        raise BadInput(str(error)) from error


@contextmanager
def measuring() -> Iterator[None]:
    """What cannot be planned, or is a device that PyTorch cannot use, is said in a sentence. Loads torch."""
    from engine.machine import Unusable

    with as_bad_input():
        try:
            yield
        except Unusable as error:
            raise BadInput(f"{error}. {error.remedy}") from error


def patience(device: Device) -> None:
    """Says on stderr what a bench asks of a CPU."""
    if device.kind == "cpu":
        click.echo("on a CPU a kernel takes minutes for a large row: cut with --only, or stop with Ctrl+C", err=True)


def device_of(wanted: str | None, found: tuple[Device, ...], *, simulated: bool = False) -> Device:
    """The device of that id; without one the first GPU, else the CPU.

    Raises: BadInput, also for a simulated one unless it may be `simulated`.
    """
    from engine.planner import find_device
    from engine.simulator import spec

    if wanted is None:
        return next((device for device in found if device.kind == "cuda"), found[-1])
    if wanted.startswith(spec.PREFIX):
        asked = spec_of(wanted)
        if simulated:
            return spec.device_of(asked)
        raise BadInput(f"{wanted} is a simulated {asked.title}, on which nothing runs: "
                       f"choose {' or '.join(device.id for device in found)}")
    with as_bad_input():
        return find_device(wanted, found)


def spec_of(wanted: str) -> DeviceSpec:
    """The simulated GPU that `sim:ID` or `sim:PATH` names. Raises: BadInput."""
    from engine.simulator import spec

    try:
        return spec.resolve(wanted)
    except spec.SpecError as error:
        raise BadInput(str(error)) from error


def kernels_of(names: Iterable[str], known: Mapping[str, KernelSpec], family: Family | None = None) -> list[KernelSpec]:
    """These kernels, each once. Raises: BadInput, also for one that does not take the workloads of the family."""
    from engine.planner import find_kernels

    with as_bad_input():
        found = find_kernels([name.strip() for name in names], known)
    kind = next((spec.kind for spec in known.values() if spec.info.family == family), None)
    if strange := next((spec for spec in found if kind and spec.kind is not kind), None):
        raise BadInput(f"{strange.id} computes {strange.info.family}, and these rows are {family}: choose from "
                       f"{', '.join(name for name, spec in known.items() if spec.kind is kind)}")
    return found


def family_of(family: Family, known: Mapping[str, KernelSpec], peers: bool = False) -> list[str]:
    """The kernels of a family that can run, those of libraries too where `peers`."""
    return [name for name, spec in known.items()
            if spec.info.family == family and spec.info.runs and (peers or spec.info.role != "peer")]


def converse(
    opened: Callable[[Callable[[Event], None]], Session], commands: Iterable[Command], hear: Callable[[Event], None]
) -> list[Fault]:
    """Runs a session to the end of its run, and tells `hear` of every event; what broke meanwhile.

    Args:
        opened: makes the session that emits to what it is given.

    Raises:
        BadInput: the session refuses a command.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    session = opened(events.put)
    for command in commands:
        session.send(command)
    threading.Thread(target=session.run, name="session", daemon=True).start()
    faults: list[Fault] = []
    event: Event | None = None
    try:
        while not isinstance(event, Bye) and not (isinstance(event, Phase) and event.name == "idle"):
            event = events.get()
            hear(event)
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
    return faults


def print_json(value: Any) -> None:
    """Indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """For a person."""
    from rich.table import Table

    shown = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        shown.add_row(*row)
    print_rich(shown)


def print_rich(shown: Any) -> None:
    """As wide as the terminal, else 140 columns."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 140).print(shown)
