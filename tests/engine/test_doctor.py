"""What is looked at, and the remedy for each thing that is missing, with the lack of it simulated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import devices, doctor
from engine.doctor import LIBRARIES, Finding
from engine.nvml import Nvml
from tests.engine.fake_nvml import FakeNvml, Gpu
from tests.engine.fakes import CPU

Patch = pytest.MonkeyPatch


def test_this_machine_is_examined_in_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "engine", "doctor", "--json"], capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert [one["id"] for one in found][:10] == [
        "Python", "Qt", "fonts", "display", "NVIDIA GPU", "torch", "triton", "settings", "simulated GPUs", "disk",
    ]
    for one in found:
        assert one["found"]
        assert one["ok"] or one["remedy"]


# --- each lack ------------------------------------------------------------------------------------------------------


def no_python(patch: Patch, _: Path) -> None:
    patch.setattr(sys, "version_info", (3, 10, 4))


def no_fonts(patch: Patch, _: Path) -> None:
    patch.delenv("FONTCONFIG_FILE", raising=False)
    patch.setattr(Path, "is_dir", lambda _: False)


def no_display(patch: Patch, _: Path) -> None:
    patch.delenv("DISPLAY", raising=False)
    patch.delenv("WAYLAND_DISPLAY", raising=False)


def no_cursor(patch: Patch, _: Path) -> None:
    patch.setenv("DISPLAY", ":0")
    patch.delenv("WAYLAND_DISPLAY", raising=False)
    patch.setattr(doctor, "_loads", lambda _: False)


def no_driver(patch: Patch, _: Path) -> None:
    fake = Nvml(FakeNvml(init=18))
    patch.setattr(devices, "library", lambda: fake)


def no_gpu_shown(patch: Patch, _: Path) -> None:
    fake = Nvml(FakeNvml(Gpu("GPU-1")))
    patch.setattr(devices, "library", lambda: fake)
    patch.setenv("CUDA_VISIBLE_DEVICES", "")


def no_package(patch: Patch, _: Path) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    patch.setattr(metadata, "version", version)


def no_settings(patch: Patch, folder: Path) -> None:
    (folder / "file").write_text("in the way")
    patch.setenv("TILESCOPE_CONFIG_DIR", str(folder / "file" / "settings"))


def no_right(patch: Patch, folder: Path) -> None:
    patch.setenv("TILESCOPE_CONFIG_DIR", str(folder / "hidden" / "settings"))
    patch.setattr(os, "access", lambda path, mode: mode == os.F_OK and "hidden" not in str(path))


def no_spec(patch: Patch, folder: Path) -> None:
    (folder / "devices").mkdir()
    (folder / "devices" / "mine.toml").write_text("sms = 'many'")
    patch.setenv("TILESCOPE_CONFIG_DIR", str(folder))


def no_disk(patch: Patch, _: Path) -> None:
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 << 20))


def no_cuda(patch: Patch, _: Path) -> None:
    patch.setattr(doctor, "CUDA", "raise AssertionError('torch finds no usable GPU')")


def no_compiler(patch: Patch, _: Path) -> None:
    patch.delenv("CC", raising=False)
    patch.setenv("PATH", "")


def no_headers(patch: Patch, folder: Path) -> None:
    patch.setattr(sysconfig, "get_paths", lambda: {"include": str(folder)})


@pytest.mark.skipif(sys.platform != "linux", reason="the remedies are those of Linux")
@pytest.mark.parametrize(
    ("look", "lack", "found", "apt"),
    [
        (doctor._python, no_python, "3.", ""),
        (doctor._fonts, no_fonts, "there are no fonts", "fonts-dejavu-core"),
        (doctor._display, no_display, "there is no display", ""),
        (doctor._display, no_cursor, "Qt needs libxcb-cursor.so.0", "libxcb-cursor0"),
        (doctor._driver, no_driver, "RM has detected an NVML/RM version mismatch.", ""),
        (doctor._driver, no_gpu_shown, "NVML sees none that CUDA_VISIBLE_DEVICES shows", ""),
        (doctor._torch, no_package, "torch is not installed", ""),
        (doctor._triton, no_package, "triton is not installed", ""),
        (doctor._settings, no_settings, "settings cannot be written", ""),
        (doctor._settings, no_right, "settings cannot be written", ""),
        (doctor._simulated, no_spec, "devices/mine.toml: title: it is missing", ""),
        (doctor._disk, no_disk, "0.1 GiB free", ""),
        (doctor._cuda, no_cuda, "torch finds no usable GPU", ""),
        (doctor._compiler, no_compiler, "there is no C compiler", "gcc"),
        (doctor._headers, no_headers, "Python.h is missing", "python3-dev"),
    ],
)
def test_each_lack_has_its_remedy(
    monkeypatch: Patch, tmp_path: Path, look: Callable[[], Finding], lack: Callable[[Patch, Path], None], found: str, apt: str
) -> None:
    with monkeypatch.context() as patch:
        lack(patch, tmp_path)
        finding = look()
    assert not finding.ok
    assert found in finding.found
    assert finding.remedy
    assert finding.apt == apt


def test_what_only_a_gpu_needs_is_looked_at_where_there_is_one(monkeypatch: Patch) -> None:
    fake = Nvml(FakeNvml(Gpu("GPU-1")))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "library", lambda: fake)
    monkeypatch.setattr(doctor, "_child", lambda *_: "")
    found = {finding.id: finding for finding in doctor.examine()}
    assert found["NVIDIA GPU"].found == "NVIDIA H200, driver 570.1"
    assert {"CUDA in torch", "C compiler", "Python headers"} <= found.keys()
    monkeypatch.setattr(devices, "find", lambda: (CPU,))
    assert len(doctor.examine()) == 10


# --- Qt -------------------------------------------------------------------------------------------------------------


def broken_qt(patch: Patch, folder: Path, code: str) -> None:
    """A PySide6 that fails in this way, found before the real one by child processes."""
    (folder / "PySide6").mkdir()
    (folder / "PySide6" / "__init__.py").write_text(code)
    patch.setenv("PYTHONPATH", str(folder))


@pytest.mark.skipif(sys.platform != "linux", reason="the packages are Debian's")
def test_all_missing_libraries_of_qt_are_named_in_one_line(monkeypatch: Patch, tmp_path: Path) -> None:
    error = "libEGL.so.1: cannot open shared object file: No such file or directory"
    broken_qt(monkeypatch, tmp_path, f"raise ImportError({error!r})")
    monkeypatch.setattr(doctor, "_loads", lambda library: library not in ("libEGL.so.1", "libdbus-1.so.3"))
    finding = doctor._qt()
    assert (finding.ok, finding.needed) == (False, True)
    assert finding.found == f"ImportError: {error}"
    assert finding.remedy == "install libegl1, libdbus-1-3"
    fonts = Finding(id="fonts", ok=False, found="", apt="fonts-dejavu-core")
    fine = Finding(id="C compiler", ok=True, found="", apt="gcc")
    assert doctor.apt_line([finding, fonts, fine]) == "apt-get install -y fonts-dejavu-core libdbus-1-3 libegl1"



@pytest.mark.parametrize(
    ("code", "found"),
    [("raise ImportError('no module')", "ImportError: no module"), ("import os; os._exit(7)", "exit 7"),
     ("import os; os.abort()", "exit -6")],
)
def test_a_qt_that_fails_otherwise_has_a_remedy_too(monkeypatch: Patch, tmp_path: Path, code: str, found: str) -> None:
    broken_qt(monkeypatch, tmp_path, code)
    monkeypatch.setattr(doctor, "_loads", lambda _: True)
    finding = doctor._qt()
    assert (finding.ok, finding.found, finding.apt) == (False, found, "")
    assert finding.remedy == "run `make run`, which installs it, and read the error"


def test_a_qt_that_hangs_is_given_up(monkeypatch: Patch) -> None:
    monkeypatch.setattr(doctor, "CHILD_S", 0.1)
    monkeypatch.setattr(doctor, "QT", "import threading; threading.Event().wait()")
    assert doctor._qt().found == "it did not answer within 0 s"


def test_a_qt_from_elsewhere_is_as_good(monkeypatch: Patch) -> None:
    monkeypatch.setattr(doctor, "_child", lambda *_: "")
    no_package(monkeypatch, Path())
    assert doctor._qt() == Finding(id="Qt", ok=True, needed=True, found="PySide6 present")


def test_a_library_loads_or_not() -> None:
    assert not doctor._loads("libno-such-thing.so.0")
    assert all(name.endswith(tuple("0123456789")) for name in LIBRARIES)


# --- what is printed ------------------------------------------------------------------------------------------------

OK = Finding(id="Python", ok=True, found="3.11", needed=True, remedy="install it")
WITHOUT = Finding(id="display", ok=False, found="there is no [bold]display[/]", remedy="do [/without]")
MISSING = Finding(id="Qt", ok=False, found="libEGL.so.1 is missing", remedy="install libegl1", needed=True, apt="libegl1")


@pytest.mark.parametrize(("found", "code"), [([], 0), ([OK], 0), ([OK, WITHOUT], 0), ([OK, WITHOUT, MISSING], 1)])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_exit_code_is_whether_the_app_can_start(
    monkeypatch: Patch, capsys: pytest.CaptureFixture[str], found: list[Finding], code: int, as_json: bool
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: found)
    assert doctor.main(as_json) == code
    said = capsys.readouterr().out
    if as_json:
        assert [one["id"] for one in json.loads(said)] == [finding.id for finding in found]
        return
    for finding in found:
        line, = [line for line in said.splitlines() if f" {finding.id} " in line]
        assert finding.found in line
        assert (finding.remedy in line) == (not finding.ok)
    assert ("On Debian or Ubuntu: apt-get install -y libegl1" in said) == (MISSING in found)


def test_an_output_that_lacks_a_sign_is_no_error() -> None:
    code = (
        "import sys\nfrom engine import doctor\nfrom engine.__main__ import main\nfrom engine.options import run_command\n"
        "doctor.examine = lambda: [doctor.Finding(id='Python', ok=True, found='3.11')]\nrun_command(main, ['doctor'])\n"
    )
    environment: dict[str, Any] = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["?", "ok", "Python", "3.11"]
