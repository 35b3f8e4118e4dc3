"""The clock of the theatre: up to two kernels, step by step or in scheduled time, and the followed slot. No Qt.

Positions are anchored: a seek in scheduled time sets each kernel's anchor, and steps count from there for all of them.
A kernel at its end waits while the others go on; stepping back by as much returns it to where it was.
Playing slowly, the kernels take their steps together, so that each can be watched. Playing fast, the one that takes longest
steps, and the others stand where they are at its scheduled time: the fast one is done first and waits.
"""

from __future__ import annotations

from app.tiles.track import KernelTrack, Place

SPEEDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # steps a second
DEFAULT_SPEED = 8
TOGETHER = 16  # steps a second up to which kernels step together


class Playback:
    """The state of play of some kernels. Every answer is computed from the state alone, never by replaying.

    Args:
        tracks: of the kernels that are played, on one device.
    """

    def __init__(self, tracks: list[KernelTrack]) -> None:
        self.tracks = tracks
        self.timed = all(track.seconds is not None for track in self.tracks)
        self.provenance = self.tracks[0].provenance if self.tracks else "scheduled"
        self.length = max((track.length for track in self.tracks), default=0.0)
        self.slots = [0] * len(self.tracks)
        self.anchors = [0] * len(self.tracks)
        self.offset = 0
        self.playing = False
        self.speed: float = DEFAULT_SPEED
        self._due = 0.0

    def position(self, kernel: int) -> int:
        """Steps that the followed slot of a kernel has behind it."""
        return min(max(self.anchors[kernel] + self.offset, 0), self.tracks[kernel].total(self.slots[kernel]))

    def place(self, kernel: int) -> Place:
        """Where its followed program stands."""
        return self.tracks[kernel].place(self.slots[kernel], self.position(kernel))

    def finished(self, kernel: int) -> bool:
        """Whether it stands at its end."""
        return self.position(kernel) == self.tracks[kernel].total(self.slots[kernel])

    @property
    def ended(self) -> bool:
        """Whether all do."""
        return all(self.finished(i) for i in range(len(self.tracks)))

    def time(self, kernel: int) -> float:
        """Scheduled time of a kernel, 0 before its first step."""
        return self.tracks[kernel].time_of(self.place(kernel))

    @property
    def now(self) -> float:
        """Scheduled time of the kernel that takes longest."""
        return self.time(self._longest)

    @property
    def _longest(self) -> int:
        return max(range(len(self.tracks)), key=lambda i: self.tracks[i].length)

    def step(self, by: int) -> None:
        """All kernels take `by` steps, each within its own bounds."""
        least = -max(self.anchors, default=0)
        most = max((t.total(s) - a for t, s, a in zip(self.tracks, self.slots, self.anchors, strict=True)), default=0)
        self.offset = min(max(self.offset + by, least), most)

    def seek(self, fraction: float) -> None:
        """To a fraction of the longest scheduled time."""
        time = min(max(fraction, 0.0), 1.0) * self.length
        self.anchors = [t.position_at(s, time) for t, s in zip(self.tracks, self.slots, strict=True)]
        self.offset = 0

    def seek_steps(self, steps: int) -> None:
        """To `steps` steps from the start of every kernel."""
        self.anchors = [0] * len(self.tracks)
        self.offset = 0
        self.step(steps)

    def follow(self, kernel: int, program: int, launch: int | None = None, done: int = 1) -> None:
        """Follow a program of a launch (of the current one) from its first step; the other kernels stay where they are."""
        at = self.place(kernel).launch if launch is None else launch
        track = self.tracks[kernel].launches[at]
        program = min(max(program, 0), track.launch.programs - 1)
        self.anchors = [self.position(i) for i in range(len(self.tracks))]
        self.offset = 0
        self.slots[kernel] = program % track.width
        self.anchors[kernel] = self.tracks[kernel].position_of(self.slots[kernel], at, program // track.width, done)

    def advance(self, dt_s: float) -> int:
        """Time passes: how many steps were taken. Stops at the end."""
        if not self.playing:
            return 0
        self._due += dt_s * self.speed
        steps, self._due = int(self._due), self._due % 1.0
        if self.speed <= TOGETHER:
            self.step(steps)
        elif steps:
            self._run(steps)
        if self.ended:
            self.playing = False
        return steps

    def _run(self, steps: int) -> None:
        """The kernel that takes longest takes some steps; the others follow its scheduled time and never go back."""
        lead = self._longest
        positions = [self.position(i) for i in range(len(self.tracks))]
        positions[lead] += steps
        time = self.tracks[lead].time_of(self.tracks[lead].place(self.slots[lead], positions[lead]))
        for i, track in enumerate(self.tracks):
            if i != lead:
                positions[i] = max(positions[i], track.position_at(self.slots[i], time))
        self.anchors, self.offset = positions, 0
        self.anchors[lead] = min(positions[lead], self.tracks[lead].total(self.slots[lead]))
