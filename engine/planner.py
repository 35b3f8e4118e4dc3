"""From a Configure to a plan: which kernels run, how, at what cost, in how much memory. Answers without torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from engine import memory
from engine.options import TRITON_MULTIPLIES, has_bfloat16, knows_triton
from engine.protocol import Configure, KernelPlan, Planned
from kernels import tuned
from kernels.contract import Config, Cost, Device, Field, KernelSpec, Workload, fields_of
from kernels.contract.workload import Pass

Catalog = Mapping[str, KernelSpec]


class PlanError(ValueError):
    """A Configure that cannot be planned; the text is one sentence that says what to change."""


def plan(
    configure: Configure, devices: Sequence[Device], catalog: Catalog, available: Callable[[Device], int]
) -> Planned:
    """A plan for every chosen kernel, those that cannot run with the reason why.

    Args:
        available: device -> bytes that a run may take there.

    Raises:
        PlanError: an unknown device, kernel or parameter, a parameter's value that is none of its choices, or a kernel of
            another family than the workload's.
    """
    device = find_device(configure.device, devices)
    specs = [form_on(spec, device) for spec in find_kernels(configure.kernels, catalog)]
    find_kernels(configure.params, catalog, least=0)
    workload, free = configure.workload, available(device)
    if strange := next((spec for spec in specs if not isinstance(workload, spec.kind)), None):
        raise PlanError(f"{strange.info.title} computes {strange.info.family}, not the workload that is chosen: choose "
                        f"{_listed(name for name, spec in catalog.items() if isinstance(workload, spec.kind))}")
    plans = [_plan(spec, workload, device, configure.params.get(spec.id, {}), free) for spec in specs]
    plans, peak = _fit_together(plans, specs, workload, device, free)
    return Planned(
        generation=configure.generation, device=device.id, workload=workload, plans=tuple(plans),
        peak_memory_bytes=peak, memory_bytes=free,
    )


def find_device(wanted: str, devices: Sequence[Device]) -> Device:
    """The device of that id. Raises: PlanError, naming those that are here."""
    for device in devices:
        if device.id == wanted:
            return device
    raise PlanError(f"there is no device {wanted!r} here: choose {_listed(device.id for device in devices)}")


def find_kernels(wanted: Iterable[str], catalog: Catalog, least: int = 1) -> list[KernelSpec]:
    """These kernels, each once, in the order given. Raises: PlanError, naming those that exist."""
    chosen = list(dict.fromkeys(wanted))
    for name in chosen:
        if name not in catalog:
            raise PlanError(f"there is no kernel {name!r}: choose from {_listed(catalog)}")
    if len(chosen) < least:
        raise PlanError(f"no kernel is chosen: choose at least one of {_listed(catalog)}")
    return [catalog[name] for name in chosen]


def form_on(spec: KernelSpec, device: Device) -> KernelSpec:
    """The kernel as a device has it: on a simulated GPU a peer is what its authors published of it, or is refused; and no
    kernel multiplies bfloat16 where the GPU does not."""
    if device.kind != "sim":
        return spec
    found = _form_on(spec, device)
    if has_bfloat16(device):
        return found

    def constraints(workload: Workload, config: Config, device: Device) -> list[str]:
        said = [f"{device.name} does not multiply bfloat16: choose float16"] if workload.dtype == "bfloat16" else []
        return said or found.constraints(workload, config, device)

    return dataclasses.replace(found, constraints=constraints)


def _form_on(spec: KernelSpec, device: Device) -> KernelSpec:
    if spec.schedule is not None:
        if knows_triton(device):
            return spec
        least = ".".join(map(str, TRITON_MULTIPLIES))
        said = (f"{spec.info.title} is written in Triton, which multiplies on the matrix units from compute capability {least} "
                "on: choose what was published, as FlashAttention-1 or the eager chain")
        return dataclasses.replace(spec, constraints=lambda *_: [said])
    found = spec.published
    if found is None:
        said = f"{spec.info.title} has no schedule that was published: it runs on real devices, and is not predicted"
        return dataclasses.replace(spec, constraints=lambda *_: [said])
    return dataclasses.replace(
        spec, operands=found.operands, configure=found.configure, constraints=found.constraints, cost=found.cost,
        schedule=found.schedule)


def check_params(spec: KernelSpec, params: Mapping[str, int], pass_: Pass | None = None) -> None:
    """Raises: PlanError for a parameter that the kernel does not have (or not in this pass, where one is given), or a value
    that is none of its choices."""
    known = {param.name: param for param in spec.info.params}
    for name, value in params.items():
        if name not in known:
            has = f"it has {_listed(known)}" if known else "it has none"
            raise PlanError(f"{spec.info.title} has no parameter {name!r}: {has}")
        if value not in known[name].choices:
            raise PlanError(f"{name} of {spec.info.title} cannot be {value}: choose {_listed(map(str, known[name].choices))}")
        if pass_ and pass_ not in known[name].passes:
            raise PlanError(f"{name} of {spec.info.title} means nothing in the {pass_} pass: leave it out")


def configured(spec: KernelSpec, workload: Workload, device: Device, params: Mapping[str, int]) -> Config:
    """The kernel's own configuration with `params` in place of its choices; those of another pass are passed over.

    Raises:
        PlanError: as `check_params`.
    """
    check_params(spec, params)
    known = {param.name: param for param in spec.info.params}
    params = {name: value for name, value in params.items() if workload.pass_ in known[name].passes}
    config = spec.configure(workload, device)
    if all(config.params.get(name) == value for name, value in params.items()):
        return config
    config = replace(config, params={**config.params, **params})
    compilations = spec.compilations(workload, config)
    return tuned.with_resources(config, compilations, device) if compilations else config


def reasons(spec: KernelSpec, workload: Workload, config: Config, device: Device) -> list[str]:
    """Why the kernel cannot run this workload here, memory apart: sentences, empty where it can."""
    return unsupported(spec, workload) or spec.constraints(workload, config, device)


def unsupported(spec: KernelSpec, workload: Workload) -> list[str]:
    """Why the kernel cannot run this workload anywhere."""
    found = []
    if workload.pass_ not in spec.info.passes:
        found.append(f"{spec.info.title} has no {workload.pass_} pass: choose {_listed(spec.info.passes)}, or another kernel")
    if workload.dtype not in spec.info.dtypes:
        found.append(f"{spec.info.title} does not take {workload.dtype}: choose {_listed(spec.info.dtypes)}")
    return found


def _plan(spec: KernelSpec, workload: Workload, device: Device, params: Mapping[str, int], free: int) -> KernelPlan:
    config = configured(spec, workload, device, params)

    field = _stretched(spec, workload)

    def needed(shape: Workload) -> int:
        return memory.peak_bytes(device, shape, [spec.operands(shape)])

    longest = memory.longest(
        lambda n: needed(replace(workload, **{field.name: n})) <= free, field.hi or getattr(workload, field.name))
    refused = "; ".join(reasons(spec, workload, config, device))
    supported = workload.pass_ in spec.info.passes
    if not refused and needed(workload) > free:
        refused = _too_large(spec, workload, device, free, longest or 0)
    nothing = Cost(nominal_flops=workload.nominal_flops, flops=0, hbm={})  # of a pass that the kernel does not have
    return KernelPlan(
        kernel=spec.id, config=config, cost=spec.cost(workload, config) if supported else nothing,
        schedule=spec.schedule(workload, config) if spec.schedule and supported else None,
        peak_memory_bytes=needed(workload) if supported else 0, longest_seq=longest if supported else None,
        refused=refused or None,
    )


def _too_large(spec: KernelSpec, workload: Workload, device: Device, free: int, longest: int) -> str:
    operands = spec.operands(workload)
    peak = memory.peak_bytes(device, workload, [operands])
    scratch = [operand for operand in memory.owned(operands) if operand.role == "scratch"]
    held = sum(operand.bytes for operand in scratch)
    of_it = f", of it {memory.text(held)} for {_listed((o.name for o in scratch), 'and')}" if 2 * held > peak else ""
    what = _stretched(spec, workload).title
    what = what if what.isupper() or what.startswith("KV") else what.lower()
    remedy = f"choose a {what} of at most {longest:,}" if longest else f"choose {workload.SMALLER}"
    return f"{spec.info.title} needs {memory.text(peak)}{of_it}; {memory.text(free)} are free on {device.id}: {remedy}"


def _fit_together(
    plans: list[KernelPlan], specs: Sequence[KernelSpec], workload: Workload, device: Device, free: int
) -> tuple[list[KernelPlan], int]:
    """Refuses the largest kernel as long as those that would fit alone do not fit side by side; the plans, and their peak."""
    forms = {spec.id: spec for spec in specs}
    while True:
        running = [plan for plan in plans if not plan.refused]
        operands = [forms[plan.kernel].operands(workload) for plan in running]
        peak = memory.peak_bytes(device, workload, operands) if running else 0
        if peak <= free:
            return plans, peak
        largest = max(running, key=lambda plan: plan.peak_memory_bytes)
        reason = (f"{forms[largest.kernel].info.title} does not fit beside the other kernels: together they need "
                  f"{memory.text(peak)} and {memory.text(free)} are free on {device.id}: choose fewer, or {workload.SHORTER}")
        plans = [replace(plan, refused=reason) if plan is largest else plan for plan in plans]


def _stretched(spec: KernelSpec, workload: Workload) -> Field:
    """The field that is made smaller first where memory lacks: the cached tokens of decoding, else the workload's own."""
    name = "seq_kv" if spec.info.family == "decode" else workload.LENGTH
    return next(field for field in fields_of(type(workload)) if field.name == name)


def _listed(names: Iterable[str], last: str = "or") -> str:
    items = list(names)
    return " ".join([", ".join(items[:-1]), last, items[-1]]) if len(items) > 1 else "".join(items)
