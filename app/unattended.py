"""A run that nobody watches: some seconds of it, a picture of the window, and a table of what was measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import click
from PySide6.QtCore import QDeadlineTimer, QEventLoop, QTimer
from rich.console import Console
from rich.table import Table

from app.configuration import AnyConfiguration
from app.export import ExportError, there
from app.kind import Kind
from app.store import Snapshot
from app.what_if import device_of
from app.window import Window
from engine.options import INTERRUPTED, BadInput

MOST_EXTRA_S = 60.0     # for the engine's answer; and for the first sample, where the seconds asked for do not suffice
LOOK_S = 0.05
WIDTH = 120             # of the table, where there is no terminal


def run(window: Window, path: Path, seconds: float, asked: dict[str, Any], stopped: Event) -> int:
    """Watches, saves, prints and closes; the exit code: 1 where the engine broke, or a kernel or a lane failed or has no time.

    Args:
        asked: see app.desk.Desk.
        stopped: set by Ctrl-C.

    Raises:
        BadInput: what was asked for cannot be run here, or the picture cannot be written.
    """
    def ended() -> bool:
        return stopped.is_set() or "" in window.snapshot.refusals or _broken(window.snapshot)

    try:
        wait(MOST_EXTRA_S, lambda: window.run.choice is not None or ended())
        _check(window, asked)
        wait(seconds, ended)
        wait(MOST_EXTRA_S, lambda: _kind(window).settled(window.snapshot) or ended())
        return INTERRUPTED if stopped.is_set() else _save(window, path)
    finally:
        window.close()


def wait(seconds: float, until: Callable[[], bool], look_s: float = LOOK_S) -> None:
    """Runs the event loop until something holds, for some seconds at most; `look_s` apart it is asked for."""
    deadline = QDeadlineTimer(round(1000 * seconds))
    while not (until() or deadline.hasExpired()):
        spend(min(look_s, deadline.remainingTime() / 1000))


def spend(seconds: float) -> None:
    """Runs the event loop for some seconds."""
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def report(shown: AnyConfiguration, table: Table, saved: Path) -> None:
    """Prints the table, and where the picture lies."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)
    if shown.machine is not None:
        console.print(f"{shown.machine.name} ({shown.device})")
    console.print(table)
    console.print(f"picture: {saved.resolve()}", soft_wrap=True)


def _check(window: Window, asked: dict[str, Any]) -> None:
    """Raises: BadInput where the window would run something else than what was asked for, or nothing."""
    hello, choice = window.snapshot.hello, window.run.choice
    if hello is None or choice is None:
        return
    if "device" in asked and device_of(asked["device"], hello) is None:
        known = " or ".join(device.id for device in hello.devices)
        raise BadInput(f"there is no device {asked['device']!r} here: choose {known}")
    _kind(window).check(hello, choice, asked)


def _kind(window: Window) -> Kind:
    assert window.desk.current is not None
    return window.desk.current.kind


def _save(window: Window, path: Path) -> int:
    """The picture, the table, and what the window has to say. Raises: BadInput."""
    kind, snapshot, said = _kind(window), window.snapshot, " ".join(window.banner.text.removeprefix("⚠ ").split())
    if reason := snapshot.refusals.get(""):
        raise BadInput(reason)
    try:
        shown = there(window.desk.configuration(window.theme.id))
        saved = window.files.write_picture(window, path)
    except ExportError as error:
        reason = snapshot.fault.message if snapshot.fault else str(error)
        raise BadInput(" ".join(reason.split())) from error
    report(shown, kind.report(shown), saved)
    if said:
        click.echo(said, err=True)
    return 0 if kind.settled(snapshot) and not _broken(snapshot) and not kind.failed(snapshot) else 1


def _broken(snapshot: Snapshot) -> bool:
    """Whether nothing more can come."""
    return snapshot.fault is not None and snapshot.fault.fatal
