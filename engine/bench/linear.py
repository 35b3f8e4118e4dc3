"""The linear bench: throughput and latency over the batch beside the roofline, and the batch where it bends.

Times are taken as in the attention bench. A layer's W is one of several that together exceed the L2 twice, in turns, so that
each launch reads it from HBM; steps of a recurrent network read one W again and again, as they do. Both roofs are measured
in the same run: a plain product, and a copy. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from msgspec import Struct
from msgspec.structs import replace

from engine import memory, planner
from engine.bench.attention import ceiling_tflops
from engine.bench.contenders import Contender, prepare, take_turns
from engine.bench.knees import Knee, knees
from engine.bench.linear_rows import Row
from engine.buffers import Pool, allocate
from engine.machine import Machine, open_machine
from engine.results import Check, TimeUs, time_us
from kernels.contract import Config, Device, KernelSpec, LinearWorkload, Refusal

L2_TIMES = 2           # what all W together take, in sizes of the L2
COPIED_BYTES = 1 << 30  # of the copy that gives the bandwidth; a sixteenth on a CPU


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
    """What this device gives: of a plain product, and of a copy, read plus written."""

    tflops: float
    tb_per_s: float


class Report(Struct, frozen=True, kw_only=True):
    """What the bench prints."""

    rows: tuple[Result, ...]
    knees: tuple[Knee, ...]


def run(rows: Sequence[Row], specs: Sequence[KernelSpec], device: Device, seconds: float) -> Iterator[Result]:
    """Measures row by row. `seconds`: for each kernel, once it is ready.

    Raises:
        Unusable: PyTorch cannot use the device.
    """
    machine = open_machine(device, lambda: None)
    device = machine.refine(device)
    roofs = Roofs(ceiling_tflops(machine), _bandwidth(machine))
    machine.trim()
    pool = Pool(machine.place)
    for row in rows:
        yield _measure(row, specs, device, machine, pool, seconds, roofs)
        machine.trim()


def _bandwidth(machine: Machine) -> float:
    """TB/s of a copy, read plus written."""
    size = COPIED_BYTES if machine.place != "cpu" else COPIED_BYTES // 16
    source = torch.randn(size // 4, device=machine.place)
    target = torch.empty_like(source)
    times = [timing.time_ns for timing in machine.timer(lambda: {"C": target.copy_(source)}, 0).burst()]
    return 2 * size / min(times) / 1e3


def copies(workload: LinearWorkload, device: Device) -> int:
    """How many W take turns: on a GPU enough."""
    if not _rotated(workload, device):
        return 1
    weights = workload.d_in * workload.d_out * workload.itemsize
    return max(1, -(-L2_TIMES * (device.l2_bytes or 0) // weights))


def _rotated(workload: LinearWorkload, device: Device) -> bool:
    return device.kind == "cuda" and workload.repeat == 1


def _measure(
    row: Row, specs: Sequence[KernelSpec], device: Device, machine: Machine, pool: Pool, seconds: float, roofs: Roofs
) -> Result:
    w, turns = row.workload, copies(row.workload, device)
    operands = {o.name: o for spec in specs for o in memory.inputs_of(spec.operands(w))}
    again = [replace(operands["W"], name=f"W{number}") for number in range(1, turns)]
    inputs = pool.views(w, [*operands.values(), *again])
    others = [inputs | {"W": inputs[operand.name]} for operand in again]
    ready: list[Contender] = []
    entries: dict[str, Entry] = {}
    for spec in specs:
        config = planner.configured(spec, w, device, {})
        try:
            if reasons := planner.reasons(spec, w, config, device):
                raise Refusal("; ".join(reasons))
            own = {} if spec.info.opaque else allocate(w, memory.owned(spec.operands(w)), machine.place)
            ready.append(prepare(spec, w, config, machine, inputs, own, others))
        except Refusal as reason:
            entries[spec.id] = _entry(spec, config, refused=str(reason))
        except torch.OutOfMemoryError:
            machine.trim()
            entries[spec.id] = _entry(spec, config, refused="it does not fit the free memory of this device")
    good = [contender for contender in ready if contender.check.ok]
    take_turns(good, seconds)
    best = min((time_us(c.times_ns).p50 for c in good if c.spec.info.role == "peer"), default=None)
    moved = specs[0].cost(w, specs[0].configure(w, device)).hbm_bytes
    entries |= {c.spec.id: _timed(c, w, moved, best) for c in ready}
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


def holds(result: Result, specs: Sequence[KernelSpec], device: Device) -> bool:
    """Whether a recorded row is of these kernels on this device."""
    return result.device == device.name and [entry.kernel for entry in result.entries] == [spec.id for spec in specs]


def brief(result: Result) -> str:
    """A row in a line."""
    said = []
    for entry in result.entries:
        failed = "WRONG" if entry.check and not entry.check.ok else "refused"
        said.append(f"{entry.kernel} {f'{entry.time_us.p50:.3g} µs' if entry.time_us else failed}")
    return ", ".join(said)


def table(told: Report) -> str:
    """In Markdown: each row's time, TFLOP/s and TB/s, and under it the roofs and the knees."""
    lines = ["| row | flops a byte | kernel | time, µs | p20 to p80 | TFLOP/s | TB/s | of best peer |", "|---" * 8 + "|"]
    lines += [_line(result, entry) for result in told.rows for entry in result.entries]
    roofs = dict.fromkeys((r.device, r.ceiling_tflops, r.bandwidth_tb_per_s) for r in told.rows)
    lines += ["", *(f"{name}: a plain product {flops:.3g} TFLOP/s, a copy {speed:.3g} TB/s" for name, flops, speed in roofs)]
    return "\n".join([*lines, *(knee.text for knee in told.knees)])


def _line(result: Result, entry: Entry) -> str:
    if entry.time_us is None:
        return f"| {result.row} | {result.intensity:.1f} | {entry.kernel} | {entry.refused} |" + " |" * 4
    times, ratio = entry.time_us, "n/a" if entry.of_best_peer is None else f"{entry.of_best_peer:.2f}"
    spread = f"{times.p20:.4g} to {times.p80:.4g}"
    return (f"| {result.row} | {result.intensity:.1f} | {entry.kernel} | {times.p50:.4g} | {spread} | "
            f"{entry.tflops:.3g} | {entry.tb_per_s:.3g} | {ratio} |")
