"""When programs run: each goes, in launch order, to the first SM with room, and shares it with those that are there."""

from __future__ import annotations

import heapq

import numpy as np

from engine.simulator.sharing import Floats

SIMULATED = 1 << 14  # programs that are placed one by one; of more, those before the last so many are taken to fill all SMs


def makespan(times: Floats, sms: int) -> float:
    """Seconds from the first program's start to the last one's end.

    Args:
        times: seconds of each program, in launch order, where 1, 2, ... share its SM all the while: [room, programs].
    """
    room, count = times.shape
    filled = 0.0
    if count > SIMULATED + sms * room:
        before = count - SIMULATED
        before -= before % (sms * room)
        filled, times = float(times[-1, :before].sum()) / (sms * room), times[:, before:]
    return filled + _placed(times, sms)


def _placed(times: Floats, sms: int) -> float:
    """One by one: between two events of an SM each of its programs goes on at the pace that so many leave it."""
    (room, count), paced = times.shape, times.tolist()
    left: list[dict[int, float]] = [{} for _ in range(sms)]  # of each program there, the share that is to be done
    seen = [0.0] * sms
    following = min(count, sms * room)
    for number in range(following):
        left[number % sms][number] = 1.0
    coming: list[tuple[float, int]] = []

    def ask(sm: int, now: float) -> None:
        if mine := left[sm]:
            paces = paced[len(mine) - 1]
            heapq.heappush(coming, (now + min(rest * paces[number] for number, rest in mine.items()), sm))

    for sm in range(sms):
        ask(sm, 0.0)
    now = 0.0
    while coming:
        now, sm = heapq.heappop(coming)
        mine, passed = left[sm], now - seen[sm]
        paces, seen[sm] = paced[len(mine) - 1], now
        ended = min(mine, key=lambda number: mine[number] * paces[number])
        del mine[ended]
        for number in mine:
            mine[number] = max(0.0, mine[number] - passed / paces[number])
        if following < count:
            mine[following] = 1.0
            following += 1
        ask(sm, now)
    return now


def dealt(times: Floats, programs: int) -> Floats:
    """Seconds of each of so many resident programs, of which each takes every so-manieth item: [room, programs]."""
    room, count = times.shape
    whole = np.zeros((room, -(-count // programs) * programs))
    whole[:, :count] = times
    sums: Floats = whole.reshape(room, -1, programs).sum(axis=1)
    return sums
