"""The one QThread: it runs what the engine's client asks to have run, and signals when there is something to poll."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, QThread, Signal

from engine.client import Client, open_client


class _Worker(QThread):
    """Runs one function. A worker that cannot be ended is kept, so that Qt never destroys a running thread."""

    lingering: set[_Worker] = set()  # noqa: RUF012

    def __init__(self, name: str, target: Callable[[], None]) -> None:
        super().__init__()
        self._target = target
        self.setObjectName(name)

    def run(self) -> None:
        self._target()

    def join(self, timeout_s: float) -> bool:
        """Waits for its end; whether it has ended."""
        ended = bool(self.wait(int(timeout_s * 1000)))
        (_Worker.lingering.discard if ended else _Worker.lingering.add)(self)
        return ended


class Bridge(QObject):
    """Opens an engine whose threads are QThreads. `dirty` is emitted from any of them: connect it queued."""

    dirty = Signal()

    def open(self, url: str, record_to: Path | None = None) -> Client:
        """Raises: engine.client.ClientError."""
        return open_client(url, notify=self.dirty.emit, spawn=self._spawn, record_to=record_to)

    @staticmethod
    def _spawn(name: str, target: Callable[[], None]) -> _Worker:
        worker = _Worker(name, target)
        worker.start()
        return worker


def lingering() -> bool:
    """Whether a thread could not be ended: only the process's end ends it."""
    return any(worker.isRunning() for worker in _Worker.lingering)
