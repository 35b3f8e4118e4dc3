"""The linear bench: throughput and latency over the batch beside the roofline, and the batch where it bends.

Times are taken as in the attention bench. A layer's W is one of several that together exceed the L2 twice, in turns, so that
each launch reads it from HBM; steps of a recurrent network read one W again and again, as they do. Both roofs are measured
in the same run: a plain product, and a kernel that only reads. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from engine.bench.ceilings import ceiling_tflops, read_ceiling
from engine.bench.contenders import Contender, ready, take_turns
from engine.bench.knees import Knee, knees
from engine.bench.linear_rows import Row
from engine.buffers import Pool
from engine.machine import Machine, open_machine
from engine.results import Check, TimeUs, time_us
from kernels.contract import Config, Device, KernelSpec, LinearWorkload
from kernels.linear.reference import hbm

L2_TIMES = 2  # what all W together take, in sizes of the L2


class Entry(Struct, frozen=True, kw_only=True):
    """One kernel in one row. `refused` is a sentence, and then there are no numbers."""

    kernel: str
    role: str
    config: dict[str, int]
    time_us: TimeUs | None = None
    tflops: float | None = None
    tb_per_s: float | None = None
    of_best_peer: float | None = None
    check: Check | None = None
    refused: str | None = None


class Result(Struct, frozen=True, kw_only=True):
    """One row. `intensity`: flops a byte of HBM. `l2_policy`: rotated where each launch's W comes from HBM."""

    row: str
    device: str
    workload: LinearWorkload
    intensity: float
    entries: tuple[Entry, ...]
    ceiling_tflops: float
    bandwidth_tb_per_s: float
    l2_policy: Literal["warm", "rotated"]


class Roofs(NamedTuple):
    """What this device gives: of a plain product, and of a plain kernel that only reads."""

    tflops: float
    tb_per_s: float


class Report(Struct, frozen=True, kw_only=True):
    """What the bench prints."""

    rows: tuple[Result, ...]
    knees: tuple[Knee, ...]


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
    roofs = Roofs(ceiling_tflops(machine), read_ceiling(machine) / 1e12)
    machine.trim()
    pool = Pool(machine.place)
    for row in rows:
        yield _measure(row, specs, device, machine, pool, seconds, params, roofs)
        machine.trim()


def copies(workload: LinearWorkload, device: Device) -> int:
    """How many W take turns: on a GPU enough."""
    if not _rotated(workload, device):
        return 1
    weights = workload.d_in * workload.d_out * workload.itemsize
    return max(1, -(-L2_TIMES * (device.l2_bytes or 0) // weights))


def _rotated(workload: LinearWorkload, device: Device) -> bool:
    return device.kind == "cuda" and workload.repeat == 1


def _measure(
    row: Row, specs: Sequence[KernelSpec], device: Device, machine: Machine, pool: Pool, seconds: float,
    params: Mapping[str, Mapping[str, int]], roofs: Roofs,
) -> Result:
    w = row.workload
    found, lack = ready(specs, w, device, machine, pool, params, copies(w, device))
    good = [contender for contender in found if contender.check.ok]
    take_turns(good, seconds)
    best = min((time_us(c.times_ns).p50 for c in good if c.spec.info.role == "peer"), default=None)
    moved = sum(traffic.read + traffic.written for traffic in hbm(w).values())
    entries = {spec.id: _entry(spec, lack[spec.id][0], refused=lack[spec.id][1]) for spec in specs if spec.id in lack}
    entries |= {c.spec.id: _timed(c, w, moved, best) for c in found}
    return Result(
        row=row.id, device=device.name, workload=w, intensity=w.nominal_flops / moved, ceiling_tflops=roofs.tflops,
        bandwidth_tb_per_s=roofs.tb_per_s, l2_policy="rotated" if _rotated(w, device) else "warm",
        entries=tuple(entries[spec.id] for spec in specs))


def _timed(contender: Contender, workload: LinearWorkload, moved: int, best: float | None) -> Entry:
    if not contender.check.ok:
        return _entry(contender.spec, contender.config, check=contender.check, refused="its output is wrong")
    times = time_us(contender.times_ns)
    return _entry(
        contender.spec, contender.config, check=contender.check, time_us=times,
        tflops=workload.nominal_flops / times.p50 / 1e6, tb_per_s=moved / times.p50 / 1e6,
        of_best_peer=best / times.p50 if best else None)


def _entry(spec: KernelSpec, config: Config, **found: object) -> Entry:
    return Entry(kernel=spec.id, role=spec.info.role, config=config.params, **found)  # type: ignore[arg-type]


def report(results: Sequence[Result]) -> Report:
    """The rows, and the knees of the kernels over them."""
    series: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for result in results:
        w = result.workload
        for entry in result.entries:
            if entry.time_us and w.repeat == 1 and w.d_in == w.d_out:
                series.setdefault((entry.kernel, w.d_in), []).append((w.batch, entry.time_us.p50))
    roofs = Roofs(results[0].ceiling_tflops, results[0].bandwidth_tb_per_s) if results else Roofs(0, 0)
    sizes = {result.workload.d_in: result.workload.itemsize for result in results}
    found = tuple(knees(kernel, width, sizes[width], points, *roofs) for (kernel, width), points in series.items())
    return Report(rows=tuple(results), knees=found)


def brief(result: Result) -> str:
    """A row in a line."""
    said = []
    for entry in result.entries:
        failed = "WRONG" if entry.check and not entry.check.ok else "refused"
        said.append(f"{entry.kernel} {f'{entry.time_us.p50:.3g} µs' if entry.time_us else failed}")
    return ", ".join(said)


def table(results: Sequence[Result]) -> str:
    """In Markdown: each row's time, TFLOP/s and TB/s, and under it the roofs and the knees."""
    told = report(results)
    lines = ["| row | flops a byte | kernel | time, µs | p20 to p80 | TFLOP/s | TB/s | of best peer |", "|---" * 8 + "|"]
    lines += [_line(result, entry) for result in told.rows for entry in result.entries]
    roofs = dict.fromkeys((r.device, r.ceiling_tflops, r.bandwidth_tb_per_s) for r in told.rows)
    lines += ["", *(f"{name}: a plain product {flops:.3g} TFLOP/s, plain reads {read:.3g} TB/s" for name, flops, read in roofs)]
    return "\n".join([*lines, *(knee.text for knee in told.knees)])


def _line(result: Result, entry: Entry) -> str:
    if entry.time_us is None:
        return f"| {result.row} | {result.intensity:.1f} | {entry.kernel} | {entry.refused} |" + " |" * 4
    times, ratio = entry.time_us, "n/a" if entry.of_best_peer is None else f"{entry.of_best_peer:.2f}"
    spread = f"{times.p20:.4g} to {times.p80:.4g}"
    return (f"| {result.row} | {result.intensity:.1f} | {entry.kernel} | {times.p50:.4g} | {spread} | "
            f"{entry.tflops:.3g} | {entry.tb_per_s:.3g} | {ratio} |")
