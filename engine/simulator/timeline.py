"""The modelled timeline: what a prediction was made of, in the very form of a measured one.

Launches and the gaps between them are as long as the prediction says: what the L2 and HBM add slows all programs of a launch
alike. Within a program all goes at one pace, and each op takes its share of what it asks for.
"""

from __future__ import annotations

import numpy as np

from engine.simulator import placing, work
from engine.simulator.figures import DeviceSpec
from engine.simulator.placing import Placed
from engine.simulator.prediction import Played, Prediction, play
from engine.simulator.sharing import Floats
from engine.simulator.steps import Pieces, pieces_of
from engine.timeline import Span, Steps, Timeline
from kernels.contract import Schedule

NANO = 1e9


def timeline(
    schedule: Schedule, spec: DeviceSpec, clock_hz: float | None = None, *, cold: bool = False
) -> tuple[Timeline, Prediction]:
    """As `prediction.predict`, and with the prediction.

    Raises:
        Unpredictable: a program of a launch is larger than an SM.
    """
    clock = clock_hz or spec.clock_hz
    prediction, played = play(schedule, spec, clock, cold=cold)
    spans, programs, patterns, parts = [], [], [], []
    at, told = 0.0, 0
    for one in played:
        at += spec.graph_launch_s
        runs, seconds = one.ready.runs, one.launched.seconds
        everyone = _everyone(one, spec.sms)
        stretch = seconds / one.end if one.end else 1.0
        last = np.minimum(everyone.end * stretch, seconds)  # but for rounding
        programs.append((everyone.sm, everyone.slot, at + np.minimum(everyone.start * stretch, last), at + last))
        weights = work.seconds_of_ops(runs, spec, clock, one.ready.together, one.ready.touched, one.ready.begun)
        parts.append(pieces_of(runs, weights))
        which = runs.series(np.arange(runs.sizes.size, dtype=np.int64).reshape(runs.sizes.shape))
        patterns.append(told + which.at(np.arange(runs.launch.programs, dtype=np.int64)))
        told += runs.sizes.size
        spans.append(Span(runs.launch.name, at * NANO, (at + seconds) * NANO, runs.launch.programs))
        at += seconds
    sm, slot, start, end = (np.concatenate(column) for column in zip(*programs, strict=True))
    return Timeline(
        kernel=schedule.kernel, device=spec.title, sms=spec.sms, provenance="modelled", source="simulator", clock_hz=clock,
        resolution_ns=0.0, launches=tuple(spans), sm=sm.astype(np.int32), slot=slot.astype(np.int32), start_ns=start * NANO,
        end_ns=end * NANO, pattern=np.concatenate(patterns).astype(np.int32), steps=_joined(parts),
    ), prediction


def _everyone(one: Played, sms: int) -> Placed:
    """All programs of a launch, in seconds before the L2 and HBM slow them."""
    count, room = one.ready.runs.launch.programs, one.ready.residents
    if one.in_turn:
        parts = [placing.in_turn(one.placed, _full_pace(one, 0, count))]
    else:
        parts = [placing.filling(_full_pace(one, 0, one.before), room, sms, one.filled), one.placed.later(one.filled)]
    return Placed(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("sm", "slot", "start", "end"))).later(
        one.begin)


def _full_pace(one: Played, first: int, last: int) -> Floats:
    """Seconds of programs where their SM is full."""
    return one.times[-1].at(np.arange(first, last, dtype=np.int64)) / work.PICO


def _joined(parts: list[Pieces]) -> Steps:
    """The patterns of all launches, one launch after the other."""
    counts = np.concatenate([each.sizes for each in parts])
    columns = {name: np.concatenate([getattr(each, name) for each in parts])
               for name in ("op", "step", "hop", "count", "first", "stride")}
    return Steps(begins=np.concatenate(([0], np.cumsum(counts))), **columns)
