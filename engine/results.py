"""From the events of a run to what `python -m engine run` prints: quantiles, throughput, traffic, one object a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles
from typing import Any

from msgspec import Struct, field

from engine.memory import text
from engine.protocol import Checked, Event, KernelPlan, KernelSample, Planned, Provenance, Refused, Workload

SCHEMA = "tilescope-run-1"


class TimeUs(Struct, frozen=True, kw_only=True):
    """Quantiles of the time of one launch, in microseconds, over `n` samples."""

    p20: float
    p50: float
    p80: float
    n: int


class Check(Struct, frozen=True, kw_only=True):
    """max |out - ref| / max |ref| against float64, over some query rows."""

    ok: bool
    max_error: float
    tolerance: float


class Result(Struct, frozen=True, kw_only=True):
    """One kernel's run. Bytes are the closed form of its cost; `peak_memory_bytes` is predicted for this kernel alone.

    A kernel that was refused has `refused`, a sentence, and no numbers; one whose check failed has its check besides.
    """

    schema: str = SCHEMA
    kernel: str
    device: str
    provenance: Provenance = "measured"
    workload: Workload
    config: dict[str, int]
    l2_policy: str = "warm"
    launches: int | None = None
    time_us: TimeUs | None = None
    tflops: float | None = None
    hbm_read_bytes: int | None = None
    hbm_write_bytes: int | None = None
    tile_bytes: int | None = None
    peak_memory_bytes: int | None = None
    check: Check | None = None
    refused: str | None = None


class Collector(Struct, kw_only=True):
    """Gathers what a run says of its kernels. Give it every event; events of another generation are left out."""

    planned: Planned | None = None
    samples: dict[str, list[KernelSample]] = field(default_factory=dict)
    checks: dict[str, Checked] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Takes one event in."""
        match event:
            case Planned():
                self.planned = event
                self.samples, self.checks, self.refusals = {}, {}, {}
            case KernelSample() if self._is_of_this(event.generation):
                self.samples.setdefault(event.kernel, []).append(event)
            case Checked() if self._is_of_this(event.generation):
                self.checks[event.kernel] = event
            case Refused() if self._is_of_this(event.generation) and event.kernel:
                self.refusals[event.kernel] = event.reason

    def _is_of_this(self, generation: int) -> bool:
        return self.planned is not None and generation == self.planned.generation

    def results(self) -> list[Result]:
        """One result for each chosen kernel, in the order chosen; empty before a plan."""
        return [self._result(self.planned, plan) for plan in self.planned.plans] if self.planned else []

    def _result(self, planned: Planned, plan: KernelPlan) -> Result:
        samples, checked = self.samples.get(plan.kernel, []), self.checks.get(plan.kernel)
        check = Check(ok=checked.ok, max_error=checked.max_error, tolerance=checked.tolerance) if checked else None
        refused = plan.refused or self.refusals.get(plan.kernel)
        if refused is None and check and not check.ok:
            refused = f"its output is wrong: error {check.max_error:.2g} against a tolerance of {check.tolerance:.2g}"
        if refused is None and not samples:
            refused = "it was not measured: the run ended before its turn"
        if refused is not None:
            return Result(
                kernel=plan.kernel, device=planned.device, workload=planned.workload, config=plan.config.params,
                check=check, refused=refused,
            )
        times, cost = time_us([sample.time_ns for sample in samples]), plan.cost
        return Result(
            kernel=plan.kernel, device=planned.device, provenance=samples[-1].provenance, workload=planned.workload,
            config=plan.config.params, l2_policy=samples[-1].l2_policy, launches=sum(s.launches for s in samples),
            time_us=times, tflops=cost.nominal_flops / times.p50 / 1e6,
            hbm_read_bytes=cost.hbm_read_bytes, hbm_write_bytes=cost.hbm_write_bytes,
            tile_bytes=cost.tile_bytes if cost.tile else None, peak_memory_bytes=plan.peak_memory_bytes, check=check,
        )


def time_us(times_ns: Sequence[float]) -> TimeUs:
    """Quantiles of some times, of at least one."""
    times = [time_ns / 1e3 for time_ns in times_ns]
    if len(times) == 1:
        return TimeUs(p20=times[0], p50=times[0], p80=times[0], n=1)
    p20, p50, p80 = (quantiles(times, n=10, method="inclusive")[i] for i in (1, 4, 7))
    return TimeUs(p20=p20, p50=p50, p80=p80, n=len(times))


def table(results: list[Result]) -> Any:
    """The results as a rich table, for a person."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("kernel", "TFLOP/s", "median", "p20 to p80", "samples", "traffic", "tiles", "peak memory", "check"):
        shown.add_column(column, justify="left" if column in ("kernel", "check") else "right", no_wrap=column != "check")
    for r in results:
        if r.time_us is None:
            shown.add_row(r.kernel, *["n/a"] * 7, r.refused)
            continue
        shown.add_row(
            r.kernel, f"{r.tflops:.3g}", _us(r.time_us.p50), f"{_us(r.time_us.p20)} to {_us(r.time_us.p80)}", str(r.time_us.n),
            text((r.hbm_read_bytes or 0) + (r.hbm_write_bytes or 0)), "n/a" if r.tile_bytes is None else text(r.tile_bytes),
            text(r.peak_memory_bytes or 0), f"passed ({r.check.max_error:.0e})" if r.check else r.provenance,
        )
    return shown


def _us(value: float) -> str:
    for scale, unit in ((1.0, "µs"), (1e3, "ms"), (1e6, "s")):
        if value < 999.5 * scale or unit == "s":
            return f"{_three(value / scale)} {unit}"
    raise AssertionError(value)


def _three(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
