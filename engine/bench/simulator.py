"""The simulator held against tables: what it predicts of each row, how far off it is, and how far a plain roofline is.

Without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from msgspec import Struct
from msgspec.structs import replace

from engine.bench import whole_models
from engine.bench.published import Row, Table, Unit
from engine.bench.whole_models import Generation
from engine.planner import PlanError
from engine.simulator import spec as specs
from engine.simulator.figures import DeviceSpec
from engine.simulator.planned import Unpublished, planned
from engine.simulator.prediction import Prediction, Unpredictable, predict
from kernels.catalog import catalog
from kernels.contract import ITEMSIZE, AttentionWorkload, Workload

SPEEDS = ("tflops", "tokens_per_s")


class Entry(Struct, frozen=True, kw_only=True):
    """One row, its figures in the table's unit.

    Attributes:
        told: what the table has; `why_none` where it has no number.
        error: signed, predicted over told less 1; of the roofline likewise.
        limiter: what takes the most time of the pass that takes longest.
        not_predicted: the reason, and then there are no numbers.
    """

    row: str
    kernel: str
    told: float | None
    why_none: str = ""
    predicted: float | None = None
    error: float | None = None
    limiter: str = ""
    roofline: float | None = None
    roofline_error: float | None = None
    not_predicted: str = ""
    chosen_from: bool = False


class Summary(Struct, frozen=True, kw_only=True):
    """One kernel of a table, over the rows that count: those with both numbers that no constant was chosen from.

    Attributes:
        mean_error: mean absolute error of what the table prints, a share; `mean_time_error` of the time, None for bytes.
        aim: of `mean_error`, to be reached; None where none was set.
    """

    kernel: str
    rows: int
    mean_error: float
    mean_time_error: float | None
    roofline_mean_error: float
    roofline_mean_time_error: float | None
    worst_row: str
    worst_error: float
    aim: float | None = None


class Result(Struct, frozen=True, kw_only=True):
    """One table, its rows left out of `table`."""

    table: Table
    entries: tuple[Entry, ...]
    summaries: tuple[Summary, ...]


def run(tables: Iterable[Table]) -> list[Result]:
    """Predicts every row."""
    return [_held(table) for table in tables]


def only(tables: Sequence[Table], wanted: tuple[str, ...]) -> list[Table]:
    """Their rows that `--only` names, by the table's id and the row's name. Raises: BadInput where there is none."""
    from engine.bench.grid import holding
    from engine.options import BadInput

    cut = [replace(table, rows=tuple(row for row in table.rows if holding(f"{table.id} {row.name}", wanted)))
           for table in tables]
    if not (found := [table for table in cut if table.rows]):
        raise BadInput(f"no row holds {' or '.join(wanted)!r}: write for example --only '{tables[-1].id}' "
                       f"or --only '{tables[0].rows[0].name}'")
    return found


def summaries(entries: Sequence[Entry], unit: Unit, aims: Mapping[str, float]) -> tuple[Summary, ...]:
    """By kernel, in the order in which they come. `aims` are in per cent."""
    found = []
    for kernel in dict.fromkeys(entry.kernel for entry in entries):
        counted = [entry for entry in entries if entry.kernel == kernel and not entry.chosen_from]
        errors = [(entry.error, entry.roofline_error, entry.row) for entry in counted
                  if entry.error is not None and entry.roofline_error is not None]
        if errors:
            own, roofline, _ = zip(*errors, strict=True)
            worst, _, worst_row = max(errors, key=lambda each: abs(each[0]))
            found.append(Summary(
                kernel=kernel, rows=len(errors), mean_error=_mean(own), mean_time_error=_mean_of_time(own, unit),
                roofline_mean_error=_mean(roofline), roofline_mean_time_error=_mean_of_time(roofline, unit),
                worst_row=worst_row, worst_error=worst, aim=aims[kernel] / 100 if kernel in aims else None))
    return tuple(found)


def _mean(errors: Sequence[float]) -> float:
    return fmean(map(abs, errors))


def _mean_of_time(errors: Sequence[float], unit: Unit) -> float | None:
    """Of a speed that is e too high the time is 1 / (1 + e) - 1 too long."""
    if unit.startswith("gb"):
        return None
    return _mean([1 / (1 + error) - 1 for error in errors] if unit in SPEEDS else errors)


def _held(table: Table) -> Result:
    spec = specs.resolve(table.device)
    entries = tuple(_entry(row, table, spec) for row in table.rows)
    return Result(table=replace(table, rows=()), entries=entries, summaries=summaries(entries, table.unit, table.aims))


def _entry(row: Row, table: Table, spec: DeviceSpec) -> Entry:
    told = None if isinstance(row.value, str) else row.value
    entry = Entry(row=row.name, kernel=row.kernel, told=told, why_none=row.value if isinstance(row.value, str) else "",
                  chosen_from=row.chosen_from)
    try:
        predicted, limiter, roofline = _found(row, table, spec)
    except Unpredictable as error:
        return replace(entry, not_predicted=str(error))
    return replace(
        entry, predicted=predicted, error=None if told is None else predicted / told - 1, roofline=roofline,
        roofline_error=None if told is None else roofline / told - 1, limiter=limiter)


def _found(row: Row, table: Table, spec: DeviceSpec) -> tuple[float, str, float]:
    """What is predicted, what limits it, and what the roofline says, in the table's unit. Raises: Unpredictable."""
    if isinstance(row.workload, Generation):
        clock_hz = _clock_hz(row, table)
        return whole_models.found(row.workload, row.kernel, spec, clock_hz, table.unit)
    passes = [_one(row, workload, table, spec) for workload in row.workloads]
    flops = sum(_flops(workload, table) for workload in row.workloads)
    predicted = _in_unit(table, flops, sum(one.seconds for one, _, _ in passes),
                         sum(one.dram_read_bytes for one, _, _ in passes), sum(one.dram_write_bytes for one, _, _ in passes))
    roofline = _in_unit(table, flops, sum(seconds for _, _, seconds in passes),
                        sum(cost.read for _, cost, _ in passes), sum(cost.written for _, cost, _ in passes))
    return predicted, max((one for one, _, _ in passes), key=lambda one: one.seconds).limiter, roofline


