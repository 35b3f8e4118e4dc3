"""When programs ran: on which SM, from when to when, and when their steps ended. Measured or modelled, in one form.

Memory is in proportion to programs: those whose steps are alike share a pattern, in which the steps of a loop are affine, and
steps are expanded on demand. In a measured timeline every piece of a pattern has one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Numbers = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NEAR_NS = 1e-3          # picoseconds: what times, added up in another order, may differ in
MOST_STEPS = 1 << 26    # of a program
AT_ONCE = 1 << 20       # steps that are looked at together


class Span(Struct, frozen=True):
    """A launch: from its start to its last program's end, and how many programs it has."""

    name: str
    start_ns: float
    end_ns: float
    programs: int


@dataclass(frozen=True, eq=False)
class Steps:
    """When the steps of programs end, as shares of the time that a program takes.

    Pattern p has pieces `begins[p]` to `begins[p + 1]`. A piece is an op of a loop: its step number `step + i * hop` ends at
    `first + i * stride`, for i below `count`.

    Attributes:
        begins: [patterns + 1], from 0 up.
        op: of the launch's ops in the order of its body, which it is; -1 where that is not known: [pieces].
        step, hop, count: [pieces]. first, stride: shares: [pieces].
    """

    begins: Ints
    op: Ints
    step: Ints
    hop: Ints
    count: Ints
    first: Floats
    stride: Floats

    def of(self, patterns: Ints) -> tuple[Ints, Ints]:
        """The pieces of these patterns, one after the other, and of each to which of them, by its place, it belongs."""
        owner, within = _each(self.begins[patterns + 1] - self.begins[patterns])
        return self.begins[patterns][owner] + within, owner

    def expanded(self, patterns: Ints) -> tuple[Ints, Ints, Ints, Floats]:
        """All steps of these patterns: to which of them each belongs, its number, its op, the share at which it ends."""
        pieces, owner = self.of(patterns)
        piece, turn = _each(self.count[pieces])
        each = pieces[piece]
        owners, numbers = owner[piece], self.step[each] + turn * self.hop[each]
        order = np.lexsort((numbers, owners))
        shares = self.first[each] + turn * self.stride[each]
        return owners[order], numbers[order], self.op[each][order], shares[order]


@dataclass(frozen=True, eq=False)
class Timeline:
    """Launches of one execution, one after the other, and their programs, in launch order.

    Attributes:
        device: as people call it. sms: its SMs, of which some may have stood still.
        source: what the times were taken from. clock_hz: of the SMs; None where that is not known.
        resolution_ns: of the clock that was read; 0 where none was.
        sm, slot: where each program ran, and which of those that share the SM it was: [programs].
        start_ns, end_ns: since the execution began: [programs].
        pattern: of `steps`: [programs].
    """

    kernel: str
    device: str
    sms: int
    provenance: Literal["measured", "modelled"]
    source: str
    clock_hz: float | None
    resolution_ns: float
    launches: tuple[Span, ...]
    sm: Numbers
    slot: Numbers
    start_ns: Floats
    end_ns: Floats
    pattern: Numbers
    steps: Steps

    @property
    def programs(self) -> int:
        """Of all launches."""
        return len(self.sm)

    @property
    def duration_ns(self) -> float:
        """From the beginning of the execution to the end of its last launch."""
        return max((span.end_ns for span in self.launches), default=0.0)

    def running(self, at_ns: float) -> Ints:
        """The programs that run at that time."""
        return np.flatnonzero((self.start_ns <= at_ns) & (at_ns < self.end_ns))

    def lanes(self, sm: int) -> tuple[Ints, ...]:
        """The programs of each slot of an SM, one after the other."""
        mine = np.flatnonzero(self.sm == sm)
        mine = mine[np.lexsort((self.start_ns[mine], self.slot[mine]))]
        return tuple(np.split(mine, np.flatnonzero(np.diff(self.slot[mine])) + 1)) if len(mine) else ()

    def step_ends_ns(self, program: int) -> Floats:
        """When each step of a program ended: [steps]."""
        *_, shares = self.steps.expanded(self.pattern[[program]].astype(np.int64))
        found: Floats = self.start_ns[program] + shares * (self.end_ns[program] - self.start_ns[program])
        return found

    def steps_in(self, from_ns: float, to_ns: float) -> tuple[Ints, Ints, Ints, Floats]:
        """The steps that end in [from_ns, to_ns): program, number, op and end of each, program by program."""
        those = np.flatnonzero((self.start_ns < to_ns) & (self.end_ns >= from_ns))
        pieces, owner = self.steps.of(self.pattern[those].astype(np.int64))
        program = those[owner]
        long = self.end_ns[program] - self.start_ns[program]
        first, stride = self.start_ns[program] + self.steps.first[pieces] * long, self.steps.stride[pieces] * long
        moves, count = stride > 0, self.steps.count[pieces]
        low, high = (np.divide(at - first, stride, out=np.zeros_like(first), where=moves) for at in (from_ns, to_ns))
        begin = np.clip(np.floor(low), 0, count).astype(np.int64)  # one more than those at either side, for rounding
        stop = np.where(moves, np.clip(np.floor(high) + 2, begin, count), count).astype(np.int64)
        piece, turn = _each(stop - begin)
        turn, each = turn + begin[piece], pieces[piece]
        ends = first[piece] + turn * stride[piece]
        numbers, inside = self.steps.step[each] + turn * self.steps.hop[each], (from_ns <= ends) & (ends < to_ns)
        found = program[piece][inside], numbers[inside], self.steps.op[each][inside], ends[inside]
        order = np.lexsort(found[1::-1])
        return found[0][order], found[1][order], found[2][order], found[3][order]

    def busy(self, level: int) -> Floats:
        """Of each SM, the share of each 2^level ns in which a program ran, from 0 on: [sms, bins].

        A level is the means of neighbours of the one below it, `coarser`: those are the levels to draw from.
        """
        bins = int(np.ceil(self.duration_ns / 2.0**level)) or 1
        edges = np.arange(bins + 1) * 2.0**level
        found: Floats = np.zeros((self.sms, bins))
        for sm, (starts, ends) in enumerate(self._stretches()):
            if len(starts):
                done = np.concatenate(([0.0], np.repeat(np.cumsum(ends - starts), 2)[:-1]))
                found[sm] = np.diff(np.interp(edges, np.stack((starts, ends), axis=1).reshape(-1), done)) / 2.0**level
        return found

    @property
    def busy_share(self) -> float:
        """Of the time of all SMs, that in which a program ran."""
        whole = self.sms * self.duration_ns
        return sum(float((ends - starts).sum()) for starts, ends in self._stretches()) / whole if whole else 0.0

    def _stretches(self) -> list[tuple[Floats, Floats]]:
        """Of each SM, from when to when any program ran on it."""
        order = np.lexsort((self.start_ns, self.sm))
        cuts = np.searchsorted(self.sm[order], np.arange(self.sms + 1))
        found = []
        for low, high in pairwise(cuts):
            starts, until = self.start_ns[order[low:high]], np.maximum.accumulate(self.end_ns[order[low:high]])
            begins = np.concatenate(([True], starts[1:] > until[:-1]))[: len(starts)]
            found.append((starts[begins], until[np.append(begins[1:], True)] if len(starts) else until))
        return found

    def validate(self) -> list[str]:
        """What is wrong with it, in sentences; empty where nothing is."""
        return _wrong_shapes(self) or _wrong_programs(self) + _wrong_steps(self.steps)


