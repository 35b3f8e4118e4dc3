"""What this machine has and lacks, each with the exact remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import msgspec
import platformdirs
from msgspec import Struct

CHILD_S = 120.0
QT = "import PySide6.QtWidgets, PySide6.QtSvg, pyqtgraph"
CUDA = "import torch; assert torch.cuda.is_available(), 'torch finds no usable GPU'; torch.zeros(1, device='cuda')"
PACKAGES = {  # what an import error names -> the Debian package that has it
    "libEGL": "libegl1", "libGL": "libgl1", "libxkbcommon": "libxkbcommon0", "libfontconfig": "libfontconfig1",
    "libdbus": "libdbus-1-3", "libglib": "libglib2.0-0", "libgthread": "libglib2.0-0", "libxcb-cursor": "libxcb-cursor0",
}


class Finding(Struct, frozen=True, kw_only=True):
    """One thing looked at. `needed`: the app cannot start without it. `apt`: the Debian package that mends it."""

    id: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = False
    apt: str = ""


def examine() -> list[Finding]:
    """Looks at everything. Takes some seconds: Qt and CUDA are tried in child processes."""
    gpu = _driver()
    looks: list[Callable[[], Finding]] = [_python, _qt, _fonts, _display, lambda: gpu, _torch, _triton, _settings, _disk]
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


def missing_start_requirements() -> list[str]:
    """A sentence for each thing without which the app cannot start."""
    found = [f for f in (_python(), _qt(), _torch()) if not f.ok]
    return [f"{f.found}: {f.remedy}" for f in found]


def apt_line(found: list[Finding]) -> str:
    """All missing Debian packages in one line; empty where none is missing."""
    packages = sorted({f.apt for f in found if not f.ok and f.apt})
    return f"apt-get install -y {' '.join(packages)}" if packages else ""


def _print(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for f in found:
        state = "[green]✓ ok[/]" if f.ok else "[red]✗ missing[/]" if f.needed else "[yellow]! without[/]"
        table.add_row(state, f.id, f.found if f.ok or not f.remedy else f"{f.found}: {f.remedy}")
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(table)
    if line := apt_line(found):
        console.print(f"\nOn Debian or Ubuntu: {line}")


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding(id="Python", ok=ok, needed=True, found=sys.version.split()[0], remedy="install Python 3.11 or newer")


def _qt() -> Finding:
    env = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    error = _child(QT, env)
    if not error:
        return Finding(id="Qt", ok=True, needed=True, found=f"PySide6 {metadata.version('PySide6-Essentials')}")
    package = next((package for library, package in PACKAGES.items() if library in error), "")
    remedy = f"install the package {package}" if package else "run `make run`, which installs it, and read the error"
    return Finding(id="Qt", ok=False, needed=True, found=error, remedy=remedy, apt=package)


def _fonts() -> Finding:
    home = Path.home()
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".fonts", home / ".local/share/fonts"]
    ok = sys.platform != "linux" or any(any(folder.rglob("*.[to]tf")) for folder in folders if folder.is_dir())
    ok = ok or bool(os.environ.get("FONTCONFIG_FILE"))
    return Finding(id="fonts", ok=ok, found="present" if ok else "there are no fonts",
                   remedy="install the package fonts-dejavu-core", apt="fonts-dejavu-core")


def _display() -> Finding:
    ok = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return Finding(id="display", ok=ok, found="present" if ok else "there is no display",
                   remedy="`make run` works without one and saves a picture")


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
    try:
        return Finding(id=name, ok=True, needed=needed, found=metadata.version(name))
    except metadata.PackageNotFoundError:
        remedy = "run `make run`, which installs it"
        return Finding(id=name, ok=False, needed=needed, found=f"{name} is not installed", remedy=remedy)


def _settings() -> Finding:
    folder = Path(os.environ.get("TILESCOPE_CONFIG_DIR") or platformdirs.user_config_dir("tilescope"))
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    ok = os.access(nearest, os.W_OK)
    return Finding(id="settings", ok=ok, found=str(folder) if ok else f"{folder} cannot be written",
                   remedy="set TILESCOPE_CONFIG_DIR to a folder that can")


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
