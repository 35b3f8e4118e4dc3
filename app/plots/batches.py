"""What the plots of a batching share: a kernel's mark, the axis of batch sizes, the knee, and why there is no time."""

from __future__ import annotations

import numpy as np

from app import format as fmt
from app.batching.facts import found, kernel_title, knee
from app.batching.state import BatchState
from app.plots.facets import Curve, Upright
from app.plots.rows import Scale
from app.series import FloatArray
from app.store import Snapshot
from app.theme import Mark, Theme
from engine.batching.work import predicted_ns
from engine.protocol import Provenance

EDGE = 1.2          # how far the axis reaches beyond the first and the last batch
FINE = 0.25         # octaves between two points of a prediction


def kernel_mark(theme: Theme, state: BatchState, kernel: str, provenance: Provenance = "measured") -> Mark:
    """Hue, dash and marker of a kernel, the same in every plot."""
    return theme.mark(state.hues.get(kernel, len(state.hues)), provenance)


def titles(snapshot: Snapshot) -> dict[str, str]:
    """kernel -> what it is called."""
    state = snapshot.batch
    return {kernel: kernel_title(state, kernel, snapshot.title(kernel)) for kernel in state.kernels}


def batch_scale(state: BatchState) -> Scale:
    """Logarithmic, a tick at each batch size; every second is labelled, the last one among them."""
    batches = list(state.plans)
    ticks = tuple((float(batch), "" if (len(batches) - at) % 2 == 0 else fmt.count(batch)) for at, batch in enumerate(batches))
    return Scale(batches[0] / EDGE, batches[-1] * EDGE, True, ticks)


def uprights(state: BatchState) -> tuple[Upright, ...]:
    """The knee, predicted and measured."""
    bend, lines = knee(state), list[Upright]()
    for name, value, dashed in (("predicted", bend.predicted, True), (found(state), bend.measured, False)):
        if value is not None:
            lines.append(Upright(value, (f"knee {name} {fmt.count(value)}", f"{name} {fmt.count(value)}", fmt.count(value)),
                                 dashed))
    return tuple(lines)


def prediction(theme: Theme, state: BatchState) -> tuple[FloatArray, FloatArray, Mark] | None:
    """The roofline's time of batch sizes between the first and the last: batches, ns and how it is drawn; None as yet."""
    if state.batching is None or state.ceilings is None:
        return None
    low, high = min(state.plans), max(state.plans)
    steps = np.exp2(np.arange(np.log2(low), np.log2(high) + FINE / 2, FINE))
    batches = sorted({round(step) for step in steps.tolist()} | set(state.plans))
    top = state.ceilings
    times = [predicted_ns(state.batching, batch, top.flops_per_s, top.bytes_per_s) for batch in batches]
    return np.array(batches, float), np.array(times), Mark(theme["muted"], tuple(theme.dash(0, "modelled")), filled=False)


def curve(
    theme: Theme, snapshot: Snapshot, kernel: str, y: FloatArray, values: tuple[str, ...] = ("",),
    spread: tuple[FloatArray, FloatArray] | None = None,
) -> Curve:
    """Of a kernel over its batch sizes, a marker at each."""
    state = snapshot.batch
    points = state.points[kernel]
    kind = next(iter(points.values())).provenance
    return Curve(titles(snapshot)[kernel], kernel_mark(theme, state, kernel, kind), np.array(list(points), float), y, values,
                 dotted=True, spread=spread, width=2.0)


def measured(state: BatchState) -> list[str]:
    """The kernels that have a time."""
    return [kernel for kernel in state.kernels if state.points.get(kernel)]


def no_time(state: BatchState, kernel: str, batch: int) -> str:
    """Why a kernel has no time at a batch size, in a word or two; empty where it has one."""
    if batch in state.points.get(kernel, {}):
        return ""
    if (check := state.checks.get((kernel, batch))) is not None and not check.ok:
        return "check failed"
    return "refused" if (kernel, batch) in state.refusals else fmt.NA