def coarser(busy: Floats) -> Floats:
    """The next level of `Timeline.busy`: half as many bins, each twice as wide: [sms, bins]."""
    even = np.pad(busy, ((0, 0), (0, busy.shape[1] % 2)))
    found: Floats = (even[:, ::2] + even[:, 1::2]) / 2
    return found


def _each(counts: Ints) -> tuple[Ints, Ints]:
    """For each of so many of each: of which, and the how manieth of it."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _wrong_shapes(line: Timeline) -> list[str]:
    steps = line.steps
    pieces = (steps.op, steps.step, steps.hop, steps.count, steps.first, steps.stride)
    begins, patterns = steps.begins, len(steps.begins) - 1
    if sum(span.programs for span in line.launches) != line.programs:
        return ["the launches have another number of programs than there are"]
    if len({len(each) for each in (line.sm, line.slot, line.start_ns, line.end_ns, line.pattern)}) > 1:
        return ["the columns of the programs differ in length"]
    if patterns < 0 or begins[0] or (np.diff(begins) < 0).any() or any(len(each) != begins[-1] for each in pieces):
        return ["the patterns do not cut the pieces of steps one after the other"]
    if line.programs and not 0 <= line.pattern.min() <= line.pattern.max() < patterns:
        return [f"a program's steps follow a pattern of which there are {patterns}"]
    if line.programs and not 0 <= line.sm.min() <= line.sm.max() < line.sms:
        return [f"a program ran on an SM of which there are {line.sms}"]
    if not all(np.isfinite(each).all() for each in (line.start_ns, line.end_ns, steps.first, steps.stride)):
        return ["a time is no number"]
    return []


def _wrong_programs(line: Timeline) -> list[str]:
    found, near = [], max(NEAR_NS, line.resolution_ns)
    if len(late := np.flatnonzero(line.end_ns < line.start_ns)):
        found.append(f"program {late[0]} ends before it starts")
    order = np.lexsort((line.start_ns, line.slot, line.sm))
    one, two = order[:-1], order[1:]
    met = (line.sm[one] == line.sm[two]) & (line.slot[one] == line.slot[two]) & (line.start_ns[two] < line.end_ns[one] - near)
    if len(pairs := np.flatnonzero(met)):
        at = pairs[0]
        found.append(f"programs {one[at]} and {two[at]} run in slot {line.slot[one[at]]} of SM {line.sm[one[at]]} at once")
    begin = 0
    for span in line.launches:
        starts, ends = (each[begin : begin + span.programs] for each in (line.start_ns, line.end_ns))
        begin += span.programs
        if span.programs and not (span.start_ns - near <= starts.min() and ends.max() <= span.end_ns + near):
            found.append(f"programs of {span.name} run outside of it")
    return found


def _wrong_steps(steps: Steps) -> list[str]:
    if (steps.count < 1).any() or (steps.step < 0).any() or (steps.hop < 0).any():
        return ["a piece of steps has none, or numbers them backwards"]
    each = np.diff(np.concatenate(([0.0], np.cumsum(steps.count, dtype=np.float64)))[steps.begins])
    if each.max(initial=0) > MOST_STEPS:
        return [f"a program has more than {MOST_STEPS:,} steps"]
    cuts = np.flatnonzero(np.diff(np.cumsum(each) // AT_ONCE)) + 1
    for low, high in pairwise((0, *cuts, len(each))):
        owner, number, _, shares = steps.expanded(np.arange(low, high))
        follows = owner[1:] == owner[:-1]
        if (number != _each(each[low:high].astype(np.int64))[1]).any():
            return ["steps of a program are missing, or there twice"]
        if (shares[1:][follows] < shares[:-1][follows] - 1e-9).any():
            return ["steps of a program end in another order than they follow one another"]
        if len(shares) and not -1e-9 <= shares.min() <= shares.max() <= 1 + 1e-9:
            return ["a step ends outside of its program"]
    return []
