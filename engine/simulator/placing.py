"""When programs run: each goes, in launch order, to the first SM with room, and shares it with those that are there.

While programs wait, whoever ends is followed at once: every SM holds as many as it has room for, and each of its slots goes on
by itself. That is list scheduling on all slots. When none waits any more SMs run dry, evenly, and those that are left go on at
the pace that the fullest SM leaves its own: who is left beside whom is not known of a GPU either.

So it holds that shorter programs, or more SMs, never end later: slots are free no later, one by one (Graham 1969, whose
anomalies need programs that wait for others), at any time no more programs are left, and a program goes no slower for that.
Were it told apart which SM runs dry first, shorter programs could meet on one SM that were apart, and end some percent later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.simulator.sharing import Floats
from kernels.contract.expr import Ints

SIMULATED = 1 << 14  # programs that are placed one by one; of more, those before the last so many are taken to fill all SMs


@dataclass(frozen=True)
class Placed:
    """Programs in launch order: [programs] each.

    Attributes:
        sm: where each runs. slot: which of those that share the SM it is.
        start, end: seconds from the first one's start.
    """

    sm: Ints
    slot: Ints
    start: Floats
    end: Floats

    @property
    def makespan(self) -> float:
        """Seconds from the first program's start to the last one's end."""
        return float(self.end.max(initial=0.0))

    def later(self, seconds: float) -> Placed:
        """The same, so much later."""
        return Placed(self.sm, self.slot, self.start + seconds, self.end + seconds)


def full(count: int, at_once: int) -> int:
    """Of so many programs, the first that are taken to fill all SMs, where more are than are placed one by one."""
    return 0 if count <= SIMULATED + at_once else (count - SIMULATED) // at_once * at_once


def placed(times: Floats, paces: Floats, sms: int) -> Placed:
    """Each program on its own. Of the slots that are free at once the first of every SM comes first.

    Args:
        times: seconds of each program, in launch order, were its SM full all the while: [programs].
        paces: of that, the share that a program takes where 1, 2, ... share its SM, at last 1: [room].
    """
    count, lanes = len(times), len(paces) * sms
    lane, start = np.arange(count, dtype=np.int64), np.zeros(count)  # slot s on SM m is lane s * sms + m
    free: Floats = np.zeros(lanes)
    following = 0
    while following < count:
        order = np.argsort(free, kind="stable")[: count - following]
        begin = free[order]
        ends = begin + times[following : following + len(order)]
        # who comes next takes the lane that is free next, until one is free before it that was taken just now
        late = np.minimum.accumulate(ends)[:-1] < begin[1:]
        taken = int(late.argmax()) + 1 if late.any() else len(order)
        those = slice(following, following + taken)
        lane[those], start[those], free[order[:taken]] = order[:taken], begin[:taken], ends[:taken]
        following += taken
    return Placed(lane % sms, lane // sms, start, _run_dry(start + times, paces, sms))


def _run_dry(ends: Floats, paces: Floats, sms: int) -> Floats:
    """When programs end that would end then were their SMs full all the while: the fewer are left, the faster they go on."""
    order = np.argsort(ends, kind="stable")
    left = np.arange(len(ends), 0, -1)  # that have not ended, before each end
    crowd = np.minimum(-(-left // sms), len(paces))
    found = np.empty_like(ends)
    found[order] = np.cumsum(np.diff(ends[order], prepend=0.0) * paces[crowd - 1])
    return found


def dealt(times: Floats, programs: int) -> Floats:
    """Seconds of each of so many resident programs, of which each takes every so-manieth item: [programs]."""
    found: Floats = _rounds(times, programs).sum(axis=0)
    return found


def _rounds(times: Floats, programs: int) -> Floats:
    """Of the items of each resident program, one after the other: [rounds, programs]."""
    whole = np.zeros(-(-len(times) // programs) * programs)
    whole[: len(times)] = times
    return whole.reshape(-1, programs)


def filling(times: Floats, room: int, sms: int, seconds: float) -> Placed:
    """Programs that are taken to fill all SMs for so long: wave by wave each goes where a slot is free first, and the programs
    of each slot are stretched so that all slots end together.

    Args:
        times: seconds of each where its SM is full, whole waves of them: [programs].
    """
    lanes = room * sms
    lane, start, free = np.empty(len(times), dtype=np.int64), np.empty(len(times)), np.zeros(lanes)
    for begin in range(0, len(times), lanes):
        wave, order = slice(begin, begin + lanes), np.argsort(free, kind="stable")
        lane[wave], start[wave] = order, free[order]
        free[order] += times[wave]
    stretch = seconds / np.where(free > 0, free, 1.0)
    return Placed(lane % sms, lane // sms, start * stretch[lane], (start + times) * stretch[lane])


def in_turn(residents: Placed, times: Floats) -> Placed:
    """Items of resident programs, of which each takes every so-manieth, one after the other.

    Args:
        times: seconds of each item where its SM is full: [items].
    """
    count, programs = len(times), len(residents.sm)
    done = _rounds(times, programs).cumsum(axis=0)
    pace = (residents.end - residents.start) / np.where(done[-1] > 0, done[-1], 1.0)
    ends = residents.start + done * pace
    starts = np.concatenate((residents.start[None], ends[:-1]))
    who = np.arange(count) % programs
    return Placed(residents.sm[who], residents.slot[who], starts.reshape(-1)[:count], ends.reshape(-1)[:count])
