"""What the step in focus touches: the tiles that lie in the slots, and where those tiles lie in their matrices. No Qt."""

from __future__ import annotations

from dataclasses import dataclass

from app.tiles.fills import head_of, matrix_shape
from app.tiles.track import KernelTrack, LaunchTrack, Place
from kernels.contract import Operand, Schedule, Slot
from kernels.contract.walk import Life, Step

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of one head's matrix of an operand, in elements; `label` counts in tiles: `K[6]`, `S[3,6]`."""

    operand: str
    rows: Range
    columns: Range
    label: str


@dataclass(frozen=True, slots=True)
class Held:
    """One copy of a slot at a step: its name (`K0`), what lies in it (`label` empty: nothing), and what the step does to it."""

    slot: Slot
    name: str
    label: str = ""
    tile: Tile | None = None
    read: bool = False
    written: bool = False


@dataclass(frozen=True, slots=True)
class Focus:
    """One program at one step. `step` is None before the first. `moved` is the tile that this step loads or stores."""

    step: Step | None
    held: tuple[Held, ...]
    moved: Tile | None
    head: int
    heads: int

    @property
    def touched(self) -> list[Tile]:
        """Tiles of matrices that the step reads or writes, in HBM or on the SM."""
        tiles = [held.tile for held in self.held if held.tile and (held.read or held.written)]
        return [*tiles, *([self.moved] if self.moved and self.moved not in tiles else [])]


def focus(track: KernelTrack, place: Place) -> Focus:
    """What the followed program has on the SM at a place."""
    launch, steps = track.launches[place.launch], track.steps(place)
    reading = _Reading(track.schedule, launch, steps, launch.lives(place.program))
    at = place.done - 1
    step = steps[at] if at >= 0 else None
    here = {(life.slot.name, life.ring): life for life in reading.lives if life.first <= at <= life.last}
    held = tuple(
        reading.held(slot, ring, here.get((slot.name, ring)), at) for slot in launch.launch.slots for ring in range(slot.copies)
    )
    moved = reading.loaded(step) if step is not None else None
    return Focus(step, held, moved, *_head(track.schedule, steps))


def _head(schedule: Schedule, steps: list[Step]) -> tuple[int, int]:
    """Which query head a program works on, from 0, and of how many: of its operands the one with most heads says it."""
    found = [head_of(schedule.operand(step.op.operand), step.box) for step in steps if step.op.operand]
    return max(found, key=lambda head: head[1], default=(0, 1))


class _Reading:
    """One program, read for what its slots hold."""

    def __init__(self, schedule: Schedule, launch: LaunchTrack, steps: list[Step], lives: list[Life]) -> None:
        self.schedule, self.launch, self.steps, self.lives = schedule, launch, steps, lives

    def held(self, slot: Slot, ring: int, life: Life | None, at: int) -> Held:
        """One copy of a slot at a step."""
        name = slot.name if slot.copies == 1 else f"{slot.name}{ring}"
        if life is None:
            return Held(slot, name)
        op, mine = self.steps[at].op, self.steps[at].ring % slot.copies == ring
        tile = self.tile(life, at)
        return Held(slot, name, tile.label if tile else slot.name, tile, mine and slot.name in op.reads,
                    mine and slot.name in op.writes)

    def loaded(self, step: Step) -> Tile | None:
        """The tile of a load or a store."""
        if not step.op.operand:
            return None
        operand, op = self.schedule.operand(step.op.operand), step.op
        rest = slice(2, None) if len(operand.shape) > 2 else slice(None)
        rows, *columns = step.box[rest]
        return _tile(operand, rows, columns[0] if columns else (0, 1), op.tile[rest])

    def tile(self, life: Life, at: int) -> Tile | None:
        """What lies in a slot after the step `at`: loaded, about to be stored, or computed from tiles that were read."""
        slot, last = life.slot, self.steps[life.last]
        for i in range(at, life.first - 1, -1):
            step = self.steps[i]
            if slot.name not in step.op.writes or step.ring % slot.copies != life.ring:
                continue
            if step.op.kind == "load":
                return self.loaded(step)
            if last.op.kind == "store" and slot.name in last.op.reads:
                return self.loaded(last)
            if slot.operand and slot.name not in step.op.reads:
                return self._computed(slot, step, i)
        return None

    def _computed(self, slot: Slot, step: Step, at: int) -> Tile | None:
        """A tile that is never stored: that of a source of its shape, or the rows of one by the rows of another."""
        sources = []
        for name in step.op.reads:
            life = next((x for x in self.lives if x.slot.name == name and x.first <= at <= x.last
                         and x.ring == step.ring % x.slot.copies), None)
            if life is not None and (tile := self.tile(life, at)) is not None:
                sources.append(tile)
        operand = self.schedule.operand(slot.operand)
        for tile in sources:
            source = self.schedule.operand(tile.operand)
            if (source.role, source.shape) == (operand.role, operand.shape):
                return _tile(operand, tile.rows, tile.columns, slot.shape)
        return _tile(operand, sources[0].rows, sources[1].rows, slot.shape) if len(sources) > 1 else None


def _tile(operand: Operand, rows: Range, columns: Range, tile: tuple[int, ...]) -> Tile:
    """With its label: its place in tiles, the column only where there are several."""
    place = str(rows[0] // tile[0])
    if len(tile) > 1 and matrix_shape(operand)[1] > tile[1]:
        place = f"{place},{columns[0] // tile[1]}"
    return Tile(operand.name, rows, columns, f"{operand.name}[{place}]")
