"""Fifty windows opened on an engine, drawn and closed: nothing of them stays; threads and timers are conftest.py's."""

from __future__ import annotations

import gc

import psutil
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.theme import Theme
from app.window import Window
from tests.app import feed
from tests.app.windows import Listener, draw

CYCLES, FIRST = 50, 20
MOST_GROWTH_KIB = 100   # a cycle, after the first ones; a window that stays is some thousand


def cycle() -> Listener:
    engine = Listener(*feed.run(seconds=1))
    window = Window(Theme.load("dark"))
    window.live.bridge.open = lambda *_: engine  # type: ignore[method-assign]
    window.resize(1440, 900)
    window.show()
    window.furnish()
    window.connect_engine()
    draw(window)
    draw(window)
    window.close()
    window.deleteLater()
    return engine


def swept() -> None:
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()
    gc.collect()


def test_nothing_of_fifty_windows_stays(qtbot: QtBot) -> None:  # noqa: ARG001
    process, sizes = psutil.Process(), []
    for number in range(CYCLES):
        assert cycle().closed == 1
        swept()
        if number in (FIRST, CYCLES - 1):
            sizes.append(process.memory_info().rss)
    assert not [widget for widget in QApplication.allWidgets() if isinstance(widget, Window)]
    assert not [widget for widget in QApplication.topLevelWidgets() if widget.isVisible()]
    assert (sizes[1] - sizes[0]) / 1024 / (CYCLES - FIRST) < MOST_GROWTH_KIB
