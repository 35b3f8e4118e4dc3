"""What a kernel is predicted from: its own schedule or the one that was published of it, configured. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine import memory, planner
from kernels.contract import Blueprint, Config, Device, KernelSpec, Schedule, Workload
from kernels.contract.walk import ops_of


class Unpublished(ValueError):
    """Nobody published what a library's kernel launches; the text is one sentence."""


@dataclass(frozen=True)
class Plan:
    """A kernel at a workload on a device that need not be here.

    Attributes:
        schedule: None where `refused` says why it cannot run so, memory apart.
        peak_bytes: what torch would reserve, where it can.
    """

    blueprint: Blueprint
    config: Config
    schedule: Schedule | None
    peak_bytes: int
    refused: str = ""


def planned(kernel: KernelSpec, workload: Workload, device: Device, params: Mapping[str, int]) -> Plan:
    """The kernel's plan, with `params` in place of its choices.

    Raises:
        Unpublished: there is nothing to predict from.
        PlanError: a parameter that the kernel does not have, or not in this pass, or a value that is none of its choices.
    """
    kernel = planner.form_on(kernel, device)
    blueprint = kernel.blueprint
    if kernel.schedule is None or blueprint is None:
        raise Unpublished(f"{kernel.info.title} has no schedule that was published: it runs, and is not predicted")
    planner.check_params(kernel, params, workload.pass_)
    refused = planner.unsupported(kernel, workload)
    if refused:
        return Plan(blueprint, Config(), None, 0, "; ".join(refused))
    config = planner.configured(kernel, workload, device, params)
    if refused := blueprint.constraints(workload, config, device):
        return Plan(blueprint, config, None, 0, "; ".join(refused))
    schedule, operands = blueprint.schedule(workload, config), blueprint.operands(workload)
    stored = {op.operand for launch in schedule.launches for op, _ in ops_of(launch.body) if op.kind == "store"}
    if any(operand.role == "output" and operand.name not in stored for operand in operands):
        return Plan(blueprint, config, None, 0, f"what is known of {kernel.id} has no {workload.pass_} pass")
    return Plan(blueprint, config, schedule, memory.peak_bytes(device, workload, [operands]))


def too_large(plan: Plan, device: Device) -> str:
    """The sentence where the device's memory does not hold it, else empty."""
    if plan.peak_bytes <= (has := device.memory_bytes or 0):
        return ""
    need = memory.text(plan.peak_bytes)
    return f"it needs {need} and {device.name} has {memory.text(has)}: choose a smaller shape"
