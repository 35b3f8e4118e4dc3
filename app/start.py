"""From a command line to a window: the shell first, then the lab and the engine; or unattended, a picture and a table."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from app import settings
from app.bridge import lingering
from app.configuration import AnyConfiguration
from app.screen import PLATFORM
from app.settings import Settings
from app.theme import THEMES, Theme, load_fonts
from app.window import Window
from engine.client import ClientError
from engine.options import INTERRUPTED, BadInput

SIZE = (1440, 900)
SCREEN_PREFIX = "tilescope-screen-"
SIGNALS_MS = 200    # how often Python may look for Ctrl-C while Qt waits


def application() -> QApplication:
    """The one application of this process."""
    made = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(made, QApplication)
    made.setApplicationName("Tilescope")
    load_fonts()
    return made


def start(
    *, lab: str, url: str, asked: dict[str, Any], shown: AnyConfiguration | None, record_to: Path | None, theme: str | None,
    keep_at: Path | None, size: tuple[int, int] | None, screenshot: Path | None, seconds: float,
) -> int:
    """Opens the window, and answers with the exit code once it is closed.

    Args:
        asked, shown: see app.desk.Desk.
        keep_at: where settings are kept; None: nothing is read nor kept.

    Raises:
        BadInput: the engine cannot be reached; unattended: see app.unattended.run.
    """
    stopped = Event()
    with interrupted_by(stopped.set):
        window = _open(lab, url, asked, shown, record_to, theme, keep_at, size)
        if screenshot is not None:
            from app.unattended import run

            return leave(run(window, screenshot, seconds, asked, stopped))
        if not stopped.is_set():
            return leave(until_closed(application(), window))
        window.close()
    return leave(INTERRUPTED)


def _open(
    lab: str, url: str, asked: dict[str, Any], shown: AnyConfiguration | None, record_to: Path | None, theme: str | None,
    keep_at: Path | None, size: tuple[int, int] | None,
) -> Window:
    running = application()
    _forget_screen()
    kept, wrong = settings.load(keep_at) if keep_at else (Settings(), "")
    pictured = shown.theme if shown and shown.theme in THEMES else None
    window = Window(
        Theme.load(theme or pictured or kept.theme), url=url, kept=kept, keep_at=keep_at, asked=asked, shown=shown,
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
        raise BadInput(" ".join(str(error).split())) from error
    return window


def _forget_screen() -> None:
    """Removes the file of app.screen.use_offscreen, which Qt has read: `leave` may end the process before Python tidies up."""
    file = Path(os.environ.get(PLATFORM, "").partition("configfile=")[2])
    if file.name.startswith(SCREEN_PREFIX):
        file.unlink(missing_ok=True)


def leave(code: int) -> int:
    """The exit code; or the process's end, where a thread is in a compile or a launch, which nothing else interrupts."""
    if lingering():
        sys.stdout.flush()
        os._exit(code)
    return code


def until_closed(running: QApplication, window: Window) -> int:
    """Runs the application until its window is closed, by Ctrl-C in the terminal too."""
    timer = QTimer()
    timer.timeout.connect(_look)
    timer.start(SIGNALS_MS)
    with interrupted_by(window.close):
        code = int(running.exec())
    timer.stop()
    return code


@contextmanager
def interrupted_by(stop: Callable[[], object]) -> Iterator[None]:
    """Has Ctrl-C call `stop`. A KeyboardInterrupt would be lost where Qt calls Python."""
    before = signal.signal(signal.SIGINT, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _look() -> None:
    """Gives Python's signal handlers a moment."""
