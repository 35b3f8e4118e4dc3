"""Which configurations a search tries: near one that is known, and nothing that is known to be too large. Without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from msgspec.structs import replace

from engine import planner
from engine.bench.tuning import Params
from kernels.contract import AttentionWorkload, Config, Device, KernelSpec, Param, Workload
from kernels.contract.walk import live_bytes, program_steps

CHANGES = 2         # parameters that differ from the centre's, each by one step: more rows often want more warps
REGISTERS = 255     # of 4 bytes a thread. Source: CUDA C programming guide, table of compute capabilities
ROWS = 1024         # of a shape small enough to be walked at once: tiles do not grow with it


def around(params: Sequence[Param], centre: Mapping[str, int]) -> list[Params]:
    """The centre, then what differs from it in CHANGES parameters at most, each by one step among its choices."""
    ladders = [_near(param, centre[param.name]) for param in params]
    near = [dict(zip((param.name for param in params), values, strict=True)) for values in product(*ladders)]
    counted = [(sum(one[name] != centre[name] for name in one), one) for one in near]
    return [one for changes, one in sorted(counted, key=lambda pair: pair[0]) if changes <= CHANGES]


def _near(param: Param, value: int) -> list[int]:
    """The value, and the choices next to it on either side."""
    below = [choice for choice in param.choices if choice < value]
    above = [choice for choice in param.choices if choice > value]
    return [value, *([max(below)] if below else []), *([min(above)] if above else [])]


def configured(spec: KernelSpec, workload: Workload, device: Device, params: Mapping[str, int]) -> Config:
    """The kernel's configuration with these parameters, of which the table may have some that are no choice."""
    known = {param.name: param.choices for param in spec.info.params}
    return planner.configured(spec, workload, device, {n: v for n, v in params.items() if v in known[n]})


def worth_trying(
    spec: KernelSpec, workload: Workload, device: Device, near: Sequence[Params]
) -> Iterator[tuple[Params, Config]]:
    """Those that the kernel and the SM have room for, each once as the compiler sees it."""
    seen: set[object] = set()
    for params in near:
        config = configured(spec, workload, device, params)
        asked: tuple[object, ...] = tuple(c.key for c in spec.compilations(workload, config))
        asked = asked or tuple(params.values())
        if asked in seen or planner.reasons(spec, workload, config, device) or _spills(spec, workload, config, device):
            continue
        seen.add(asked)
        yield params, config


def _spills(spec: KernelSpec, workload: Workload, config: Config, device: Device) -> bool:
    """Whether the tiles that live in registers at one time are more than the threads have."""
    if spec.schedule is None or device.kind == "cpu":
        return False
    if isinstance(workload, AttentionWorkload):
        workload = replace(workload, batch=1, seq=min(ROWS, workload.seq), seq_kv=0)
    schedule = spec.schedule(workload, config)
    return any(
        live_bytes(launch, program_steps(schedule, launch, launch.programs - 1), "registers").max()
        > 4 * REGISTERS * 32 * launch.warps
        for launch in schedule.launches
    )
