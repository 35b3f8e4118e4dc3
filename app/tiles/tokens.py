"""Decoding as a grid of tokens: what each step computes, computes again and reads; and the pages of a paged cache. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from app.decoding.facts import Pages, computed, pages, read
from kernels.contract.workload import PAGE

PROMPT, TOKENS = 4, 12              # of the grid that is drawn
STEPS = TOKENS - PROMPT + 1         # the prompt is the first
SPEEDS, DEFAULT_SPEED = (1, 2, 4, 8), 2     # steps a second
POOL, BLOCKS = 24, 12               # physical pages that are drawn, and logical blocks of one sequence
SHUFFLE = 7                         # of the pages: the same on every machine


class Row(NamedTuple):
    """One step of the grid: which positions are computed for the first time, computed again, read from the cache."""

    new: range
    again: range
    read: range

    @property
    def tokens(self) -> int:
        """Tokens that the sequence holds after it."""
        return self.new.stop

    @property
    def worked(self) -> int:
        """Positions whose q, k and v it computes."""
        return len(self.new) + len(self.again)


def row(step: int, cached: bool) -> Row:
    """The step of that number, the prompt being step 0."""
    new = range(PROMPT) if step == 0 else range(PROMPT + step - 1, PROMPT + step)
    before, none = range(new.start), range(0)
    return Row(new, none, before) if cached else Row(new, before, none)


class Counts(NamedTuple):
    """Tokens whose k and v were computed and were read from the cache, so far."""

    computed: int
    read: int


def counts(prompt: int, position: int, cached: bool) -> Counts:
    """Of a sequence of `position` tokens, the last of them only chosen, the first `prompt` from one step."""
    return Counts(computed(prompt, position, cached), read(prompt, position, cached))


@dataclass
class Clock:
    """Where the play stands: `step` from 0 to STEPS - 1, and how many cells of it are lit. Both sides share it."""

    step: int = 0
    lit: float = float(TOKENS)
    playing: bool = False
    speed: float = float(DEFAULT_SPEED)
    reduced: bool = False
    _due: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it stands at the last step."""
        return self.step == STEPS - 1

    @property
    def still(self) -> bool:
        """Whether all cells of the step are lit."""
        return self.lit >= TOKENS

    def go(self, step: int) -> bool:
        """To a step; its cells light up one after another where it is the next. Whether that is another."""
        step = min(max(step, 0), STEPS - 1)
        moved = step != self.step
        if moved:
            onward = step == self.step + 1 and not self.reduced
            self.step, self.lit = step, 0.0 if onward else float(TOKENS)
        return moved

    def advance(self, dt_s: float) -> bool:
        """Time passes; whether something changed. Half of a step's time its cells light up, then it rests."""
        changed = not self.still
        self.lit = min(float(TOKENS), self.lit + 2 * TOKENS * self.speed * dt_s)
        if self.playing:
            self._due += dt_s * self.speed
            while self._due >= 1 and self.playing:
                self._due -= 1
                changed = self.go(self.step + 1) or changed
                if self.ended:
                    self.playing, self._due = False, 0.0
        return changed


class Page(NamedTuple):
    """A physical page: the logical block that it holds, None where it is free, and how many of its slots are used."""

    block: int | None
    used: int


class BlockTable(NamedTuple):
    """The newest blocks of a sequence: `first` is the number of the first that is drawn; `physical` where each lies."""

    held: Pages
    first: int
    physical: tuple[int, ...]

    def pool(self) -> list[Page]:
        """All physical pages that are drawn."""
        found = [Page(None, 0)] * POOL
        for at, page in enumerate(self.physical):
            block = self.first + at
            found[page] = Page(block, min(PAGE, self.held.used - PAGE * block))
        return found


def block_table(tokens: int) -> BlockTable:
    """Of a sequence of so many tokens. A block keeps its page as the sequence grows."""
    held = pages(max(1, tokens))
    first = max(0, held.pages - BLOCKS)
    order = Random(SHUFFLE).sample(range(POOL), POOL)
    return BlockTable(held, first, tuple(order[block % POOL] for block in range(first, held.pages)))
