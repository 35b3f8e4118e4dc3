"""From a command line to a window: the shell first, then the lab and the engine; or unattended, a picture and a table."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from app import settings
from app.bridge import lingering
from app.configuration import Configuration
from app.settings import Settings
from app.theme import Theme, load_fonts
from app.window import Window
from engine.client import ClientError
from engine.options import BadInput

SIZE = (1440, 900)
SIGNALS_MS = 200    # how often Python may look for Ctrl-C while Qt waits


def application() -> QApplication:
    """The one application of this process."""
    made = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(made, QApplication)
    made.setApplicationName("Tilescope")
    load_fonts()
    return made


def start(
    *, lab: str, url: str, asked: dict[str, Any], shown: Configuration | None, record_to: Path | None, theme: str | None,
    keep_at: Path | None, size: tuple[int, int] | None, screenshot: Path | None, seconds: float,
) -> int:
    """Opens the window, and answers with the exit code once it is closed.

    Args:
        keep_at: where settings are kept; None: nothing is read nor kept.

    Raises:
        BadInput: the engine cannot be reached, or the picture cannot be written.
    """
    running = application()
    kept, wrong = settings.load(keep_at) if keep_at else (Settings(), "")
    window = Window(
        Theme.load(theme or kept.theme), url=url, kept=kept, keep_at=keep_at, asked=asked, shown=shown,
        record_to=record_to, lab=lab,
    )
    if size or not kept.geometry:
        window.resize(*(size or SIZE))
    window.show()
    running.processEvents()
    window.furnish()
    if wrong:
        window.banner.tell(wrong)
    try:
        window.connect_engine()
    except ClientError as error:
        window.close()
        raise BadInput(str(error)) from error
    if screenshot is not None:
        from app.unattended import run

        code = run(window, screenshot, seconds)
    else:
        code = until_closed(running, window)
    return leave(code)


def leave(code: int) -> int:
    """The exit code; or the process's end, where a thread is in a compile or a launch, which nothing else interrupts."""
    if lingering():
        sys.stdout.flush()
        os._exit(code)
    return code


def until_closed(running: QApplication, window: Window) -> int:
    """Runs the application until its window is closed, by Ctrl-C in the terminal too."""
    before = signal.signal(signal.SIGINT, lambda *_: window.close())
    timer = QTimer()
    timer.timeout.connect(_look)
    timer.start(SIGNALS_MS)
    try:
        return int(running.exec())
    finally:
        timer.stop()
        signal.signal(signal.SIGINT, before)


def _look() -> None:
    """Gives Python's signal handlers a moment."""
