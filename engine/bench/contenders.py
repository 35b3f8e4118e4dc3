"""What benches time: kernels bound to tensors, checked whole, taking turns in bursts. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import torch
from msgspec.structs import replace

from engine import memory, planner
from engine.buffers import Pool, Tensors, allocate
from engine.checking import check, poison
from engine.machine import Machine, Timer
from engine.results import Check
from kernels.contract import Config, Device, KernelSpec, Refusal, Workload


@dataclass
class Contender:
    """One kernel in one configuration, ready to run. `own`: its outputs and scratch, which live as long as it is timed."""

    spec: KernelSpec
    config: Config
    own: Tensors
    timer: Timer
    check: Check
    times_ns: list[float] = field(default_factory=list)


def prepare(
    spec: KernelSpec, workload: Workload, config: Config, machine: Machine, inputs: Tensors, own: Tensors,
    others: Sequence[Tensors] = (),
) -> Contender:
    """Compiled, checked whole and warmed up.

    Args:
        others: inputs that take turns with `inputs` while it is timed.
        own: outputs, scratch and what is saved; the first two are poisoned first, what is saved is filled by the binding.

    Raises:
        Refusal: the kernel cannot run this.
        torch.OutOfMemoryError: the device is full.
    """
    saved = {operand.name for operand in spec.operands(workload) if operand.role == "saved"}
    poison({name: x for name, x in own.items() if name not in saved})
    call = machine.bind(spec, workload, config, {**inputs, **own})
    found = check(spec, workload, inputs, call(), whole=True)
    checked = Check(ok=found.ok, max_error=found.max_error, tolerance=found.tolerance)
    calls = cycle([call, *(machine.bind(spec, workload, config, {**other, **own}) for other in others)])
    timed = call if not others else lambda: next(calls)()
    return Contender(spec, config, own, machine.timer(timed, 0), checked)


def ready(
    specs: Sequence[KernelSpec], workload: Workload, device: Device, machine: Machine, pool: Pool,
    params: Mapping[str, Mapping[str, int]], turns: int = 1,
) -> tuple[list[Contender], dict[str, tuple[Config, str]]]:
    """The kernels on one set of inputs, each ready to run; and of those that cannot, by id, the sentence why.

    Args:
        turns: as many W, each the next launch's.

    Raises:
        PlanError: a parameter that a kernel does not have.
    """
    operands = {o.name: o for spec in specs for o in memory.inputs_of(spec.operands(workload))}
    again = [replace(operands["W"], name=f"W{turn}") for turn in range(1, turns)]
    views = pool.views(workload, [*operands.values(), *again])
    inputs = {name: views[name] for name in operands}
    others = [inputs | {"W": views[operand.name]} for operand in again]
    found: list[Contender] = []
    refused: dict[str, tuple[Config, str]] = {}
    for spec in specs:
        config = planner.configured(spec, workload, device, params.get(spec.id, {}))
        reasons = planner.reasons(spec, workload, config, device)
        try:
            if reasons:
                raise Refusal("; ".join(reasons))
            own = {} if spec.info.opaque else allocate(workload, memory.owned(spec.operands(workload)), machine.place)
            found.append(prepare(spec, workload, config, machine, inputs, own, others))
        except Refusal as reason:
            refused[spec.id] = config, str(reason)
        except torch.OutOfMemoryError:
            machine.trim()
            refused[spec.id] = config, "it does not fit the free memory of this device"
    return found, refused


def take_turns(contenders: Sequence[Contender], seconds: float) -> None:
    """Bursts of each in turn until each has had its time."""
    waiting = [(contender, 0.0) for contender in contenders]
    while waiting:
        waiting = [(contender, spent) for contender, before in waiting if (spent := before + burst(contender)) < seconds]


def burst(contender: Contender) -> float:
    """One burst, whose times the contender keeps; the seconds it took."""
    spent = 0.0
    for timing in contender.timer.burst():
        contender.times_ns.append(timing.time_ns)
        spent += timing.launches * timing.time_ns / 1e9
    return spent


def first_line(error: Exception) -> str:
    """What a compiler, or whoever else, said at length."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
