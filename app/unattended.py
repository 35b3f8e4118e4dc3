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

from app import format as fmt
from app.configuration import Configuration
from app.export import ExportError, configuration_of
from app.store import Snapshot
from app.window import Window
from engine.options import INTERRUPTED, BadInput, params_from

MOST_EXTRA_S = 60.0     # for the engine's answer; and for the first sample, where the seconds asked for do not suffice
LOOK_S = 0.05
WIDTH = 120             # of the table, where there is no terminal


def run(window: Window, path: Path, seconds: float, asked: dict[str, Any], stopped: Event) -> int:
    """Watches, saves, prints and closes; the exit code: 1 where the engine broke, or a kernel failed or has no time.

    Args:
        asked: see app.run.Run.
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
        wait(MOST_EXTRA_S, lambda: _settled(window.snapshot) or ended())
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


def report(shown: Configuration, saved: Path) -> None:
    """Prints the table, and where the picture lies."""
    table = Table("kernel", "TFLOP/s", "median", "p20 to p80", "samples", "check", box=None, pad_edge=False)
    for row in shown.measured:
        if row.time_p50_ns is None:
            table.add_row(row.kernel, fmt.NA, fmt.NA, fmt.NA, "0", row.note)
            continue
        passed = "not checked" if row.check_max_error is None else f"passed ({fmt.error(row.check_max_error)})"
        spread = f"{fmt.time_ns(row.time_p20_ns)} to {fmt.time_ns(row.time_p80_ns)}"
        table.add_row(
            row.kernel, fmt.significant(row.tflops), fmt.time_ns(row.time_p50_ns), spread, str(row.samples), passed)
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
    devices = [device.id for device in hello.devices]
    if asked.get("device", devices[0]) not in devices:
        raise BadInput(f"there is no device {asked['device']!r} here: choose {' or '.join(devices)}")
    chosen = [info for info in hello.kernels if info.id in choice.kernels]
    params_from(asked.get("options", {}), chosen)
    for info in chosen:
        for param in info.params:
            value = choice.params.get(info.id, {}).get(param.name)
            if value is not None and value not in param.choices:
                choices = " or ".join(map(str, param.choices))
                raise BadInput(f"{param.name} of {info.title} cannot be {value}: choose {choices}")


def _save(window: Window, path: Path) -> int:
    """The picture, the table, and what the window has to say. Raises: BadInput."""
    snapshot, said = window.snapshot, " ".join(window.banner.text.removeprefix("⚠ ").split())
    if reason := snapshot.refusals.get(""):
        raise BadInput(reason)
    try:
        shown = configuration_of(snapshot, window.lab_id, window.theme.id)
        saved = window.files.write_picture(window, path)
    except ExportError as error:
        reason = snapshot.fault.message if snapshot.fault else str(error)
        raise BadInput(" ".join(reason.split())) from error
    report(shown, saved)
    if said:
        click.echo(said, err=True)
    return 0 if _settled(snapshot) and not _broken(snapshot) and not any(map(snapshot.failed, snapshot.plans)) else 1


def _broken(snapshot: Snapshot) -> bool:
    """Whether nothing more can come."""
    return snapshot.fault is not None and snapshot.fault.fatal


def _settled(snapshot: Snapshot) -> bool:
    """Whether every kernel that was not refused has a sample."""
    waiting = [name for name in snapshot.plans if name not in snapshot.refusals and not snapshot.failed(name)]
    return bool(snapshot.plans) and all(snapshot.shown(name) for name in waiting)
