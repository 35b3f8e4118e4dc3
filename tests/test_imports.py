"""What importing costs: the window loads no torch, triton or pynvml, and its shell no pyqtgraph either."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = ("torch", "triton", "pynvml")


def loaded(module: str, watched: tuple[str, ...]) -> list[str]:
    """Which of these a process has loaded after importing that module and nothing else."""
    code = f"import sys, {module}; print(*(name for name in {watched!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("module", ["app", "app.__main__", "engine.client", "engine.options", "engine.record",
                                    "engine.models.memory", "engine.simulator.spec"])
def test_a_front_end_begins_with_neither_torch_nor_qt(module: str) -> None:
    assert loaded(module, (*NEVER, "PySide6", "pyqtgraph")) == []


def test_the_shell_is_painted_without_pyqtgraph() -> None:
    assert loaded("app.window", (*NEVER, "pyqtgraph", "PySide6")) == ["PySide6"]


def test_the_views_need_no_torch() -> None:
    assert loaded("app.labs.attention", NEVER) == []


@pytest.mark.parametrize("module", ["kernels.contract", "kernels.catalog", "engine.session", "engine.serve", "engine.__main__"])
def test_the_engine_plans_without_torch_and_shows_nothing(module: str) -> None:
    assert loaded(module, (*NEVER, "PySide6", "pyqtgraph")) == []


def test_the_catalog_is_scanned_without_torch() -> None:
    assert loaded("kernels.catalog as c; c.catalog()", ("torch", "pynvml", "PySide6")) == []
