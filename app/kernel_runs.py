"""The kind of run that compares kernels on one workload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from rich.table import Table

from app import format as fmt
from app import predicted
from app.choice import Choice, first_choice, fitted, restored
from app.configuration import Configuration, configuration
from app.kind import Choice as AnyChoice
from app.kind import Kind, Section, Tell, device_of, median_words, plain_table
from app.store import Snapshot
from engine.options import BadInput, default_workload, params_from, workload_from
from engine.protocol import Hello, KernelPlan

if TYPE_CHECKING:
    from app.panels.form import Form
    from app.theme import Theme


class Kernels(Kind):
    """Kernels side by side: `Configure`, `Planned`, a sample at a time."""

    choice = Choice

    def form(self, theme: Theme) -> Form:
        from app.panels.controls import Controls

        return Controls(theme)

    def first(self, hello: Hello, asked: Mapping[str, Any], tell: Tell) -> Choice:
        device, options = device_of(asked, hello, tell), asked.get("options", {})
        choice = first_choice(device, workload_from(options, default_workload(device)))
        choice = replace(choice, kernels=asked.get("kernels", choice.kernels))
        try:
            choice.params.update(params_from(options, [info for info in hello.kernels if info.id in choice.kernels]))
        except BadInput as error:
            tell(str(error), "")
        return choice

    def fitted(self, choice: Choice, hello: Hello) -> Choice | None:
        return fitted(choice, hello)

    def restored(self, shown: Configuration, hello: Hello, instead: str) -> tuple[Choice, str]:
        return restored(shown, hello, instead)

    def planned(self, snapshot: Snapshot) -> bool:
        return bool(snapshot.plans)

    def configuration(self, snapshot: Snapshot, lab: str, theme: str, choice: AnyChoice | None) -> Configuration | None:
        params = choice.params if isinstance(choice, Choice) else {}
        return configuration(snapshot, lab=lab, theme=theme, params=params)

    def inspected(self, snapshot: Snapshot) -> list[Section]:
        return [(snapshot.title(plan.kernel), facts(snapshot, plan)) for plan in snapshot.plans.values()]

    def readings(self, snapshot: Snapshot) -> list[str]:
        parts = []
        failed = [kernel for kernel in snapshot.checks if snapshot.failed(kernel)]
        passed = [check for check in snapshot.checks.values() if check.ok]
        if failed:
            parts.append(f"check FAILED: {', '.join(failed)}")
        elif passed:
            parts.append(f"check passed ({fmt.error(max(check.max_error for check in passed))})")
        if snapshot.workload:
            parts.append(snapshot.workload.dtype)
        shown = [series for name in snapshot.plans if snapshot.shown(name) and (series := snapshot.series.get(name))]
        if shown:
            parts += sorted({f"{series.l2_policy} L2" for series in shown if series.l2_policy})
            parts.append(median_words([series.stats.n for series in shown if series.stats]))
            parts.append(", ".join(sorted({series.provenance for series in shown})))
        return parts

    def check(self, hello: Hello, choice: Choice, asked: Mapping[str, Any]) -> None:
        chosen = [info for info in hello.kernels if info.id in choice.kernels]
        params_from(asked.get("options", {}), chosen)
        for info in chosen:
            for param in info.params:
                value = choice.params.get(info.id, {}).get(param.name)
                if value is not None and value not in param.choices:
                    choices = " or ".join(map(str, param.choices))
                    raise BadInput(f"{param.name} of {info.title} cannot be {value}: choose {choices}")

    def settled(self, snapshot: Snapshot) -> bool:
        waiting = [name for name in snapshot.plans if name not in snapshot.refusals and not snapshot.failed(name)]
        return bool(snapshot.plans) and all(snapshot.shown(name) for name in waiting)

    def failed(self, snapshot: Snapshot) -> bool:
        return any(map(snapshot.failed, snapshot.plans))

    def report(self, shown: Configuration) -> Table:
        table = plain_table("kernel", "TFLOP/s", "median", "p20 to p80", "samples", "check")
        for row in shown.measured:
            if row.time_p50_ns is None:
                table.add_row(row.kernel, fmt.NA, fmt.NA, fmt.NA, "0", row.note)
                continue
            passed = "not checked" if row.check_max_error is None else f"passed ({fmt.error(row.check_max_error)})"
            spread = f"{fmt.time_ns(row.time_p20_ns)} to {fmt.time_ns(row.time_p80_ns)}"
            table.add_row(
                row.kernel, fmt.significant(row.tflops), fmt.time_ns(row.time_p50_ns), spread, str(row.samples), passed)
        return table


def facts(snapshot: Snapshot, plan: KernelPlan) -> list[tuple[str, str]]:
    """What is known of a kernel, as label and value."""
    cost, shown = plan.cost, [param.name for info in snapshot.infos if info.id == plan.kernel for param in info.params]
    rows = [(name.replace("_", " "), fmt.count(plan.config.params[name])) for name in shown if name in plan.config.params]
    for launch, used in plan.config.resources.items():
        spills = f", {used.spill_bytes} B spilled" if used.spill_bytes else ""
        rows.append((launch, f"{used.registers} registers, {fmt.bytes_iec(used.sram_bytes)}{spills}"))
    if not cost.hbm:
        return [("refused", plan.refused or fmt.NA)]
    bound = "" if cost.tile else "≥ "
    rows += [
        ("matrix work", fmt.quantity(cost.flops, "FLOP")),
        (f"{snapshot.device.memory_name if snapshot.device else 'HBM'} bytes", bound + fmt.bytes_iec(cost.hbm_bytes)),
        ("intensity", f"{'≤ ' if bound else ''}{fmt.significant(cost.flops / max(1, cost.hbm_bytes))} FLOP/B"),
    ]
    if cost.tile:
        rows.append(("tile bytes", fmt.bytes_iec(cost.tile_bytes)))
    if cost.exps:
        rows.append(("exponentials", fmt.quantity(cost.exps, "")))
    rows += predicted.facts(snapshot, plan.kernel)
    rows.append(("peak memory", fmt.bytes_iec(plan.peak_memory_bytes)))
    if plan.longest_seq:
        rows.append(("fits up to", f"{fmt.count(plan.longest_seq)} tokens"))
    if check := snapshot.checks.get(plan.kernel):
        rows.append(("check", f"{'passed' if check.ok else 'FAILED'}, {fmt.error(check.max_error)}"))
    return rows


KERNELS = Kernels()
