"""The engine without a window: python -m engine doctor | devices | kernels | run | predict | trace | decode | bench | serve."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from engine.bench.commands import bench
from engine.console import as_json, converse, device_of, on_device, print_json, print_rich, print_table
from engine.models.command import decode
from engine.options import PUBLISHED, described, knows_triton, params_from, run_command, workload_options
from engine.protocol import Command, Configure, Fault, Start
from engine.results import Collector, Result, table
from engine.simulator.command import predict
from engine.simulator.trace_command import trace
from kernels.contract import AttentionWorkload, Config, Device, KernelSpec, Workload

SECONDS = 2.0
FIRST = {"attention": ("naive", "flash"), "decode": ("dense", "split_kv")}  # without --kernel: these, and peers that apply


@click.group(help=__doc__)
def main() -> None:
    pass


main.add_command(bench)
main.add_command(decode)
main.add_command(predict)
main.add_command(trace)


@main.command()
@as_json
def doctor(as_json: bool) -> int:
    """What this machine has and lacks, each with the exact remedy."""
    from engine import doctor as doctor_

    return doctor_.main(as_json)


@main.command()
@as_json
def devices(as_json: bool) -> None:
    """The devices that kernels can run on, and the GPUs that can be simulated."""
    from engine import devices as devices_
    from engine.memory import text
    from engine.simulator import spec

    specs, refused = spec.found()
    found = (*devices_.find(), *map(spec.device_of, specs))
    for sentence in refused:
        click.echo(sentence, err=True)
    if as_json:
        print_json(found)
        return
    print_table(
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
        print_json(infos)
        return
    print_table(
        ("kernel", "role", "passes", "parameters", "summary"),
        [(i.id, i.role, ", ".join(i.passes), ", ".join(p.name for p in i.params) or "none", i.summary) for i in infos],
    )


@main.command()
@click.option("--kernel", "kernel", metavar="ID[,ID...]",
              help="Left out: naive and flash, or for one query dense and split_kv, and the peers that apply.")
@on_device
@click.option("--seconds", type=click.FloatRange(0, 86400, min_open=True), default=SECONDS, show_default=True,
              help="How long to measure, all kernels together, once they are ready.")
@as_json
@workload_options
def run(kernel: str | None, device: str | None, seconds: float, as_json: bool, **options: Any) -> int:
    """Run kernels side by side and print what was measured."""
    from engine import devices as devices_
    from kernels.catalog import catalog

    found, known = devices_.find(), catalog()
    where = device_of(device, found, simulated=True)
    names = () if kernel is None else tuple(name.strip() for name in kernel.split(","))
    workload, fields = described(options, [known[name].info for name in names if name in known], where)
    names = names or _suited(known, workload, where)
    params = params_from(options, [known[name].info for name in names if name in known], fields)
    configure = Configure(generation=1, device=where.id, workload=workload, kernels=names, params=params)
    results, faults = _measure([configure, Start(seconds=seconds)], found, known)
    for fault in faults:
        click.echo(f"{fault.message}. {fault.remedy}", err=True)
    if as_json:
        print_json(results)
    else:
        print_rich(table(results))
    return 1 if faults or any(result.check and not result.check.ok for result in results) else 0


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

    collector = Collector()
    faults = converse(
        lambda emit: Session(emit, devices=found, catalog=known, models=(), telemetry_s=None, foresees=False),
        commands, collector.add)
    return collector.results(), faults


def _suited(known: Mapping[str, KernelSpec], workload: Workload, device: Device) -> tuple[str, ...]:
    from engine.planner import form_on, reasons

    if not knows_triton(device):
        return PUBLISHED
    peers = [spec for spec in known.values() if spec.info.role == "peer" and spec.info.family == "attention"]
    first = FIRST["decode" if isinstance(workload, AttentionWorkload) and workload.seq == 1 else "attention"]
    return (*first, *(spec.id for spec in peers if not reasons(form_on(spec, device), workload, Config(), device)))


def _or_na(value: int | None) -> str:
    return "n/a" if value is None else str(value)


def _bandwidth(device: Device) -> str:
    rate = device.bandwidth_bytes_per_s
    return "n/a" if rate is None else f"{rate / 1e9:,.0f} GB/s ({device.bandwidth_provenance})"


if __name__ == "__main__":
    run_command(main)
