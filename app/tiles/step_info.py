"""What the theatre says of the step in focus; the inspector shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app import format as fmt
from app.tiles.fills import matrix_shape
from app.tiles.focus import Held, Tile
from app.tiles.view import View


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One step of one program: `step` counts from 1 and is 0 before the first; `lines` are sentences."""

    kernel: str
    launch: str
    program: str
    step: int
    steps: int
    title: str
    lines: tuple[str, ...]


def describe(view: View) -> StepInfo:
    """The step in focus in words."""
    place, launch, step = view.place, view.launch.launch, view.focus.step
    number = fmt.count(place.program + 1)
    said = [f"{launch.title}: launch {place.launch + 1} of {len(view.track.launches)}, "
            f"wave {fmt.count(place.wave + 1)} of {fmt.count(view.launch.waves)}, "
            f"head {fmt.count(view.focus.head + 1)} of {fmt.count(view.focus.heads)}."]
    if step is None:
        said.append("Nothing has moved yet.")
    else:
        said += [f"{step.op.title}{_by(step.op.warp_role)}.", *_moves(view), *_slots(view), *_work(view)]
    return StepInfo(
        view.track.schedule.kernel, launch.name, f"{number} of {fmt.count(launch.programs)}", place.done, place.steps,
        f"Program {number} · step {fmt.count(place.done)} of {fmt.count(place.steps)}", tuple(said),
    )


def _by(role: str) -> str:
    """Which of a program's warps do a step, where they have roles."""
    return {"": "", "producer": ", by the producer warp"}.get(role, f", by the {role} warpgroups")


def _moves(view: View) -> Iterable[str]:
    """What is loaded or stored: how much, and which elements."""
    tile, step = view.focus.moved, view.focus.step
    if tile is None or step is None:
        return
    memory = view.device.memory_name
    near = "" if view.device.kind == "cpu" else " or L2"
    verb, way = ("Reads", f"from {memory}{near}") if step.op.kind == "load" else ("Writes", f"to {memory}")
    if not step.bytes:
        yield f"{verb} nothing: all of {tile.label} lies beyond the edge of {tile.operand}."
        return
    yield f"{verb} {tile.label}, {fmt.bytes_iec(step.bytes)}, {way}: {_elements(view, tile)}."


def _elements(view: View, tile: Tile) -> str:
    columns = matrix_shape(view.operand(tile.operand))[1]
    across = "all columns" if tile.columns == (0, columns) else f"columns {_range(tile.columns)}"
    return f"rows {_range(tile.rows)}, {across} of {tile.operand}"


def _range(part: tuple[int, int]) -> str:
    return f"{fmt.count(part[0])} to {fmt.count(part[1] - 1)}"


def _slots(view: View) -> Iterable[str]:
    """Which slots the step reads and writes."""
    for verb, used in (("Reads", [one for one in view.focus.held if one.read]),
                       ("Writes", [one for one in view.focus.held if one.written])):
        if used:
            yield f"{verb} {', '.join(_slot(view, one) for one in used)}."


def _slot(view: View, held: Held) -> str:
    place = view.device.sram_name if held.slot.place == "sram" else "registers"
    holds = f"{held.label}, " if held.label != held.name else ""
    return f"{held.name} ({holds}{fmt.bytes_iec(held.slot.bytes // held.slot.copies)} in {place})"


def _work(view: View) -> Iterable[str]:
    """Operations of the step, masked lanes included."""
    assert view.focus.step is not None
    op = view.focus.step.op
    work = [fmt.quantity(op.matrix_flops, "FLOP") + " on matrices"] if op.matrix_flops else []
    work += [fmt.quantity(op.vector_flops, "FLOP") + " on elements"] if op.vector_flops else []
    work += [f"{fmt.count(op.exps)} exponentials"] if op.exps else []
    if work:
        yield f"{', '.join(work)}."
