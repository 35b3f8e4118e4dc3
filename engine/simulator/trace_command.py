"""`python -m engine trace`: when the programs of a kernel run, written to a file. Without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from engine.console import as_bad_input, kernels_of, spec_of
from engine.options import BadInput, described, params_from, workload_options
from engine.simulator.command import MHZ

SUFFIX = ".npz"


@click.command()
@click.option("--kernel", "kernel", metavar="ID", default="flash", show_default=True, help="One of engine kernels.")
@click.option("--device", "device", metavar="ID", default="sim:h200-sxm", show_default=True,
              help="sim:ID of engine devices, or sim:FILE.toml.")
@click.option("--clock-mhz", type=click.FloatRange(100, 20000), help="Of the SMs, locked; left out, the spec's.")
@click.option("--out", "out", metavar="FILE.npz", required=True, type=click.Path(path_type=Path), help="A new file.")
@workload_options
def trace(kernel: str, device: str, clock_mhz: float | None, out: Path, **options: Any) -> int:
    """When each program of a kernel runs, and on which SM: a timeline, to a file."""
    from engine.simulator import spec as specs
    from engine.simulator.planned import Unpublished, planned, too_large
    from engine.simulator.prediction import Unpredictable
    from engine.simulator.timeline import timeline
    from engine.timeline_file import TimelineError, save
    from kernels.catalog import catalog

    if out.suffix != SUFFIX:
        raise BadInput(f"a timeline is written as {SUFFIX}, not as {out.suffix or out.name}: give --out {out.stem}{SUFFIX}")
    if not device.startswith(specs.PREFIX):
        raise BadInput(f"what runs on {device} is not measured yet: trace a simulated GPU, as --device sim:h200-sxm")
    spec = spec_of(device)
    where = specs.device_of(spec)
    known, = kernels_of([kernel], catalog())
    workload, fields = described(options, [known.info], where)
    params = params_from(options, [known.info], fields)
    try:
        with as_bad_input():
            plan = planned(known, workload, where, params.get(known.id, {}))
        if refused := plan.refused or too_large(plan, where):
            raise BadInput(refused)
        assert plan.schedule is not None
        line, prediction = timeline(plan.schedule, spec, clock_mhz * MHZ if clock_mhz else None)
        save(line, out)
    except (Unpublished, Unpredictable, TimelineError) as error:
        raise BadInput(str(error)) from error
    launches = f"{len(line.launches)} launch{'es' if len(line.launches) > 1 else ''}"
    click.echo(f"{out}: {line.programs:,} programs of {known.id} in {launches}, {prediction.seconds * 1e6:,.4g} µs on a "
               f"simulated {spec.title}, SMs busy {line.busy_share:.1%} of it")
    return 0
