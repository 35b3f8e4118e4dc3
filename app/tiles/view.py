"""What a scene shows of its kernel at one moment: everything that its parts paint from, and nothing of how. No Qt."""

from __future__ import annotations

from dataclasses import dataclass

from app.tiles.fills import Fill, Fills, matrix_shape
from app.tiles.focus import Focus, focus
from app.tiles.track import Counters, KernelTrack, LaunchTrack, Place
from kernels.contract import Device, Operand


@dataclass(frozen=True, slots=True)
class View:
    """One kernel at one place. `time` is its own scheduled time in words, empty where the bandwidth is not known."""

    track: KernelTrack
    device: Device
    place: Place
    focus: Focus
    fills: dict[str, Fill]
    counters: Counters
    done: bool
    time: str

    @property
    def launch(self) -> LaunchTrack:
        """The launch that runs."""
        return self.track.launches[self.place.launch]

    def operand(self, name: str) -> Operand:
        return self.track.schedule.operand(name)


def view_of(track: KernelTrack, fills: Fills, device: Device, place: Place, done: bool, time: str) -> View:
    """The view of a kernel at a place."""
    written = {operand.name: fills.at(place, operand.name) for operand in track.schedule.operands if operand.materialised}
    return View(track, device, place, focus(track, place), written, track.counters(place), done, time)


def head_shape(track: KernelTrack) -> tuple[int, int, int]:
    """N_q, N_kv and D of one head, from Q and K; of the largest operand where a kernel has no such."""
    shapes = {operand.name: matrix_shape(operand) for operand in track.schedule.operands}
    if "Q" in shapes and "K" in shapes:
        return shapes["Q"][0], shapes["K"][0], shapes["Q"][1]
    rows, columns = max(shapes.values())
    return rows, rows, columns
