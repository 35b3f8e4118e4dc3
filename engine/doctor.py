"""What this machine has and lacks, each with the exact remedy."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import Struct

from engine import home

CHILD_S = 120.0
QT = "import PySide6.QtWidgets, PySide6.QtSvg, pyqtgraph"
CUDA = "import torch; assert torch.cuda.is_available(), 'torch finds no usable GPU'; torch.zeros(1, device='cuda')"
LIBRARIES = {  # what Qt loads -> the Debian package that has it
    "libEGL.so.1": "libegl1", "libGL.so.1": "libgl1", "libxkbcommon.so.0": "libxkbcommon0",
    "libfontconfig.so.1": "libfontconfig1", "libdbus-1.so.3": "libdbus-1-3", "libglib-2.0.so.0": "libglib2.0-0",
}


class Finding(Struct, frozen=True, kw_only=True):
    """One thing looked at. `needed`: the app cannot start without it. `apt`: the Debian packages that mend it."""

    id: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = False
    apt: str = ""


def examine() -> list[Finding]:
    """Looks at everything. Takes some seconds: Qt and CUDA are tried in child processes."""
    gpu = _driver()
    looks: list[Callable[[], Finding]] = [
        _python, _qt, _fonts, _display, lambda: gpu, _torch, _triton, _settings, _simulated, _disk]
    found = [look() for look in looks]
    return found + ([_cuda(), _compiler(), _headers()] if gpu.ok else [])


def main(as_json: bool) -> int:
    """Prints the findings; 0 where the app can start, else 1."""
    found = examine()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        _print(found)
    return 0 if all(f.ok for f in found if f.needed) else 1


def apt_line(found: list[Finding]) -> str:
    """All missing Debian packages in one line; empty where none is missing."""
    packages = sorted({package for f in found if not f.ok for package in f.apt.split()})
    return f"apt-get install -y {' '.join(packages)}" if packages else ""


def _print(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for f in found:
        state = "[green]✓ ok[/]" if f.ok else "[red]✗ missing[/]" if f.needed else "[yellow]! without[/]"
        table.add_row(state, f.id, escape(f.found if f.ok else f"{f.found}: {f.remedy}"))
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(table)
    if line := apt_line(found):
        console.print(f"\nOn Debian or Ubuntu: {line}")


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding(id="Python", ok=ok, needed=True, found=sys.version.split()[0], remedy="install Python 3.11 or newer")


def _qt() -> Finding:
    error = _child(QT, os.environ | {"QT_QPA_PLATFORM": "offscreen"})
    if not error:
        return Finding(id="Qt", ok=True, needed=True, found=f"PySide6 {_version('PySide6-Essentials') or 'present'}")
    missing = [package for library, package in LIBRARIES.items() if not _loads(library)] if sys.platform == "linux" else []
    remedy = f"install {', '.join(missing)}" if missing else "run `make run`, which installs it, and read the error"
    return Finding(id="Qt", ok=False, needed=True, found=error, remedy=remedy, apt=" ".join(missing))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _fonts() -> Finding:
    home = Path.home()
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".fonts", home / ".local/share/fonts"]
    ok = sys.platform != "linux" or any(any(folder.rglob("*.[to]t[fc]")) for folder in folders if folder.is_dir())
    ok = ok or bool(os.environ.get("FONTCONFIG_FILE"))
    return Finding(id="fonts", ok=ok, found="present" if ok else "there are no fonts",
                   remedy="install the package fonts-dejavu-core", apt="fonts-dejavu-core")


def _display() -> Finding:
    x11, wayland = (bool(os.environ.get(name)) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform == "linux" and not (x11 or wayland):
        return Finding(id="display", ok=False, found="there is no display",
                       remedy="`make run` works without one and saves a picture")
    if sys.platform == "linux" and x11 and not _loads("libxcb-cursor.so.0"):
        return Finding(id="display", ok=False, needed=not wayland, found="Qt needs libxcb-cursor.so.0 for windows on X11",
                       remedy="install libxcb-cursor0", apt="libxcb-cursor0")
    return Finding(id="display", ok=True, found="present")


def _driver() -> Finding:
    from engine.devices import find, library

    gpus = [device for device in find() if device.kind == "cuda"]
    if gpus:
        return Finding(id="NVIDIA GPU", ok=True, found=f"{', '.join(g.name for g in gpus)}, driver {gpus[0].driver}")
    why = library().reason or "NVML sees none that CUDA_VISIBLE_DEVICES shows"
    remedy = "with a GPU, install NVIDIA's driver; without one, the CPU runs"
    return Finding(id="NVIDIA GPU", ok=False, found=why, remedy=remedy)


def _torch() -> Finding:
    return _package("torch", needed=True)


def _triton() -> Finding:
    return _package("triton", needed=False)


def _package(name: str, *, needed: bool) -> Finding:
    version = _version(name)
    return Finding(id=name, ok=bool(version), needed=needed, found=version or f"{name} is not installed",
                   remedy="run `make run`, which installs it")


def _version(name: str) -> str:
    """As installed; empty where it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _settings() -> Finding:
    folder = home.folder()
    nearest = next((p for p in (folder, *folder.parents) if os.access(p, os.F_OK)), folder)
    ok = nearest.is_dir() and os.access(nearest, os.W_OK)
    return Finding(id="settings", ok=ok, found=str(folder) if ok else f"{folder} cannot be written",
                   remedy=f"set {home.FOLDER_VARIABLE} to a folder that can")


def _simulated() -> Finding:
    from engine.simulator import spec

    specs, refused = spec.found()
    return Finding(id="simulated GPUs", ok=not refused, found="; ".join(refused) or f"{len(specs)} specs",
                   remedy="correct what is named, or take the file away")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding(id="disk", ok=free > 1 << 30, found=f"{free / 2**30:.1f} GiB free", remedy="leave at least 1 GiB free")


def _cuda() -> Finding:
    error = _child(CUDA, dict(os.environ))
    return Finding(id="CUDA in torch", ok=not error, found=error or "works",
                   remedy="install a CUDA build of torch that the driver supports; until then the CPU runs")


def _compiler() -> Finding:
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return Finding(id="C compiler", ok=bool(found), found=found or "there is no C compiler, which Triton needs on a GPU",
                   remedy="install the package gcc", apt="gcc")


def _headers() -> Finding:
    ok = (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()
    return Finding(id="Python headers", ok=ok, found="present" if ok else "Python.h is missing, which Triton needs on a GPU",
                   remedy="install the package python3-dev", apt="python3-dev")


def _child(code: str, env: dict[str, str]) -> str:
    """The last line of what a child process complains of; empty where it ran."""
    try:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=CHILD_S, check=False)
    except subprocess.TimeoutExpired:
        return f"it did not answer within {CHILD_S:.0f} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
