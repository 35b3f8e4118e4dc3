"""Every test of the window draws with the project's own faces, and leaves no thread and no running timer behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PySide6.QtCore import QThread, QTimer
from PySide6.QtWidgets import QApplication

from app.theme import load_fonts


class Application(QApplication):
    """With the faces loaded."""

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments)
        load_fonts()


@pytest.fixture(scope="session")
def qapp_cls() -> type[QApplication]:
    return Application


@pytest.fixture(autouse=True)
def nothing_is_left_running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test after which a QThread, a thread or a timer that it started still runs."""
    before = set(threading.enumerate())
    started: list[Any] = []
    for kind in (QThread, QTimer):
        _note_starts(monkeypatch, kind, started)
    yield
    QApplication.sendPostedEvents(None, 52)  # QEvent.DeferredDelete: what was closed is gone
    left = [thread for thread in threading.enumerate() if thread not in before and _is_ours(thread)]
    assert not left, f"threads left running: {left}"
    assert not (busy := [one for one in started if _runs(one)]), f"left running: {busy}"


def _is_ours(thread: threading.Thread) -> bool:
    return thread.is_alive() and not isinstance(thread, threading._DummyThread)


def _note_starts(monkeypatch: pytest.MonkeyPatch, kind: type[Any], started: list[Any]) -> None:
    start = kind.start

    def noted(self: Any, *given: Any) -> None:
        started.append(self)
        start(self, *given)

    monkeypatch.setattr(kind, "start", noted)


def _runs(one: Any) -> bool:
    try:
        return bool(one.isRunning() if isinstance(one, QThread) else one.isActive())
    except RuntimeError:  # Qt has deleted it
        return False
