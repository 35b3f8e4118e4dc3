"""The recipes of adding, followed in a copy of the program: one file appears everywhere, two of one id are refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("app", "engine", "kernels", "assets")

KERNEL = '''\
"""A kernel of one's own: flash under another name."""

import dataclasses

from msgspec.structs import replace

from kernels.attention.flash import KERNELS as FLASH

KERNELS = (dataclasses.replace(FLASH[0], info=replace(FLASH[0].info, id=ID)),)
'''
PLOT = '''\
"""A plot of one's own: the latency's view under another name."""

from dataclasses import replace

from app.plots.latency import PLOT as LATENCY

PLOT = replace(LATENCY, id=ID, title="A plot of my own")
'''
LAB = '''\
"""A lab of one's own: that of attention under another name."""

from dataclasses import replace

from app.labs.attention import LAB as ATTENTION

LAB = replace(ATTENTION, id=ID, title="A lab of my own")
'''
MODEL = """title = "Aardvark"
heads = 8
kv_heads = 2
head_dim = 64
layers = 4
context = 2048
hidden = 512
mlp = 2048
vocab = 1000
source = "a recipe"
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The program, to be added to."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in the copy, whose packages come before the checkout's."""
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(copy), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=120, check=False)


def said(copy: Path, code: str) -> Any:
    """What a program in the copy prints, which is JSON."""
    done = run(copy, "-c", f"import json\n{code}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sentence(copy: Path, code: str) -> str:
    """The last line of the error with which a program in the copy ends."""
    done = run(copy, "-c", code)
    assert done.returncode == 1, done.stdout
    return done.stderr.strip().splitlines()[-1]


def test_a_kernel_is_one_file(copy: Path) -> None:
    (copy / "kernels/attention/mine.py").write_text(KERNEL.replace("ID", '"mine"'))
    listed = run(copy, "-m", "engine", "kernels", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "mine" in [kernel["id"] for kernel in json.loads(listed.stdout)]
    arguments = ("--device", "cpu", "--kernel", "mine", "--seq", "64", "--heads", "2", "--head-dim", "16", "--seconds", "0.01")
    measured = run(copy, "-m", "engine", "run", *arguments, "--json")
    assert measured.returncode == 0, measured.stderr
    one, = json.loads(measured.stdout)
    assert one["kernel"] == "mine"
    assert one["check"]["ok"]


def test_two_kernels_of_one_id_are_refused_by_both_files(copy: Path) -> None:
    (copy / "kernels/attention/mine.py").write_text(KERNEL.replace("ID", '"naive"'))
    error = sentence(copy, "from kernels.catalog import catalog; catalog()")
    assert error.startswith("kernels.catalog.DuplicateKernelError: kernel 'naive' is in ")
    assert str(copy / "kernels/attention/naive.py") in error
    assert str(copy / "kernels/attention/mine.py") in error
    assert error.endswith("rename one")


def test_a_family_is_one_folder(copy: Path) -> None:
    (copy / "kernels/others").mkdir()
    (copy / "kernels/others/__init__.py").write_text("")
    (copy / "kernels/others/mine.py").write_text(KERNEL.replace("ID", '"mine"'))
    assert "mine" in said(copy, "from kernels.catalog import catalog\nprint(json.dumps(list(catalog())))")


def test_a_model_is_one_file(copy: Path) -> None:
    (copy / "assets/models/aardvark.toml").write_text(MODEL)
    code = "from engine.models.shapes import load\nprint(json.dumps([model.id for model in load()]))"
    assert said(copy, code)[0] == "aardvark"
    (copy / "assets/models/aardvark.toml").write_text(MODEL.replace("heads = 8", "heads = 'many'", 1))
    error = sentence(copy, "from engine.models.shapes import load; load()")
    assert error == "engine.models.shapes.ModelError: aardvark.toml: Expected `int`, got `str` - at `$.heads`"


def test_a_simulated_gpu_is_one_file(copy: Path) -> None:
    devices = copy / "assets/devices"
    text = (devices / "t4.toml").read_text().replace('title = "T4"', 'title = "My GPU"')
    (devices / "mine.toml").write_text(text)
    listed = run(copy, "-m", "engine", "devices", "--json")
    assert {"id": "sim:mine", "name": "My GPU (simulated)"}.items() <= next(
        device for device in json.loads(listed.stdout) if device["id"] == "sim:mine").items()
    (devices / "mine.toml").write_text(text.replace("sms = 40", "sms = 'forty'"))
    error = sentence(copy, "from engine.simulator.spec import load; load()")
    assert error == f"engine.simulator.figures.SpecError: {devices / 'mine.toml'}: sms: expected `int`, got `str`"


PLOTS = "from app.plots import plots\nprint(json.dumps({plot.id: plot.title for plot in plots().values()}))"


def test_a_plot_is_one_file(copy: Path) -> None:
    (copy / "app/plots/mine.py").write_text(PLOT.replace("ID", '"mine"'))
    assert said(copy, PLOTS)["mine"] == "A plot of my own"


def test_two_plots_of_one_id_are_refused_by_both_files(copy: Path) -> None:
    (copy / "app/plots/mine.py").write_text(PLOT.replace("ID", '"latency"'))
    error = sentence(copy, f"import json\n{PLOTS}")
    assert error == "ValueError: two plots have the id 'latency': latency.py and mine.py; rename one"


def test_a_lab_is_one_file_named_as_its_id(copy: Path) -> None:
    (copy / "app/labs/mine.py").write_text(LAB.replace("ID", '"mine"'))
    code = "from app.labs import load, names\nprint(json.dumps(['mine' in names(), load('mine').title]))"
    assert said(copy, code) == [True, "A lab of my own"]
    (copy / "app/labs/mine.py").write_text(LAB.replace("ID", '"attention"'))
    error = sentence(copy, "from app.labs import load; load('mine')")
    assert error == "ValueError: app/labs/mine.py has no LAB with the id 'mine'"
