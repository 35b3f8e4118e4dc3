"""The wheel: built offline from a copy, installed elsewhere, it has all that the program reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("app", "engine", "kernels", "assets")
NOT_PACKED = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the program, so that building leaves nothing in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=NOT_PACKED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    pip("wheel", "--no-build-isolation", "-w", str(out), str(source))
    built, = out.glob("tilescope-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is installed."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--target", str(folder), str(wheel))
    return folder


def pip(*arguments: str) -> None:
    """Runs pip, which fetches nothing."""
    command = [sys.executable, "-m", "pip", *arguments, "-q", "--no-deps", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


Run = Callable[..., str]


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """Runs a command in an empty folder, with the installed wheel before all else; what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(site), "QT_QPA_PLATFORM": "offscreen"}

    def call(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_every_file_of_the_packages_is_in_the_wheel_and_no_other_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {Path(name) for name in archive.namelist()}
    there = [path for package in PACKAGES for path in (ROOT / package).rglob("*.*") if path.is_file()]
    wanted = {path.relative_to(ROOT) for path in there if "__pycache__" not in path.parts}
    assert sorted(map(str, wanted - packed)) == []
    assert {path.parts[0] for path in packed if ".dist-info" not in path.parts[0]} == set(PACKAGES)


def test_what_is_installed_finds_its_data(run: Run, site: Path) -> None:
    code = (
        "import json\nfrom app.theme import THEMES, Theme\nfrom engine.models.shapes import load\nfrom kernels import tuned\n"
        "from engine.simulator import spec\nimport app\n"
        "print(json.dumps({'home': app.__file__, 'themes': [Theme.load(theme).id for theme in THEMES],\n"
        "'models': [model.id for model in load()], 'devices': [one.id for one in spec.load()],\n"
        "'tables': sorted(tuned.tables()),\n"
        "'resources': [len(tuned.recorded(table).resources) for table in sorted(tuned.tables()) if table != tuned.CPU]}))"
    )
    found = json.loads(run(sys.executable, "-c", code))
    assert Path(found["home"]).is_relative_to(site)
    assert found["themes"] == ["dark", "light"]
    assert sorted(found["models"]) == sorted(path.stem for path in (ROOT / "assets/models").glob("*.toml"))
    assert sorted(found["devices"]) == sorted(path.stem for path in (ROOT / "assets/devices").glob("*.toml"))
    assert found["tables"] == sorted(path.stem for path in (ROOT / "kernels/tuned").glob("*.toml"))
    assert all(found["resources"])


def test_the_stylesheet_finds_its_icons(run: Run) -> None:
    code = (
        "import json, re\nfrom pathlib import Path\nfrom app.theme import Theme\n"
        "urls = re.findall(r'url\\(\"?([^)\"]+)', Theme.load('dark').stylesheet())\n"
        "print(json.dumps([len(urls), [url for url in urls if not Path(url).is_file()]]))"
    )
    count, missing = json.loads(run(sys.executable, "-c", code))
    assert count
    assert missing == []


def test_what_is_installed_lists_its_kernels_and_runs_them(run: Run) -> None:
    kernels = json.loads(run(sys.executable, "-m", "engine", "kernels", "--json"))
    assert {"naive", "flash"} <= {kernel["id"] for kernel in kernels}
    arguments = ("--device", "cpu", "--kernel", "flash", "--seq", "64", "--heads", "2", "--head-dim", "16", "--seconds", "0.01")
    one, = json.loads(run(sys.executable, "-m", "engine", "run", "--json", *arguments))
    assert one["check"]["ok"]


def test_the_command_is_called_tilescope(run: Run, site: Path) -> None:
    distribution, = metadata.distributions(path=[str(site)])
    assert distribution.metadata["Name"] == "tilescope"
    entry, = distribution.entry_points.select(group="console_scripts")
    assert (entry.name, entry.value) == ("tilescope", "app.__main__:run")
    assert run(sys.executable, str(site / "bin" / "tilescope"), "--help").startswith("Usage: tilescope [OPTIONS]")
