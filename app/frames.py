"""The frame timer: it runs while something moves or is to be drawn, and knows how long frames take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from PySide6.QtCore import QObject, Qt, QTimer, Slot

FRAME_MS = 16
KEPT = 240
IDLE_FRAMES = 30  # without anything new, after which the timer rests


class Frames(QObject):
    """Calls `draw(dt_s) -> bool` every frame; rests when it has answered False for a while, until `wake`."""

    def __init__(self, draw: Callable[[float], bool], parent: QObject) -> None:
        super().__init__(parent)
        self._draw = draw
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(FRAME_MS)
        self._timer.timeout.connect(self.tick)
        self._last = 0.0
        self._idle, self._ended = 0, False
        self._gaps_s: deque[float] = deque(maxlen=KEPT)
        self.draws_s: deque[float] = deque(maxlen=KEPT)
        self._watched: list[float] | None = None

    @Slot()
    def wake(self) -> None:
        """Something is to be drawn."""
        self._idle = 0
        if not self._ended and not self._timer.isActive():
            self._last = time.perf_counter()
            self._timer.start()

    @Slot()
    def stop(self) -> None:
        """No frames until `wake`."""
        self._timer.stop()

    def end(self) -> None:
        """No more frames, whoever wakes it."""
        self._ended = True
        self._timer.stop()

    @property
    def per_second(self) -> float | None:
        """Frames a second over the newest gaps; None before there are some."""
        return len(self._gaps_s) / sum(self._gaps_s) if len(self._gaps_s) > 5 else None

    def watch(self) -> list[float]:
        """A list that every gap is added to from now on, in seconds."""
        self._watched = []
        return self._watched

    @Slot()
    def tick(self) -> None:
        """One frame, now."""
        now = time.perf_counter()
        gap, self._last = now - self._last, now
        self._gaps_s.append(gap)
        if self._watched is not None:
            self._watched.append(gap)
        self._idle = 0 if self._draw(gap) else self._idle + 1
        self.draws_s.append(time.perf_counter() - now)
        if self._idle > IDLE_FRAMES:
            self._timer.stop()