class _Bytes(Struct, frozen=True):
    """Of HBM, by closed form."""

    read: int
    written: int


def _one(row: Row, workload: Workload, table: Table, spec: DeviceSpec) -> tuple[Prediction, _Bytes, float]:
    """One pass: the prediction, and of the roofline bytes and seconds. Raises: Unpredictable."""
    if (kernel := catalog().get(row.kernel)) is None:
        raise Unpredictable(f"there is no kernel {row.kernel}")
    try:
        plan = planned(kernel, workload, specs.device_of(spec), row.params)
    except (PlanError, Unpublished) as error:
        raise Unpredictable(str(error)) from error
    if plan.schedule is None:
        raise Unpredictable(plan.refused)
    clock_hz = _clock_hz(row, table) or spec.clock_hz
    prediction = predict(plan.schedule, spec, clock_hz, cold=table.cold)
    cost = plan.blueprint.cost(workload, plan.config)
    moved = _Bytes(cost.hbm_read_bytes, cost.hbm_write_bytes)
    seconds = max(workload.nominal_flops / _peak(workload, spec, clock_hz),
                  (moved.read + moved.written) / spec.bandwidth_bytes_per_s)
    return prediction, moved, seconds


def _clock_hz(row: Row, table: Table) -> float | None:
    """Of the SMs; None where neither says it."""
    told = row.clock_mhz or table.clock_mhz
    return told and told * 1e6


def _peak(workload: Workload, spec: DeviceSpec, clock_hz: float) -> float:
    """Dense flops a second of the units that multiply this dtype. Raises: Unpredictable where the part has none."""
    rate = spec.flops_per_clock(workload.dtype)
    if rate is None:
        raise Unpredictable(f"{spec.title} does not multiply {workload.dtype}: choose from {', '.join(ITEMSIZE)}")
    return spec.sms * clock_hz * rate


def _flops(workload: Workload, table: Table) -> float:
    """Nominal flops, counted as the source does."""
    if table.causal_flops == "half" and isinstance(workload, AttentionWorkload) and workload.causal:
        return replace(workload, causal=False, window=0).nominal_flops / 2
    return workload.nominal_flops


def _in_unit(table: Table, flops: float, seconds: float, read: float, written: float) -> float:
    """A figure as the table prints it."""
    return float({"tflops": flops / seconds / 1e12, "us": seconds * 1e6, "ms": seconds * 1e3, "gb": (read + written) / 1e9,
                  "gb_read": read / 1e9}[table.unit])
