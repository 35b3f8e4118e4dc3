"""What kernels can run on: the GPUs that CUDA would show, by their UUIDs, and always the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import devices
from engine.nvml import Nvml
from kernels.contract import Device
from tests.engine.fake_nvml import LOST, NOT_SUPPORTED, FakeNvml, Gpu

A, B, C = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000", "GPU-bbbb3333-0000"
PART, OTHER_PART = "MIG-cccc4444-0000", "MIG-dddd5555-0000"


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def gpus(*described: Gpu, **options: Any) -> list[Device]:
    found = devices.find(Nvml(FakeNvml(*described, **options)))
    assert [device.kind for device in found] == ["cuda"] * (len(found) - 1) + ["cpu"]
    assert [device.id for device in found[:-1]] == [f"cuda:{i}" for i in range(len(found) - 1)]
    return list(found[:-1])


@pytest.mark.parametrize("code", [9, 12, 13, 18])
def test_without_nvml_there_is_the_cpu(code: int) -> None:
    assert gpus(Gpu(A), init=code) == []


def test_a_driver_without_gpus_is_no_error() -> None:
    assert gpus() == []


def test_a_gpu_is_described_by_nvml() -> None:
    found, = gpus(Gpu(A))
    assert found == Device(
        id="cuda:0", kind="cuda", name="NVIDIA H200", uuid=A, capability=(9, 0), memory_bytes=140 << 30, driver="570.1",
        bandwidth_bytes_per_s=2 * 3201e6 * 6144 / 8, bandwidth_provenance="spec",
    )


def test_what_nvml_does_not_give_is_none() -> None:
    lacks = ("MemoryBusWidth", "CudaComputeCapability", "MemoryInfo", "Name")
    bare, whole = gpus(Gpu(A, errors={f"nvmlDeviceGet{name}": NOT_SUPPORTED for name in lacks}), Gpu(B))
    assert (bare.capability, bare.memory_bytes, bare.bandwidth_bytes_per_s, bare.name) == (None, None, None, "GPU 0")
    assert (whole.capability, whole.name) == ((9, 0), "NVIDIA H200")


def test_a_lost_gpu_is_left_out() -> None:
    class Torn(FakeNvml):
        def __getattr__(self, name: str) -> Any:
            function = super().__getattr__(name)
            if name != "nvmlDeviceGetHandleByIndex":
                return function
            return lambda index: function(index if index else Gpu(A, errors={name: LOST}))

    assert [device.uuid for device in devices.find(Nvml(Torn(Gpu(A), Gpu(B))))[:-1]] == [B]


@pytest.mark.parametrize(
    ("wanted", "uuids"),
    [
        (None, [A, B, C]), ("0,1,2", [A, B, C]), ("2,0", [C, A]), (" 1 , 2 ", [B, C]),
        (f"{C},{A}", [C, A]), ("GPU-aaaa", [A]), (f"{B},0", [B, A]),
        ("", []), ("-1", []), ("none", []), ("7", []), ("0,7,1", [A]), ("0,-1,1", [A]),
        ("GPU-", []), ("GPU-bbbb", []), ("GPU-bbbb2", [B]), ("GPU-ffff,0", []),
        ("0,0", []), (f"1,{B}", []), ("0,1,0", []), (PART, []),
    ],
)
def test_gpus_are_chosen_as_cuda_does(monkeypatch: pytest.MonkeyPatch, wanted: str | None, uuids: list[str]) -> None:
    if wanted is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    assert [device.uuid for device in gpus(Gpu(A), Gpu(B), Gpu(C))] == uuids


@pytest.mark.parametrize("wanted", [None, "2,0,1"])
def test_a_handle_is_that_of_the_uuid_whatever_the_order(monkeypatch: pytest.MonkeyPatch, wanted: str | None) -> None:
    if wanted:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    nvml = Nvml(FakeNvml(Gpu(A), Gpu(B), Gpu(C)))
    for device in devices.find(nvml)[:-1]:
        found = devices.handle(device, nvml)
        assert isinstance(found, Gpu)
        assert found.uuid == device.uuid
    assert devices.handle(Device(id="cuda:0", kind="cuda", name=""), nvml) is None
    assert devices.handle(Device(id="cuda:0", kind="cuda", name="", uuid="GPU-ffff"), nvml) is None


@pytest.mark.parametrize(
    ("wanted", "uuids"),
    [(None, [PART]), (OTHER_PART, [OTHER_PART]), ("MIG-dddd", [OTHER_PART]), (f"{OTHER_PART},{PART}", [OTHER_PART]),
     (A, []), ("0", [PART]), ("1", [B])],
)
def test_of_a_divided_gpu_one_part_is_shown(monkeypatch: pytest.MonkeyPatch, wanted: str | None, uuids: list[str]) -> None:
    if wanted:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    parts = [Gpu(PART, name="NVIDIA H200 MIG 1g.18gb", total=18 << 30), Gpu(OTHER_PART, total=35 << 30)]
    found = gpus(Gpu(A, parts=parts), Gpu(B))
    assert [device.uuid for device in found] == uuids
    sizes = {PART: 18 << 30, OTHER_PART: 35 << 30, B: 140 << 30}
    assert [device.memory_bytes for device in found] == [sizes[uuid] for uuid in uuids]


def test_a_gpu_that_knows_no_division_is_whole() -> None:
    assert [device.uuid for device in gpus(Gpu(A), lacks=("nvmlDeviceGetMigMode",))] == [A]


def test_the_cpu_is_this_computers() -> None:
    cpu = devices.find(Nvml(FakeNvml(init=12)))[-1]
    assert (cpu.id, cpu.kind, cpu.bandwidth_provenance) == ("cpu", "cpu", "measured")
    assert cpu.name
    assert cpu.sms
    assert cpu.memory_bytes
    assert cpu.bandwidth_bytes_per_s
    assert cpu.bandwidth_bytes_per_s > 0


def test_a_cpu_of_which_the_system_says_little_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert devices._cpu_name()
    assert devices._l2_bytes() is None


@pytest.mark.parametrize(("text", "size"), [("2048K\n", 2 << 20), ("4M\n", 4 << 20), ("lots", None), ("", None)])
def test_a_cache_is_read_in_bytes(monkeypatch: pytest.MonkeyPatch, text: str, size: int | None) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert devices._l2_bytes() == size
