"""python -m app: the window; without a display a picture of it and a table of what it measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from app.bench import BENCHES, report
from app.lab_options import lab_options, options_of
from app.labs import names
from app.screen import cannot_show, has_display, use_offscreen
from engine.options import BadInput, run_command, workload_options

SECONDS, MOST_S = 8.0, 3600.0
PICTURE = Path("tilescope.png")
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(help=__doc__)
@click.option("--lab", default="attention", metavar="ID", help="Which lab.")
@click.option("--device", metavar="ID", help="cuda:0, cpu, ... Left out: the first GPU, else the CPU.")
@click.option("--kernel", metavar="ID[,ID...]", help="Which kernels are ticked. Left out: as last time, else the usual.")
@click.option("--connect", "url", default="local:", metavar="URL", help="local:, stdio: or replay:FILE.")
@click.option("--open", "opened", type=FILE, help="A picture that Tilescope saved: restores what it shows.")
@click.option("--record", type=FILE, help="An event log to write, for --connect replay:FILE.")
@click.option("--theme", type=click.Choice(("dark", "light")), help="Left out: as last time.")
@click.option("--screenshot", type=FILE, help="Run unattended and save a picture here.")
@click.option("--seconds", type=float, default=SECONDS, help="How long, for --screenshot.")
@click.option("--size", metavar="WxH", help="Of the window; 1440x900 at first.")
@click.option("--bench", type=click.Choice(tuple(BENCHES)), help="Measure the window itself.")
@click.option("--json", "as_json", is_flag=True, help="The bench's figures as JSON.")
@lab_options
@workload_options
def main(
    lab: str, device: str | None, kernel: str | None, url: str, opened: Path | None, record: Path | None, theme: str | None,
    screenshot: Path | None, seconds: float, size: str | None, bench: str | None, as_json: bool, **options: Any,
) -> int:
    asked = _asked(lab, device, kernel, options)
    _check(url, opened, seconds, asked)
    width, height = _size(size or "1440x900")
    if screenshot is not None or not has_display():
        use_offscreen()
        screenshot = screenshot or PICTURE
    elif why := cannot_show():
        raise BadInput(why)
    if screenshot is not None:
        _check_picture(screenshot)
    _check_qt()
    if bench is not None:
        return report(bench, as_json=as_json)
    from app.export import RestoreError, restore

    try:
        shown = restore(opened) if opened else None
    except RestoreError as error:
        raise BadInput(str(error)) from error
    if shown and device:
        shown = replace(shown, device=device, machine=None)
    from app import settings
    from app.start import start

    return start(
        lab=lab, url=url, asked=asked, shown=shown, record_to=record, theme=theme,
        keep_at=None if screenshot else settings.path(), size=(width, height) if size or screenshot else None,
        screenshot=screenshot, seconds=seconds,
    )


def _asked(lab: str, device: str | None, kernel: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What of the first choice the command line decides. Raises: BadInput."""
    if lab not in names():
        raise BadInput(f"there is no lab {lab!r}: choose {', '.join(names())}")
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if kernel is not None:
        given["kernel"] = kernel
    asked = options_of(lab, given)
    return {name: value for name, value in (("device", device), *asked.items()) if value}


def _check(url: str, opened: Path | None, seconds: float, asked: dict[str, Any]) -> None:
    """Raises: BadInput where one option makes another void, or the time is out of range."""
    if not 0.1 <= seconds <= MOST_S:
        raise BadInput(f"--seconds {seconds:g} is out of range: choose from 0.1 to {MOST_S:g}")
    if url.startswith("replay:") and (asked or opened):
        raise BadInput("a replay shows what was recorded: leave out --open, --device, --kernel and a workload's options")
    if opened and asked.keys() - {"device"}:
        raise BadInput("--open restores a workload and its kernels: leave out --kernel and a workload's options")


def _check_picture(path: Path) -> None:
    """Raises: BadInput where no picture can be saved so."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise BadInput(f"--screenshot {str(path)!r} is no picture: give a name that ends in .png or .svg")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"there is no folder {str(path.absolute().parent)!r}: name another for --screenshot")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    numbers = width.isascii() and height.isascii() and width.isdecimal() and height.isdecimal()
    if not (numbers and len(text) < 12 and 1024 <= int(width) <= 7680 and 680 <= int(height) <= 4320):
        raise BadInput(f"--size {text!r} is not WxH from 1024x680 to 7680x4320: write for example --size 1440x900")
    return int(width), int(height)


def _check_qt() -> None:
    """Raises: BadInput naming what is missing, where Qt cannot be loaded."""
    try:
        import PySide6.QtWidgets  # noqa: F401
    except ImportError as error:
        doctor = subprocess.run([sys.executable, "-m", "engine", "doctor"], capture_output=True, text=True, check=False)
        raise BadInput(f"Qt cannot start ({error}).\n{doctor.stdout}{doctor.stderr}".rstrip()) from error


def run() -> None:
    """The console script."""
    run_command(main, sys.argv[1:])


if __name__ == "__main__":
    run()
