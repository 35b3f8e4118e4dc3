"""The conversation with one engine: what is asked of it, and what it said, taken into the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject

from app.bridge import Bridge
from app.kind import Choice
from app.store import Snapshot, Store
from engine.client import Client
from engine.protocol import Command, Event, Start, Stop

CLOSE_S = 1.0
CHILD = "stdio:"


class Live(QObject):
    """`snapshot` is what every view draws: the newest, or the one at which the view was paused."""

    def __init__(self, url: str, record_to: Path | None, parent: QObject) -> None:
        super().__init__(parent)
        self.bridge = Bridge(self)
        self.snapshot = Snapshot()
        self.paused = False
        self._url, self._record_to = url, record_to
        self._store = Store()
        self._client: Client | None = None
        self._generation = 0
        self._choices: dict[int, Choice] = {}

    def connect_engine(self) -> None:
        """Raises: engine.client.ClientError."""
        self._client = self.bridge.open(self._url, self._record_to)

    def restart(self) -> None:
        """A new engine, in a process of its own: the old one's is lost to the GPU. Raises: engine.client.ClientError."""
        self.close()
        self._url, self._record_to = CHILD, None  # the record of the first engine is whole
        self.connect_engine()

    def take_in(self) -> list[Event]:
        """Takes in what came since the last call, and returns it. Never blocks."""
        events = self._client.poll() if self._client else []
        for event in events:
            self._store.reduce(event)
        if events and not self.paused:
            self.snapshot = self._store.snapshot()
        return events

    def pause(self, paused: bool) -> None:
        """Freezes the view, never the sampling; or returns to now."""
        self.paused = paused
        self.snapshot = replace(self._store.snapshot(), live=not paused)

    def run(self, choice: Choice) -> None:
        """Configures; a run in progress goes on with it."""
        self._generation += 1
        self._choices = {past: chosen for past, chosen in self._choices.items() if past >= self.snapshot.generation}
        self._choices[self._generation] = choice
        self.send(choice.configure(self._generation))

    @property
    def choice(self) -> Choice | None:
        """The choice that is on screen, where it was made here."""
        return self._choices.get(self.snapshot.generation)

    def start(self) -> None:
        """Measures until stopped."""
        self.send(Start())

    def stop(self) -> None:
        """Stops, and frees the buffers."""
        self.send(Stop())

    def send(self, command: Command) -> None:
        """Says it to the engine, where there is one."""
        if self._client is not None:
            self._client.send(command)

    def close(self) -> None:
        """Ends the engine, or leaves it behind where it cannot be interrupted."""
        if self._client is not None:
            self._client.close(CLOSE_S)
            self._client = None
