"""python -m app: the window; without a display a picture of it and a table of what it measured."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from engine.options import BadInput, run_command, workload_from, workload_options

OFFSCREEN_SECONDS = 8.0


@click.command(help=__doc__)
@click.option("--device", metavar="ID", help="cuda:0, cpu, ... Left out: the first GPU, else the CPU.")
@click.option("--connect", "url", default="local:", metavar="URL", help="local:, stdio: or replay:FILE.")
@click.option("--theme", type=click.Choice(("dark", "light")), default="dark")
@click.option("--screenshot", type=click.Path(path_type=Path), help="Run unattended and save a picture here.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=OFFSCREEN_SECONDS, help="How long, for --screenshot.")
@click.option("--size", default="1440x900", metavar="WxH")
@workload_options
def main(device: str | None, url: str, theme: str, screenshot: Path | None, seconds: float, size: str, **options: Any) -> int:
    width, height = _size(size)
    given = any(value is not None and value != () for value in options.values())
    has_display = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if os.environ.get("QT_QPA_PLATFORM", "offscreen") == "offscreen" and not has_display:
        os.environ["QT_QPA_PLATFORM"] = f"offscreen:configfile={_screen()}"
        screenshot = screenshot or Path("tilescope.png")
    try:
        from PySide6.QtWidgets import QApplication
    except ImportError as error:
        raise BadInput(f"Qt cannot start ({error}): `python -m engine doctor` names what is missing") from error
    from app.theme import Theme
    from app.window import Window

    application = QApplication.instance() or QApplication(sys.argv[:1])
    choices: dict[str, Any] = {"device": device}
    if given:
        from engine.options import default_workload
        from kernels.contract import Device

        kind = "cpu" if device == "cpu" else "cuda"
        choices["workload"] = workload_from(options, default_workload(Device(id=device or "", kind=kind, name="")))  # type: ignore[arg-type]
    window = Window(Theme.load(theme), url=url, options=choices)
    window.resize(width, height)
    window.show()
    application.processEvents()
    window.furnish()
    _open(window)
    if screenshot is None:
        return int(application.exec())
    return _unattended(window, screenshot, seconds)


def _open(window: Any) -> None:
    from engine.client import ClientError

    try:
        window.connect_engine()
    except ClientError as error:
        raise BadInput(str(error)) from error


def _unattended(window: Any, path: Path, seconds: float) -> int:
    from app.window import spend

    spend(seconds)
    try:
        saved = window.save_picture(path)
    except OSError as error:
        window.close()
        raise BadInput(str(error)) from error
    _print(window, saved)
    window.close()
    from app.bridge import lingering

    if lingering():
        sys.stdout.flush()
        os._exit(0)
    return 0


def _print(window: Any, saved: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from app import format

    snapshot = window.snapshot
    table = Table("kernel", "TFLOP/s", "median", "samples", "check", box=None, pad_edge=False)
    for name in snapshot.plans:
        stats, series, check = snapshot.shown(name), snapshot.series.get(name), snapshot.checks.get(name)
        if stats is None or series is None:
            table.add_row(name, "n/a", "n/a", "0", snapshot.refusals.get(name, "not measured yet"))
            continue
        passed = f"passed ({format.error(check.max_error)})" if check and check.ok else "n/a"
        table.add_row(name, format.tflops(series.median_tflops), format.time_ns(stats.p50), str(stats.n), passed)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(table)
    console.print(f"picture: {saved.resolve()}", soft_wrap=True)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 400 <= int(width) <= 7680 and 300 <= int(height) <= 4320):
        raise BadInput(f"--size {text!r} is not WxH: write for example --size 1440x900")
    return int(width), int(height)


def _screen() -> str:
    """A screen for the offscreen platform, whose own is 800 by 800."""
    screen = {"name": "offscreen", "x": 0, "y": 0, "width": 3840, "height": 2160, "dpr": 1,
              "logicalDpi": 96, "logicalBaseDpi": 96}
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="tilescope-screen-", delete=False) as file:
        json.dump({"screens": [screen]}, file)
    return file.name


def run() -> None:
    """The console script."""
    run_command(main)


if __name__ == "__main__":
    run()
