"""When the steps of programs end, as shares of a program's time: patterns of those that are alike, loops as affine pieces.

Steps follow one another as they stand in the body: a load that runs ahead ends where it is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.simulator.sharing import Floats
from kernels.contract.expr import Ints, const, evaluate, variables
from kernels.contract.schedule import Loop, TileOp
from kernels.contract.series import Runs
from kernels.contract.walk import ops_of, tables_of

Number = TypeVar("Number", np.int64, np.float64)
Body = tuple[TileOp | Loop, ...]
AGAIN = "repeat"  # what counts the times that a whole body is gone through


@dataclass(frozen=True)
class Pieces:
    """As `Steps` of engine/timeline.py, of one launch; of each run of programs that are alike there are `sizes`: [runs]."""

    sizes: Ints
    op: Ints
    step: Ints
    hop: Ints
    count: Ints
    first: Floats
    stride: Floats


@dataclass(frozen=True)
class _Place:
    """Where programs are that go through a body: of which run each is, its variables, steps and seconds before: [places]."""

    run: Ints
    env: Mapping[str, Ints]
    step: Ints
    begin: Floats


def pieces_of(runs: Runs, seconds: tuple[Floats, ...]) -> Pieces:
    """The patterns of a launch, one for each run of its programs, in the order of the body.

    Args:
        seconds: what each op takes of a program of each run, all its steps together, as `Series.values`.
    """
    launch, count = runs.launch, runs.sizes.size
    body: Body = launch.body
    if launch.repeat > 1:
        body = (Loop(var=AGAIN, last=const(launch.repeat), body=body),)
    walk = _Walk(runs, seconds)
    begin = _Place(np.arange(count), runs.points, np.zeros(count, dtype=np.int64), np.zeros(count))
    walk.through(body, 0, begin)
    run, op, step, hop, times, first, stride = (np.concatenate(column) for column in zip(*walk.found, strict=True))
    order, whole = np.argsort(run, kind="stable"), walk.size(body, 0, begin)[1][run]
    shares = (np.divide(each, whole, out=np.full(len(run), at_once), where=whole > 0)
              for each, at_once in ((first, 1.0), (stride, 0.0)))  # steps that take no time end with their program
    return Pieces(np.bincount(run, minlength=count), *(each[order] for each in (op, step, hop, times, *shares)))


class _Walk:
    """Goes through a body with all runs at once, and leaves a piece for each op."""

    def __init__(self, runs: Runs, seconds: tuple[Floats, ...]) -> None:
        self._tables = tables_of(runs.schedule)
        self._seconds = [np.divide(mine, counted.times, out=np.zeros(mine.shape), where=counted.times > 0).reshape(-1)
                         for mine, counted in zip(seconds, runs.ops, strict=True)]
        self.found: list[tuple[Ints, Ints, Ints, Ints, Ints, Floats, Floats]] = []

    def size(self, body: Body, number: int, at: _Place) -> tuple[Ints, Floats]:
        """Steps and seconds of a body whose first op has that number: [places]."""
        steps, seconds = np.zeros_like(at.step), np.zeros_like(at.begin)
        for item in body:
            if isinstance(item, TileOp):
                steps, seconds = steps + 1, seconds + self._seconds[number][at.run]
                number += 1
                continue
            count, inside, owner = self._turns(item, at, _uneven(item))
            each, long = self.size(item.body, number, inside)
            if owner is None:
                steps, seconds = steps + count * each, seconds + count * long
            else:
                steps = steps + np.bincount(owner, each, len(steps)).astype(np.int64)
                seconds = seconds + np.bincount(owner, long, len(steps))
            number += _ops(item.body)
        return steps, seconds

    def through(self, body: Body, number: int, at: _Place) -> None:
        """Leaves the pieces of a body whose first op has that number."""
        step, begin = at.step, at.begin
        for item in body:
            if isinstance(item, TileOp):
                begin = begin + self._seconds[number][at.run]
                self._leave(at.run, number, step, np.zeros_like(step), np.ones_like(step), begin, np.zeros_like(begin))
                step, number = step + 1, number + 1
                continue
            here = _Place(at.run, at.env, step, begin)
            steps, seconds = self.size((item,), number, here)
            flat = all(isinstance(each, TileOp) for each in item.body)
            count, inside, owner = self._turns(item, here, not flat)
            if owner is None:
                self._loop(item, number, inside, count)
            else:
                each, long = self.size(item.body, number, inside)
                self.through(item.body, number, _Place(
                    inside.run, inside.env, inside.step + _before(each, owner), inside.begin + _before(long, owner)))
            step, begin, number = step + steps, begin + seconds, number + _ops(item.body)

    def _loop(self, loop: Loop, number: int, at: _Place, count: Ints) -> None:
        """A loop over nothing but ops, whose turns are all alike."""
        runs = count > 0
        run, step, times, begin = at.run[runs], at.step[runs], count[runs], at.begin[runs]
        stride = self.size(loop.body, number, at)[1][runs]
        for place in range(len(loop.body)):
            begin = begin + self._seconds[number + place][run]
            self._leave(run, number + place, step + place, np.full_like(step, len(loop.body)), times, begin, stride)

    def _turns(self, loop: Loop, at: _Place, apart: bool) -> tuple[Ints, _Place, Ints | None]:
        """How often a loop is gone through at each place, and the places in it: the first turn's, or each turn's `apart`, and
        then at which place each turn is."""
        first, last = (
            np.broadcast_to(evaluate(bound, at.env, self._tables), at.run.shape) for bound in (loop.first, loop.last))
        count: Ints = np.maximum(last - first, 0).astype(np.int64)
        if not apart:
            return count, _Place(at.run, {**at.env, loop.var: first}, at.step, at.begin), None
        owner = np.repeat(np.arange(len(count)), count)
        turn = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        env = {name: values[owner] for name, values in at.env.items()} | {loop.var: first[owner] + turn}
        return count, _Place(at.run[owner], env, at.step[owner], at.begin[owner]), owner

    def _leave(self, run: Ints, number: int, step: Ints, hop: Ints, count: Ints, first: Floats, stride: Floats) -> None:
        self.found.append((run, np.full_like(step, number), step, hop, count, first, stride))


def _uneven(loop: Loop) -> bool:
    """Whether its turns can differ in steps: loops in it hang on its variable."""
    return any(loop.var in variables(bound) for _, loops in ops_of(loop.body) for each in loops
               for bound in (each.first, each.last))


def _ops(body: Body) -> int:
    return sum(1 for _ in ops_of(body))


def _before(sizes: npt.NDArray[Number], owner: Ints) -> npt.NDArray[Number]:
    """The sum of those of the same owner that come before each."""
    done: npt.NDArray[Number] = np.concatenate((np.zeros(1, dtype=sizes.dtype), np.cumsum(sizes)))
    found: npt.NDArray[Number] = done[:-1] - done[np.searchsorted(owner, owner)]
    return found
