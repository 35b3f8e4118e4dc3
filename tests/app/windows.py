"""Windows to operate: on a recorded run that is played at once, without torch, or on an engine that only listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytestqt.qtbot import QtBot

from app import export
from app.configuration import Configuration, encode
from app.panels.controls import Controls
from app.settings import Settings
from app.theme import Theme
from app.window import Window
from engine.client import Client
from engine.protocol import Command, Event
from engine.record import Recorder
from tests.app import feed


def recorded(path: Path, events: list[Event] | None = None) -> str:
    """A URL that plays some events at once."""
    recorder = Recorder(path)
    for event in events if events is not None else feed.run(seconds=3):
        recorder.add(event)
    recorder.close()
    return f"replay:{path}?speed=0"


class Listener:
    """An engine that answers with what it is given, and keeps what it is told."""

    def __init__(self, *events: Event) -> None:
        self.told: list[Command] = []
        self.events = list(events)
        self.closed = 0

    def send(self, command: Command) -> None:
        self.told.append(command)

    def poll(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def close(self, timeout_s: float = 2.0) -> None:  # noqa: ARG002
        self.closed += 1

    def of(self, kind: type[Any]) -> list[Any]:
        """The commands of a kind, in order."""
        return [command for command in self.told if isinstance(command, kind)]


def opened(qtbot: QtBot, client: Client, *, size: tuple[int, int] = (1440, 900), **options: Any) -> Window:
    """A window whose engine is `client`, shown and furnished, with all that the client had to say."""
    window = Window(Theme.load("dark"), **options)
    qtbot.addWidget(window)
    window.resize(*size)
    window.live.bridge.open = lambda *_: client  # type: ignore[method-assign]
    with qtbot.waitActive(window):
        window.show()
        window.activateWindow()
    window.furnish()
    window.connect_engine()
    draw(window)
    return window


def draw(window: Window) -> None:
    """One frame, without waiting for its timer."""
    window.frames.tick()


def embedded(window: Window) -> str:
    """The configuration on screen as a picture would embed it."""
    return encode(export.there(window.desk.configuration(window.theme.id)))


def taken(path: Path) -> Configuration:
    """What a picture of kernels embeds."""
    shown = export.restore(path)
    assert isinstance(shown, Configuration)
    return shown


def form(window: Window) -> Controls:
    """The form of a lab of kernels."""
    made = window.form
    assert isinstance(made, Controls)
    return made


__all__ = ["Listener", "Settings", "draw", "embedded", "form", "opened", "recorded", "taken"]
