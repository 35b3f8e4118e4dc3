"""`engine bench calibrate`: what is typed, printed and written."""

from __future__ import annotations

import datetime
from importlib import metadata
from typing import TYPE_CHECKING

import click

from engine.bench.calibrate import Figure
from engine.console import as_json, device_of, measuring, on_device, print_json, print_table
from engine.options import BadInput

if TYPE_CHECKING:
    from engine.bench.calibrate import Bench
    from engine.bench.calibrated import Calibration
    from engine.simulator.figures import DeviceSpec
    from kernels.contract import Device

COLUMNS = ("figure", "measured", "spread", "spec", "difference", "what was measured")
UNITS = {"_s": (1e9, "ns"), "_per_clock": (1.0, "a clock")}  # by the end of a figure's name; the others are shares


@click.command()
@on_device
@click.option("--write", "keep", is_flag=True, help="Keeps a spec with these figures in your own folder, as sim:ID-measured.")
@as_json
def calibrate(device: str | None, keep: bool, as_json: bool) -> int:
    """Measures what this GPU does at most, beside the figures of its spec: L2, memory, latencies, units, launches."""
    from engine import devices
    from engine.bench.calibrated import measured, store
    from engine.simulator.figures import SpecError

    where = device_of(device, devices.find())
    if where.kind != "cuda":
        raise BadInput(f"bench calibrate measures an NVIDIA GPU and {where.id} is none: run it where there is one")
    try:
        base, found = run(where, keep)
        if as_json:
            print_json(found)
        else:
            print_table(COLUMNS, rows(found))
        if keep:
            spec = measured(base, found)
            path, before = store(spec)
            replaced = f" in place of that of {before}" if before else ""
            click.echo(f"{path} is written{replaced}: sim:{spec.id}", err=True)
    except SpecError as error:
        raise BadInput(str(error)) from error
    return 0


def run(device: Device, keep: bool) -> tuple[DeviceSpec, Calibration]:
    """Measures a GPU, and says each figure on stderr when it is known; the spec that it began from, and what it found.

    Raises:
        BadInput: PyTorch or Triton cannot use it.
        SpecError: there is nothing to begin from, or something is in the way of what is to be kept.
    """
    from engine.bench.calibrate import figures
    from engine.bench.calibrated import Calibration, base_of, dated, path_of
    from engine.devices import library
    from kernels.jit import MISSING

    if MISSING:
        raise BadInput(MISSING)
    with measuring():
        device, bench = opened(device)
    base = base_of(device, library())
    if keep:
        dated(path_of(base))
    found = []
    for figure in figures(bench, base):
        found.append(figure)
        click.echo(f"{figure.name}: {told(figure, figure.value) if not figure.missing else figure.missing}", err=True)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return base, Calibration(
        device=device.name, spec=base.id, date=date, driver=device.driver, torch=metadata.version("torch"),
        triton=metadata.version("triton"), figures=tuple(found))


def opened(device: Device) -> tuple[Device, Bench]:
    """The device with what PyTorch knows of it, and what times it. Loads torch. Raises: Unusable."""
    from engine.bench.calibrated import clock_of
    from engine.bench.probing import Probes
    from engine.devices import library
    from engine.machine import open_machine

    machine = open_machine(device, lambda: None)
    device = machine.refine(device)
    return device, Probes(machine, device.sms or 1, clock_of(device, library()))


def rows(found: Calibration) -> list[list[str]]:
    """One a figure, as COLUMNS."""
    return [_row(figure) for figure in found.figures]


def _row(figure: Figure) -> list[str]:
    if figure.missing or figure.value is None:
        return [figure.name, "n/a", "", told(figure, figure.spec), "", figure.missing]
    spread = f"{told(figure, figure.low)} to {told(figure, figure.high)}"
    clock = f", {figure.clock_hz / 1e6:.0f} MHz" if figure.clock_hz else ""
    kept = "" if figure.taken else "; not taken over"
    difference = "n/a" if figure.difference is None else f"{100 * figure.difference:+.1f} %"  # over nothing there is none
    return [figure.name, told(figure, figure.value), spread, told(figure, figure.spec), difference,
            f"{figure.source}{clock}, {figure.samples} samples{kept}"]


def told(figure: Figure, value: float | None) -> str:
    """A number of that figure with its unit."""
    if value is None:
        return "n/a"
    factor, unit = next((unit for end, unit in UNITS.items() if figure.name.endswith(end)), (1.0, ""))
    return f"{factor * value:.4g} {unit}".strip()
