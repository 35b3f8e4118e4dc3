"""The kind of run that does the same work at many batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from app import format as fmt
from app.batching.choice import BatchChoice, asked_choice, first_choice, fitted, restored
from app.batching.configuration import BatchConfiguration, configuration
from app.batching.facts import UNITS, found, intensity, kernel_title, knee, parts
from app.batching.state import BatchState
from app.kind import Choice, Kind, Section, Tell, device_of, median_words, plain_table
from app.store import Snapshot
from engine.options import BadInput
from engine.protocol import BatchPlan, Hello

if TYPE_CHECKING:
    from app.panels.form import Form
    from app.theme import Theme


class Batchings(Kind):
    """`ConfigureBatching`, `BatchingPlanned`, the ceilings, samples of each batch size."""

    choice = BatchChoice

    def form(self, theme: Theme) -> Form:
        from app.panels.batch_controls import BatchControls

        return BatchControls(theme)

    def first(self, hello: Hello, asked: Mapping[str, Any], tell: Tell) -> BatchChoice:
        choice = first_choice(device_of(asked, hello, tell), hello.models)
        try:
            return asked_choice(choice, asked.get("batching", {}), hello.models)
        except BadInput as error:
            tell(str(error), "")
            return choice

    def fitted(self, choice: BatchChoice, hello: Hello) -> BatchChoice | None:
        return fitted(choice, hello)

    def restored(self, shown: BatchConfiguration, hello: Hello, instead: str) -> tuple[BatchChoice, str]:
        return restored(shown, hello, instead)

    def planned(self, snapshot: Snapshot) -> bool:
        return snapshot.batch.batching is not None

    def configuration(self, snapshot: Snapshot, lab: str, theme: str, choice: Choice | None) -> BatchConfiguration | None:  # noqa: ARG002
        return configuration(snapshot, lab=lab, theme=theme)

    def inspected(self, snapshot: Snapshot) -> list[Section]:
        state = snapshot.batch
        if state.batching is None:
            return []
        return [("the work", whole(state)), *((f"batch {fmt.count(batch)}", facts(state, plan))
                                              for batch, plan in state.plans.items())]

    def readings(self, snapshot: Snapshot) -> list[str]:
        state = snapshot.batch
        if state.batching is None:
            return []
        wrong = [f"{kernel_title(state, kernel, kernel)} at batch {batch}" for (kernel, batch), check in state.checks.items()
                 if not check.ok]
        passed = [check.max_error for check in state.checks.values() if check.ok]
        said = [f"check FAILED: {', '.join(wrong)}"] if wrong else []
        said += [f"check passed ({fmt.error(max(passed))})"] if passed and not wrong else []
        said.append(state.batching.dtype)
        points = [point for of in state.points.values() for point in of.values()]
        if points:
            said.append(median_words([point.stats.n for point in points]))
            said.append(", ".join(sorted({point.provenance for point in points})))
        return said

    def check(self, hello: Hello, choice: BatchChoice, asked: Mapping[str, Any]) -> None:
        asked_choice(choice, asked.get("batching", {}), hello.models)

    def settled(self, snapshot: Snapshot) -> bool:
        state = snapshot.batch
        return bool(state.plans) and all(
            plan.batch in state.points[kernel] for kernel in state.kernels for plan in state.running(kernel))

    def failed(self, snapshot: Snapshot) -> bool:
        state = snapshot.batch
        return any(not check.ok for check in state.checks.values()) or (
            bool(state.plans) and not any(state.running(kernel) for kernel in state.kernels))

    def report(self, shown: BatchConfiguration) -> Table:
        table = plain_table("batch", "kernel", "median", UNITS[shown.batching.work], "FLOP/B", "of product", "of read", "")
        for row in sorted(shown.points, key=lambda row: row.batch):
            table.add_row(
                fmt.count(row.batch), row.title, fmt.time_ns(row.time_p50_ns), fmt.significant(row.per_s),
                fmt.significant(row.intensity), fmt.percent(row.flops_fraction), fmt.percent(row.bytes_fraction), row.note)
        return table


def whole(state: BatchState) -> list[tuple[str, str]]:
    """What is known of all batch sizes together, as label and value."""
    assert state.batching is not None
    fixed, bend, rows = parts(state.batching, 1)[0], knee(state), list[tuple[str, str]]()
    rows.append((fixed.name, fmt.bytes_iec(fixed.size)))
    if state.ceilings is not None:
        rows += [(f"product, {found(state)}", fmt.quantity(state.ceilings.flops_per_s, "FLOP/s")),
                 (f"read, {found(state)}", fmt.rate(state.ceilings.bytes_per_s)),
                 ("ridge", f"{fmt.significant(state.ceilings.flops_per_s / state.ceilings.bytes_per_s)} FLOP/B")]
    rows += [("knee, predicted", fmt.count(bend.predicted)), (f"knee, {found(state)}", fmt.count(bend.measured))]
    refused = ((kernel, state.refused_everywhere(kernel)) for kernel in state.kernels)
    return [*rows, *((kernel_title(state, kernel, kernel), f"refused: {reason}") for kernel, reason in refused if reason)]


def facts(state: BatchState, plan: BatchPlan) -> list[tuple[str, str]]:
    """What is known of a batch size; its times stand in the plots."""
    assert state.batching is not None
    rows = [("work", fmt.quantity(plan.flops, "FLOP")),
            *((part.name, fmt.bytes_iec(part.size)) for part in parts(state.batching, plan.batch)[1:]),
            ("intensity", f"{fmt.significant(intensity(state, plan.batch))} FLOP/B")]
    if plan.programs is not None:
        rows.append(("programs", f"{fmt.count(plan.programs)} of {plan.rows} rows"))
    rows.append(("peak memory", fmt.bytes_iec(plan.peak_memory_bytes)))
    for kernel in state.kernels:
        if (reason := state.refusals.get((kernel, plan.batch))) is not None and not state.refused_everywhere(kernel):
            return [*rows, ("refused", reason)]
    return rows


BATCHINGS = Batchings()
