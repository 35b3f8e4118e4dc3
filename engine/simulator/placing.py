"""When programs run: each goes, in launch order, to the first SM with room, and shares it with those that are there."""

from __future__ import annotations

import heapq

import numpy as np

from engine.simulator.sharing import Floats

SAME = 1e-9          # of a time: what lies nearer together is at once
SIMULATED = 1 << 14  # programs that are placed one by one; of more, those before the last so many are taken to fill all SMs


def makespan(times: Floats, sms: int) -> float:
    """Seconds from the first program's start to the last one's end.

    Args:
        times: seconds of each program, in launch order, where 1, 2, ... share its SM all the while: [room, programs].
    """
    room, count = times.shape
    before = full(count, room * sms)
    filled: float = times[-1, :before].sum() / (sms * room)
    return float(filled + _placed(times[:, before:], sms))


def full(count: int, at_once: int) -> int:
    """Of so many programs, the first that are taken to fill all SMs, where more are than are placed one by one."""
    return 0 if count <= SIMULATED + at_once else (count - SIMULATED) // at_once * at_once


def _placed(times: Floats, sms: int) -> float:
    """One by one: between two events of an SM each of its programs goes on at the pace that so many leave it. Of SMs that have
    room at once the emptiest is first."""
    (room, count), paced = times.shape, times.tolist()
    left: list[dict[int, float]] = [{} for _ in range(sms)]  # of each program there, the share that is to be done
    seen, following, now = [0.0] * sms, 0, 0.0
    coming: list[tuple[float, int]] = []
    freed = list(range(sms))
    while freed:
        emptiest = [(len(left[sm]), sm) for sm in freed if len(left[sm]) < room]
        heapq.heapify(emptiest)
        while emptiest and following < count:
            held, sm = heapq.heappop(emptiest)
            left[sm][following] = 1.0
            following += 1
            if held + 1 < room:
                heapq.heappush(emptiest, (held + 1, sm))
        for sm in freed:
            if mine := left[sm]:
                paces = paced[len(mine) - 1]
                heapq.heappush(coming, (now + min([rest * paces[number] for number, rest in mine.items()]), sm))
        freed = []
        if coming:
            now = coming[0][0]
        while coming and coming[0][0] <= now * (1 + SAME):
            _, sm = heapq.heappop(coming)
            mine, passed = left[sm], now - seen[sm]
            paces, seen[sm] = paced[len(mine) - 1], now
            rests = {number: rest - passed / paces[number] for number, rest in mine.items()}
            left[sm] = {number: rest for number, rest in rests.items() if rest > SAME}
            freed.append(sm)
    return now


def dealt(times: Floats, programs: int) -> Floats:
    """Seconds of each of so many resident programs, of which each takes every so-manieth item: [room, programs]."""
    room, count = times.shape
    whole = np.zeros((room, -(-count // programs) * programs))
    whole[:, :count] = times
    sums: Floats = whole.reshape(room, -1, programs).sum(axis=1)
    return sums
