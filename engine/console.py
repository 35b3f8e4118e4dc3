"""What the commands share: devices and kernels as they are typed, and what is printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from engine.options import BadInput
from kernels.contract import Device, KernelSpec
from kernels.contract.spec import Family

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
        click.echo("on a CPU a kernel takes minutes for a row of 16,384 tokens: cut with --only, or stop with Ctrl+C", err=True)


def device_of(wanted: str | None, found: tuple[Device, ...]) -> Device:
    """The device of that id; without one the first GPU, else the CPU. Raises: BadInput."""
    from engine.planner import find_device

    if wanted is None:
        return next((device for device in found if device.kind == "cuda"), found[-1])
    with as_bad_input():
        return find_device(wanted, found)


def kernels_of(names: Iterable[str], known: Mapping[str, KernelSpec], family: Family | None = None) -> list[KernelSpec]:
    """These kernels, each once. Raises: BadInput, also for one that is not of the family."""
    from engine.planner import find_kernels

    with as_bad_input():
        found = find_kernels([name.strip() for name in names], known)
    if strange := next((spec for spec in found if family and spec.info.family != family), None):
        raise BadInput(f"{strange.id} computes {strange.info.family}, and these rows are {family}: choose from "
                       f"{', '.join(name for name, spec in known.items() if spec.info.family == family)}")
    return found


def family_of(family: Family, known: Mapping[str, KernelSpec], peers: bool = False) -> list[str]:
    """The kernels of a family, those of libraries too where `peers`."""
    return [name for name, spec in known.items() if spec.info.family == family and (peers or spec.info.role != "peer")]


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
