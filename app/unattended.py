"""A run that nobody watches: some seconds of it, a picture of the window, and a table of what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

from PySide6.QtCore import QDeadlineTimer, QEventLoop, QTimer
from rich.console import Console
from rich.table import Table

from app import format as fmt
from app.export import ExportError
from app.store import Snapshot
from app.window import Window
from engine.options import BadInput

MOST_EXTRA_S = 60.0     # for the first sample, where the seconds asked for do not suffice
WIDTH = 120             # of the table, where there is no terminal


def run(window: Window, path: Path, seconds: float) -> int:
    """Watches, saves, prints and closes. Raises: BadInput where the picture cannot be written."""
    spend(seconds)
    deadline = QDeadlineTimer(round(1000 * MOST_EXTRA_S))
    while not _settled(window.snapshot) and not deadline.hasExpired():
        spend(0.1)
    try:
        saved = window.files.write_picture(window, path)
    except ExportError as error:
        raise BadInput(window.banner.text.removeprefix("⚠ ") or str(error)) from error
    else:
        report(window.snapshot, saved)
    finally:
        window.close()
    return 0


def spend(seconds: float) -> None:
    """Runs the event loop for some seconds."""
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def report(snapshot: Snapshot, saved: Path) -> None:
    """Prints the table, and where the picture lies."""
    table = Table("kernel", "TFLOP/s", "median", "p20 to p80", "samples", "check", box=None, pad_edge=False)
    for name in snapshot.plans:
        stats, series, check = snapshot.shown(name), snapshot.series.get(name), snapshot.checks.get(name)
        if stats is None or series is None:
            table.add_row(name, fmt.NA, fmt.NA, fmt.NA, "0", snapshot.refusals.get(name, "not measured"))
            continue
        passed = f"passed ({fmt.error(check.max_error)})" if check else "not checked"
        spread = f"{fmt.time_ns(stats.p20)} to {fmt.time_ns(stats.p80)}"
        table.add_row(name, fmt.significant(series.median_tflops), fmt.time_ns(stats.p50), spread, str(stats.n), passed)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    if snapshot.device is not None:
        console.print(f"{snapshot.device.name} ({snapshot.device.id})")
    console.print(table)
    console.print(f"picture: {saved.resolve()}", soft_wrap=True)


def _settled(snapshot: Snapshot) -> bool:
    """Whether every kernel that was not refused has a sample."""
    waiting = [name for name in snapshot.plans if name not in snapshot.refusals and not snapshot.failed(name)]
    return bool(snapshot.plans) and all(snapshot.shown(name) for name in waiting)
