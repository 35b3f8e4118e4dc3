"""The attention bench: each row's kernels and peers timed in turns, each output checked whole against float64.

Samples are graph replays of some milliseconds between CUDA events; the kernels take turns in bursts, so that clocks drift over
all alike. The L2 is warm: each launch finds what the one before left there. Imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import geometric_mean
from typing import Protocol

from msgspec import Struct

from engine.bench.ceilings import ceiling_tflops
from engine.bench.contenders import Contender, ready, take_turns
from engine.bench.grid import Row
from engine.buffers import Pool
from engine.machine import Machine, open_machine
from engine.results import Check, TimeUs, time_us
from kernels.contract import Config, Device, KernelSpec, Workload


class Entry(Struct, frozen=True, kw_only=True):
    """One kernel in one row. `refused` is a sentence, and then there are no numbers."""

    kernel: str
    role: str
    config: dict[str, int]
    time_us: TimeUs | None = None
    tflops: float | None = None
    of_best_peer: float | None = None
    of_ceiling: float | None = None
    check: Check | None = None
    refused: str | None = None


class Result(Struct, frozen=True, kw_only=True):
    """One row."""

    row: str
    main: bool
    device: str
    workload: Workload
    entries: tuple[Entry, ...]
    ceiling_tflops: float
    l2_policy: str = "warm"


def run(
    rows: Iterable[Row], specs: Sequence[KernelSpec], device: Device, seconds: float, params: Mapping[str, Mapping[str, int]]
) -> Iterator[Result]:
    """Measures row by row. `seconds`: for each kernel, once it is ready. `params`: kernel -> parameter -> value.

    Raises:
        Unusable: PyTorch cannot use the device.
        PlanError: a parameter that a kernel does not have.
    """
    machine = open_machine(device, lambda: None)
    device = machine.refine(device)
    ceiling = ceiling_tflops(machine)
    pool = Pool(machine.place)
    for row in rows:
        yield _measure(row, specs, device, machine, pool, seconds, params, ceiling)
        machine.trim()


def _measure(
    row: Row, specs: Sequence[KernelSpec], device: Device, machine: Machine, pool: Pool, seconds: float,
    params: Mapping[str, Mapping[str, int]], ceiling: float,
) -> Result:
    workload = row.workload
    contenders, lack = ready(specs, workload, device, machine, pool, params)
    refused = {spec.id: _entry(spec, lack[spec.id][0], refused=lack[spec.id][1]) for spec in specs if spec.id in lack}
    good = [contender for contender in contenders if contender.check.ok]
    take_turns(good, seconds)
    best = max((_tflops(c, workload) for c in good if c.spec.info.role == "peer"), default=None)
    timed = {c.spec.id: _timed(c, workload, best, ceiling) for c in contenders}
    return Result(row=row.id, main=row.main, device=device.name, workload=workload, ceiling_tflops=ceiling,
                  entries=tuple((timed | refused)[spec.id] for spec in specs))


def _tflops(contender: Contender, workload: Workload) -> float:
    return workload.nominal_flops / time_us(contender.times_ns).p50 / 1e6


def _timed(contender: Contender, workload: Workload, best: float | None, ceiling: float) -> Entry:
    if not contender.check.ok:
        return _entry(contender.spec, contender.config, check=contender.check, refused="its output is wrong")
    speed = _tflops(contender, workload)
    return _entry(
        contender.spec, contender.config, check=contender.check, time_us=time_us(contender.times_ns), tflops=speed,
        of_best_peer=speed / best if best else None, of_ceiling=speed / ceiling,
    )


def _entry(spec: KernelSpec, config: Config, **found: object) -> Entry:
    return Entry(kernel=spec.id, role=spec.info.role, config=config.params, **found)  # type: ignore[arg-type]


class _Entry(Protocol):
    """What entries of all benches have."""

    @property
    def kernel(self) -> str: ...
    @property
    def config(self) -> dict[str, int]: ...
    @property
    def refused(self) -> str | None: ...


class _Result(Protocol):
    """What results of all benches have."""

    @property
    def device(self) -> str: ...
    @property
    def entries(self) -> Sequence[_Entry]: ...


def holds(result: _Result, specs: Sequence[KernelSpec], device: Device, params: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether a recorded row is of these kernels on this device, with what is set of their parameters."""
    entries = {entry.kernel: entry for entry in result.entries}
    same = result.device == device.name and list(entries) == [spec.id for spec in specs]
    return same and all(entries[kernel].config.get(name) == value for kernel, set_ in params.items()
                        for name, value in set_.items())


def brief(result: Result) -> str:
    """A row in a line: TFLOP/s of each kernel, or that it was refused or failed its check."""
    said = []
    for entry in result.entries:
        failed = "WRONG" if entry.check and not entry.check.ok else "refused"
        said.append(f"{entry.kernel} {failed if entry.tflops is None else format(entry.tflops, '.3g')}")
    return ", ".join(said)


def table(results: Sequence[Result]) -> str:
    """The results as a table in Markdown: TFLOP/s, the best of ours over the best peer, and means over the 24 rows."""
    kernels = list(dict.fromkeys(entry.kernel for result in results for entry in result.entries))
    lines = ["| row | " + " | ".join(kernels) + " | ours / best peer | of ceiling |", "|---" * (len(kernels) + 3) + "|"]
    lines += [_line(result, kernels) for result in results]
    return "\n".join([*lines, "", *_means(results)])


def refusals(results: Sequence[_Result]) -> list[str]:
    """Why kernels have no speed: each reason once, with the number of rows that it holds for."""
    said = Counter(f"{entry.kernel}: {entry.refused}" for result in results for entry in result.entries if entry.refused)
    return [f"{reason} ({count} of {len(results)} rows)" for reason, count in said.items()]


def _line(result: Result, kernels: Sequence[str]) -> str:
    speed = {entry.kernel: entry.tflops for entry in result.entries}
    ours = best_of(result, "ours")
    ratios = (ours.of_best_peer, ours.of_ceiling) if ours else (None, None)
    cells = [_cell(speed.get(kernel), ".0f" if (speed.get(kernel) or 0) >= 10 else ".2f") for kernel in kernels]
    return " | ".join(["| " + result.row, *cells, *(_cell(ratio, ".2f") for ratio in ratios)]) + " |"


def _cell(value: float | None, style: str) -> str:
    return "n/a" if value is None else format(value, style)


def best_of(result: Result, role: str) -> Entry | None:
    """The fastest kernel of a role in a row."""
    timed = [entry for entry in result.entries if entry.role == role and entry.tflops is not None]
    return max(timed, key=lambda entry: entry.tflops or 0.0, default=None)


def _means(results: Sequence[Result]) -> list[str]:
    """The geometric mean of the best of ours over each peer, for each pass, over the main rows where both ran."""
    said = []
    for pass_ in ("forward", "backward"):
        whole = [result for result in results if result.main and result.workload.pass_ == pass_]
        peers = dict.fromkeys(entry.kernel for result in whole for entry in result.entries if entry.role == "peer")
        over = {peer: [ratio for result in whole if (ratio := _over(result, peer))] for peer in peers}
        said += [f"{pass_}: best of ours over {peer}: geometric mean {geometric_mean(ratios):.3f}, least {min(ratios):.3f}, "
                 f"over {len(ratios)} rows" for peer, ratios in over.items() if ratios]
    return said


def _over(result: Result, peer: str) -> float | None:
    ours, theirs = best_of(result, "ours"), next(entry for entry in result.entries if entry.kernel == peer)
    return ours.tflops / theirs.tflops if ours and ours.tflops and theirs.tflops else None
