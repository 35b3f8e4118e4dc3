"""One query with one error policy, against a fake library; and that the real module has what is asked of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pynvml
import pytest

import engine
from engine.nvml import Nvml, text
from tests.engine.fake_nvml import FUNCTIONS, LOST, NO_PERMISSION, NOT_SUPPORTED, TIMEOUT, FakeNvml, Gpu


def test_the_module_that_is_not_installed_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    nvml = Nvml()
    assert not nvml.here
    assert "pynvml" in nvml.reason
    assert nvml.query("nvmlDeviceGetCount") is None
    assert nvml.does("nvmlDeviceGetCount") is False
    assert nvml.missing == {}


@pytest.mark.parametrize(
    ("code", "reason"),
    [(9, "Driver Not Loaded"), (12, "NVML Shared Library Not Found"), (13, "Function Not Found"),
     (18, "RM has detected an NVML/RM version mismatch.")],
)
def test_a_library_or_driver_that_is_absent_or_too_old_is_a_reason(code: int, reason: str) -> None:
    fake = FakeNvml(Gpu("GPU-1"), init=code)
    nvml = Nvml(fake)
    assert nvml.reason == reason
    assert nvml.query("nvmlDeviceGetCount") is None
    assert fake.calls == {"nvmlInit": 1}


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, LOST])
def test_what_is_refused_is_asked_for_once_for_each_key(code: int) -> None:
    gpu, other = Gpu("GPU-1", errors={"nvmlDeviceGetPowerUsage": code}), Gpu("GPU-2")
    fake = FakeNvml(gpu, other)
    nvml = Nvml(fake)
    assert [nvml.query("nvmlDeviceGetPowerUsage", gpu, key="a") for _ in range(5)] == [None] * 5
    assert fake.calls["nvmlDeviceGetPowerUsage"] == 1
    assert nvml.query("nvmlDeviceGetPowerUsage", other, key="b") == 350_500
    assert list(nvml.missing) == [("nvmlDeviceGetPowerUsage", "a")]


def test_what_passes_is_asked_for_again() -> None:
    gpu = Gpu("GPU-1", errors={"nvmlDeviceGetPowerUsage": TIMEOUT})
    nvml = Nvml(FakeNvml(gpu))
    assert nvml.query("nvmlDeviceGetPowerUsage", gpu) is None
    assert nvml.does("nvmlDeviceGetPowerUsage", gpu) is False
    assert nvml.missing == {}
    gpu.errors.clear()
    assert nvml.query("nvmlDeviceGetPowerUsage", gpu) == 350_500
    assert nvml.does("nvmlDeviceGetPowerUsage", gpu) is True


def test_a_function_that_this_version_lacks_is_a_reason() -> None:
    nvml = Nvml(FakeNvml(lacks=("nvmlDeviceGetCount",)))
    assert nvml.query("nvmlDeviceGetCount") is None
    assert nvml.missing == {("nvmlDeviceGetCount", None): "this NVML does not have it"}


def test_text_is_text_in_every_version() -> None:
    assert [text("a"), text(b"a"), text(None), text(b"\xff")] == ["a", "a", "", "\ufffd"]


def test_the_real_module_has_every_function_that_is_asked_for() -> None:
    sources = "".join(path.read_text() for path in Path(engine.__path__[0]).glob("*.py"))
    asked = set(re.findall(r'"(nvml[A-Z]\w+)"', sources)) - {"nvmlMemory_v2"}
    assert len(asked) > 15
    assert [name for name in sorted(asked) if not callable(getattr(pynvml, name, None))] == []
    assert asked <= set(FUNCTIONS), "the fake must know what is asked for"
    assert {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_TIMEOUT} == {NOT_SUPPORTED, TIMEOUT}
