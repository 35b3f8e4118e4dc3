"""`python -m engine predict`: kernels on a GPU that need not be here. Without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from engine import memory
from engine.console import as_bad_input, as_json, device_of, kernels_of, print_json, print_rich, spec_of
from engine.options import BadInput, described, params_from, workload_options
from kernels.contract import Device, KernelSpec, Workload

if TYPE_CHECKING:
    from engine.simulator.figures import DeviceSpec

SCHEMA = "tilescope-predict-1"
MHZ = 1e6


class Result(Struct, frozen=True, kw_only=True):
    """One kernel, as printed.

    Attributes:
        provenance: what the figures are, all of them.
        clock_mhz: of the SMs.
        time_us: of one execution, L2 warm.
        breakdown_us: what each unit, the L2, HBM, waiting, launching and the tail would take by itself.
        peak_memory_bytes: what torch would reserve.
        doubts: in what the prediction lies outside of what was held against measurements.
        refused: a sentence, and then there are no numbers.
    """

    schema: str = SCHEMA
    kernel: str
    device: str
    provenance: str = "simulated"
    workload: Workload
    config: dict[str, int]
    clock_mhz: float
    time_us: float | None = None
    tflops: float | None = None
    dram_read_bytes: int | None = None
    dram_write_bytes: int | None = None
    tile_bytes: int | None = None
    l2_hit_rate: float | None = None
    limiter: str | None = None
    breakdown_us: dict[str, float] | None = None
    peak_memory_bytes: int | None = None
    doubts: tuple[str, ...] = ()
    refused: str | None = None


@click.command()
@click.option("--kernel", "kernel", metavar="ID[,ID...]", default="naive,flash", show_default=True, help="Of engine kernels.")
@click.option("--device", "device", metavar="ID", default="sim:h200-sxm", show_default=True,
              help="sim:ID of engine devices, sim:FILE.toml, or a GPU that is here, by its spec.")
@click.option("--clock-mhz", type=click.FloatRange(100, 20000), help="Of the SMs, locked; left out, the spec's.")
@as_json
@workload_options
def predict(kernel: str, device: str, clock_mhz: float | None, as_json: bool, **options: Any) -> int:
    """How long kernels would take on a GPU, and what they would move."""
    from kernels.catalog import catalog

    spec, where = _spec(device)
    known = catalog()
    specs = kernels_of([name.strip() for name in kernel.split(",")], known)
    infos = [each.info for each in specs]
    workload, fields = described(options, infos, where)
    params = params_from(options, infos, fields)
    results = [predicted(each, workload, spec, where, params.get(each.id, {}), clock_mhz) for each in specs]
    if as_json:
        print_json(results)
    else:
        print_rich(table(results, spec))
    return 0


def _spec(wanted: str) -> tuple[DeviceSpec, Device]:
    """A simulated GPU, or the spec of one that is here. Raises: BadInput."""
    from engine import devices
    from engine.simulator import spec

    if wanted.startswith(spec.PREFIX):
        found = spec_of(wanted)
        return found, spec.device_of(found)
    here = device_of(wanted, devices.find())
    if here.kind == "cpu":
        raise BadInput("a CPU is not predicted: choose sim:ID of engine devices")
    try:
        found = spec.of_device(here)
    except spec.SpecError as error:
        raise BadInput(str(error)) from error
    return found, spec.device_of(found)


def predicted(
    kernel: KernelSpec, workload: Workload, spec: DeviceSpec, device: Device, params: dict[str, int], clock_mhz: float | None
) -> Result:
    """What is said of one kernel."""
    from engine.simulator.planned import Unpublished, planned, too_large
    from engine.simulator.prediction import Unpredictable, predict
    from engine.simulator.validity import doubts

    print_as = {"kernel": kernel.id, "device": device.id, "workload": workload, "clock_mhz": clock_mhz or spec.clock_hz / MHZ}
    try:
        with as_bad_input():
            plan = planned(kernel, workload, device, params)
    except Unpublished as error:
        return Result(**print_as, config={}, refused=str(error))  # type: ignore[arg-type]
    found, refused = None, plan.refused or too_large(plan, device)
    if not refused and plan.schedule is not None:
        try:
            found = predict(plan.schedule, spec, clock_mhz * MHZ if clock_mhz else None)
        except Unpredictable as error:
            refused = str(error)
    if found is None:
        return Result(**print_as, config=plan.config.params, refused=refused)  # type: ignore[arg-type]
    return Result(
        **print_as, config=plan.config.params, time_us=found.seconds * 1e6,  # type: ignore[arg-type]
        tflops=workload.nominal_flops / found.seconds / 1e12, dram_read_bytes=round(found.dram_read_bytes),
        dram_write_bytes=round(found.dram_write_bytes), tile_bytes=found.tile_bytes, l2_hit_rate=found.l2_hit_rate,
        limiter=found.limiter, breakdown_us={name: seconds * 1e6 for name, seconds in found.breakdown.items()},
        peak_memory_bytes=plan.peak_bytes, doubts=doubts(kernel, workload, spec, found),
    )


def table(results: list[Result], spec: DeviceSpec) -> Any:
    """As a rich table, for a person."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold", title=f"{spec.title}, simulated", title_justify="left")
    for column in ("kernel", "time", "TFLOP/s", "HBM read", "written", "L2 hits", "limited by", "doubts"):
        shown.add_column(column, justify="left" if column in ("kernel", "limited by", "doubts") else "right")
    for r in results:
        if r.refused or r.time_us is None:
            shown.add_row(r.kernel, "n/a", "n/a", "n/a", "n/a", "n/a", "n/a", r.refused)
            continue
        shown.add_row(
            r.kernel, f"{r.time_us:,.4g} µs", f"{r.tflops:,.3g}", memory.text(r.dram_read_bytes or 0),
            memory.text(r.dram_write_bytes or 0), f"{r.l2_hit_rate:.0%}", r.limiter, "; ".join(r.doubts) or "none")
    return shown
