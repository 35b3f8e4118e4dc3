"""Where events wait until a front end polls."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from engine.protocol import DeviceSample, Event, KernelSample
from engine.record import Recorder

MOST_EVENTS = 20_000  # kept for a front end that does not poll; then the oldest samples go first


class Inbox:
    """Events on their way to a front end: bounded, oldest samples dropped first, nothing else."""

    def __init__(self, notify: Callable[[], None], recorder: Recorder | None) -> None:
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._notify, self._recorder = notify, recorder

    def put(self, event: Event) -> None:
        """From one thread, which alone waits for the disk."""
        fault = self._recorder.add(event) if self._recorder else None
        with self._lock:
            was_empty = not self._events
            self._events.extend([event, fault] if fault else [event])
            if len(self._events) > MOST_EVENTS:
                self._drop()
        if was_empty:
            self._notify()

    def take(self) -> list[Event]:
        """All of them, in order."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    def close(self) -> None:
        """Closes the record."""
        if self._recorder:
            self._recorder.close()

    def _drop(self) -> None:
        surplus = MOST_EVENTS // 10
        kept: deque[Event] = deque()
        for event in self._events:
            if surplus and isinstance(event, KernelSample | DeviceSample):
                surplus -= 1
            else:
                kept.append(event)
        self._events = kept
