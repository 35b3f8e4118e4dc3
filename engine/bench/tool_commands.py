"""`engine bench bytes` and `sanitize`: our kernels under NVIDIA's tools. Without torch: what launches is a child process."""

from __future__ import annotations

from pathlib import Path

import click

from engine.bench.record import Record
from engine.console import as_json, device_of, family_of, kernels_of, on_device, print_json
from engine.options import BadInput
from kernels.contract import Device, Family, KernelSpec

kernel_option = click.option("--kernel", "kernel", metavar="ID[,ID...]", help="Left out: all of ours.")


@click.command(name="bytes")
@kernel_option
@click.option("--only", multiple=True, metavar="WORDS", help="Rows whose names hold all these words, as 'D128 causal'.")
@click.option("--cache", type=click.Choice(["all", "none"]), default="all", show_default=True,
              help="What is flushed before each launch.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path),
              help="A file to which rows are appended; those that lie in it are not counted again.")
@on_device
@as_json
def hardware_bytes(
    kernel: str | None, only: tuple[str, ...], cache: str, record: Path | None, device: str | None, as_json: bool
) -> int:
    """Bytes that a GPU's counters saw of each launch, beside the cost formula; with Nsight Compute."""
    from engine.bench import counters
    from engine.bench import hardware_bytes as told

    where = _gpu(device, "bench bytes")
    specs = _ours(kernel, "attention", "decode")
    asked = [row for row in counters.rows(only) if counters.suited(row.workload, specs)]
    if not asked:
        raise BadInput("none of these rows is for these kernels: decode kernels have rows of their own, --only decode")
    kept = Record(record, told.Result)
    if any([one.kernel for one in result.kernels] != [spec.id for spec in counters.suited(result.workload, specs)]
           for result in kept.results):
        raise BadInput(f"{record} has rows of other kernels: name a new file")
    done = {(result.row, result.device, result.cache) for result in kept.results}
    left = [row for row in asked if (row.id, where.name, cache) not in done]
    for result in counters.run(left, specs, where, "all" if cache == "all" else "none"):
        kept.add(result)
        click.echo(told.brief(result), err=True)
    wanted = {(row.id, where.name, cache) for row in asked}
    found = [result for result in kept.results if (result.row, result.device, result.cache) in wanted]
    if as_json:
        print_json(found)
    else:
        click.echo(told.table(found))
    return 1 if any(one.wrong for result in found for one in result.kernels) else 0


@click.command()
@kernel_option
@click.option("--tool", "tools", multiple=True, type=click.Choice(["memcheck", "racecheck"]), help="Left out: both.")
@on_device
@as_json
def sanitize(kernel: str | None, tools: tuple[str, ...], device: str | None, as_json: bool) -> int:
    """Looks for steps out of bounds (memcheck) and races in shared memory (racecheck); with Compute Sanitizer."""
    from engine.bench import sanitize as sanitize_

    where = _gpu(device, "bench sanitize")
    chosen = [tool for tool in sanitize_.TOOLS if tool in (tools or sanitize_.TOOLS)]
    findings = []
    for finding in sanitize_.run(_ours(kernel, "attention", "decode"), chosen, where):
        findings.append(finding)
        if not as_json:
            click.echo(sanitize_.told(finding))
    if as_json:
        print_json(findings)
    return 1 if any(finding.bad for finding in findings) else 0


def _gpu(device: str | None, command: str) -> Device:
    """Raises: BadInput where the device is not a GPU."""
    from engine import devices

    where = device_of(device, devices.find())
    if where.kind != "cuda":
        raise BadInput(f"{command} watches launches on an NVIDIA GPU and {where.id} is none: run it where there is one")
    return where


def _ours(kernel: str | None, *families: Family) -> list[KernelSpec]:
    """As typed, or all of these families. Raises: BadInput for a kernel whose launches are not ours."""
    from kernels.catalog import catalog

    known = catalog()
    ours = [name for family in families for name in family_of(family, known)]
    specs = kernels_of(kernel.split(",") if kernel else ours, known)
    if strange := next((spec for spec in specs if spec.info.opaque), None):
        raise BadInput(f"the launches of {strange.id} are a library's own: choose from "
                       f"{', '.join(ours)}")
    return specs
