"""When programs run: each goes, in launch order, to the first SM with room, and shares it with those that are there."""

from __future__ import annotations

import heapq

import numpy as np

from engine.simulator.sharing import Floats

SIMULATED = 1 << 15  # programs that are placed one by one; of more, those before the last so many are taken to fill all SMs


def makespan(alone: Floats, crowded: Floats, sms: int) -> float:
    """Seconds from the first program's start to the last one's end.

    Args:
        alone: seconds of each by itself, in launch order. crowded: how many times as long, where 1, 2, ... share an SM.
    """
    room, filled = len(crowded), 0.0
    if len(alone) > SIMULATED + sms * room:
        before = len(alone) - SIMULATED
        before -= before % (sms * room)
        filled, alone = float(alone[:before].sum()) * crowded[-1] / (sms * room), alone[before:]
    return filled + _placed(alone, crowded, sms)


def _placed(alone: Floats, crowded: Floats, sms: int) -> float:
    """One by one. An SM's own clock goes at the pace of its programs: by it each has the end that it would have alone."""
    room, count = len(crowded), len(alone)
    ends: list[list[float]] = [[] for _ in range(sms)]   # by the SM's own clock, a heap
    clocks, seen = [0.0] * sms, [0.0] * sms              # its own clock, and when that was read
    for number in range(min(count, sms * room)):
        heapq.heappush(ends[number % sms], float(alone[number]))
    coming = [(end[0] * crowded[len(end) - 1], sm) for sm, end in enumerate(ends) if end]
    heapq.heapify(coming)
    following, now = min(count, sms * room), 0.0
    while coming:
        now, sm = heapq.heappop(coming)
        mine = ends[sm]
        clocks[sm] += (now - seen[sm]) / crowded[len(mine) - 1]
        seen[sm] = now
        heapq.heappop(mine)
        if following < count:
            heapq.heappush(mine, clocks[sm] + float(alone[following]))
            following += 1
        if mine:
            heapq.heappush(coming, (now + (mine[0] - clocks[sm]) * crowded[len(mine) - 1], sm))
    return now


def dealt(alone: Floats, programs: int) -> Floats:
    """Seconds of each of so many resident programs, of which each takes every so-manieth item."""
    whole = np.zeros(-(-len(alone) // programs) * programs)
    whole[: len(alone)] = alone
    sums: Floats = whole.reshape(-1, programs).sum(axis=0)
    return sums
