"""What benches time: kernels bound to tensors, checked whole, taking turns in bursts. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

from engine.buffers import Tensors
from engine.checking import check, poison
from engine.machine import Machine, Timer
from engine.results import Check
from kernels.contract import Config, KernelSpec, Workload


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
