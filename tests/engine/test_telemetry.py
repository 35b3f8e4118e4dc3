"""A device's counters: in base units, None with a reason where there are none, and never asked for twice in vain."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from engine.nvml import Nvml
from engine.protocol import DeviceSample
from engine.telemetry import GPM_S, LOAD_S, SLOW_S, THROTTLE, Sampler
from kernels.contract import Device
from tests.engine.fake_nvml import LOST, NO_PERMISSION, NOT_SUPPORTED, TIMEOUT, FakeNvml, Gpu
from tests.engine.fakes import CPU

VALUES = [name for name in DeviceSample.__struct_fields__ if name not in ("t_ns", "device", "missing", "source")]


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def device(uuid: str = "GPU-1", id: str = "cuda:0") -> Device:
    return Device(id=id, kind="cuda", name="NVIDIA H200", uuid=uuid)


def sampler(gpu: Gpu, **options: Any) -> tuple[Sampler, FakeNvml, Clock]:
    fake, clock = FakeNvml(gpu, **options), Clock()
    return Sampler(device(gpu.uuid), Nvml(fake), clock), fake, clock


def explained(sample: DeviceSample) -> DeviceSample:
    """The sample, of which every missing value has a reason and no other."""
    assert set(sample.missing) == {name for name in VALUES if getattr(sample, name) is None}
    assert all(sample.missing.values())
    return sample


def test_a_gpu_gives_everything_in_base_units() -> None:
    source, _, clock = sampler(Gpu("GPU-1"))
    clock.now += GPM_S
    assert explained(source.sample(5)) == DeviceSample(
        t_ns=5, device="cuda:0", utilisation=0.75, memory_used_bytes=4 << 30, memory_total_bytes=140 << 30,
        dram_utilisation=0.42, power_w=350.5, power_limit_w=700.0, sm_clock_hz=1980e6, memory_clock_hz=3201e6,
        temperature_c=55, throttle=(), missing={}, source="NVML",
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"init": 12}, "NVML Shared Library Not Found"), ({"init": 18}, "RM has detected an NVML/RM version mismatch.")],
)
def test_without_nvml_everything_is_missing_with_its_reason(options: dict[str, int], reason: str) -> None:
    source, fake, _ = sampler(Gpu("GPU-1"), **options)
    sample = explained(source.sample(1))
    assert set(sample.missing) == set(VALUES)
    assert set(sample.missing.values()) == {reason}
    assert fake.calls == {"nvmlInit": 1}


@pytest.mark.parametrize("uuid", ["GPU-2", ""])
def test_a_gpu_that_nvml_does_not_see_is_said_so(uuid: str) -> None:
    sample = explained(Sampler(device(uuid), Nvml(FakeNvml(Gpu("GPU-1"))), Clock()).sample(1))
    assert set(sample.missing.values()) == {"NVML does not see this GPU"}


FIELDS = {
    "nvmlDeviceGetUtilizationRates": ["utilisation"], "nvmlDeviceGetMemoryInfo": ["memory_used_bytes", "memory_total_bytes"],
    "nvmlDeviceGetPowerUsage": ["power_w"], "nvmlDeviceGetEnforcedPowerLimit": ["power_limit_w"],
    "nvmlDeviceGetTemperature": ["temperature_c"], "nvmlDeviceGetClockInfo": ["sm_clock_hz", "memory_clock_hz"],
}


@pytest.mark.parametrize("function", FIELDS)
@pytest.mark.parametrize(("code", "reason"), [
    (NOT_SUPPORTED, "NVML says Not Supported"), (NO_PERMISSION, "NVML says Insufficient Permissions"),
    (LOST, "NVML says GPU is lost"),
])
def test_what_a_gpu_lacks_is_probed_once_and_the_rest_goes_on(function: str, code: int, reason: str) -> None:
    source, fake, clock = sampler(Gpu("GPU-1", errors={function: code}))
    clock.now += GPM_S
    first = explained(source.sample(1))
    assert first.missing == dict.fromkeys(FIELDS[function], reason)
    probes = fake.calls[function]
    for t in range(2, 6):
        clock.now += SLOW_S
        assert explained(source.sample(t)).missing == first.missing
    assert fake.calls[function] == probes


def test_what_passes_is_missing_once() -> None:
    gpu = Gpu("GPU-1", errors={"nvmlDeviceGetPowerUsage": TIMEOUT})
    source, _, clock = sampler(gpu)
    clock.now += GPM_S
    assert explained(source.sample(1)).missing == {"power_w": "NVML gave none this time"}
    gpu.errors.clear()
    assert source.sample(2).power_w == 350.5


@pytest.mark.parametrize("lacks", [True, False])
def test_memory_is_that_of_the_older_function_where_the_newer_is_not_there(lacks: bool) -> None:
    errors = {} if lacks else {("nvmlDeviceGetMemoryInfo", FakeNvml.nvmlMemory_v2): NOT_SUPPORTED}
    gpu = Gpu("GPU-1", errors=errors)
    fake = FakeNvml(gpu)
    if lacks:
        fake.nvmlMemory_v2 = 0
    assert Sampler(device(), Nvml(fake), Clock()).sample(1).memory_used_bytes == 3 << 30


@pytest.mark.parametrize(
    ("bits", "words"),
    [(0, ()), (0x1, ()), (0x2, ()), (0x4, ("power cap",)), (0x20 | 0x4, ("power cap", "software thermal limit")),
     (0x1FF, tuple(THROTTLE.values()))],
)
@pytest.mark.parametrize("lacks", [(), ("nvmlDeviceGetCurrentClocksEventReasons",)])
def test_throttling_is_in_words_by_either_name(bits: int, words: tuple[str, ...], lacks: tuple[str, ...]) -> None:
    source, _, _ = sampler(Gpu("GPU-1", reasons=bits), lacks=lacks)
    assert source.sample(1).throttle == words


def test_unknown_throttling_is_missing_not_none_at_all() -> None:
    names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    source, _, clock = sampler(Gpu("GPU-1", errors=dict.fromkeys(names, NOT_SUPPORTED)))
    clock.now += GPM_S
    assert explained(source.sample(1)).missing == {"throttle": "NVML says Not Supported"}


def test_the_bits_of_throttling_are_nvmls() -> None:
    names = ("SwPowerCap", "HwSlowdown", "SyncBoost", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown",
             "DisplayClockSetting")
    assert [getattr(pynvml, f"nvmlClocksEventReason{name}") for name in names] == list(THROTTLE)


def test_slow_fields_are_kept_for_a_second() -> None:
    source, fake, clock = sampler(Gpu("GPU-1"))
    for _ in range(10):
        source.sample(1)
        clock.now += SLOW_S / 10
    assert fake.calls["nvmlDeviceGetTemperature"] == 1
    assert fake.calls["nvmlDeviceGetPowerUsage"] == 10
    clock.now += SLOW_S / 10
    source.sample(1)
    assert fake.calls["nvmlDeviceGetTemperature"] == 2


# --- bandwidth in use -----------------------------------------------------------------------------------------------


def test_bandwidth_is_read_no_closer_than_the_monitor_allows() -> None:
    gpu = Gpu("GPU-1", dram=42.0)
    source, fake, clock = sampler(gpu)
    early = explained(source.sample(1))
    assert early.missing == {"dram_utilisation": "the first reading takes two samples"}
    clock.now += GPM_S
    assert source.sample(2).dram_utilisation == 0.42
    gpu.dram = 10.0
    clock.now += GPM_S / 2
    assert source.sample(3).dram_utilisation == 0.42
    clock.now += GPM_S
    assert source.sample(4).dram_utilisation == 0.1
    assert fake.calls["nvmlGpmSampleGet"] == 3


@pytest.mark.parametrize("gpu", [Gpu("GPU-1", gpm=False), Gpu("GPU-1", errors={"nvmlGpmQueryDeviceSupport": NOT_SUPPORTED})])
def test_bandwidth_of_an_older_gpu_is_missing_and_not_asked_for(gpu: Gpu) -> None:
    source, fake, clock = sampler(gpu)
    for _ in range(3):
        clock.now += GPM_S
        assert explained(source.sample(1)).missing == {"dram_utilisation": "only Hopper and newer report it"}
    assert fake.calls["nvmlGpmQueryDeviceSupport"] == 1
    assert fake.calls["nvmlGpmSampleGet"] == 0


@pytest.mark.parametrize("change", [{"dram": math.nan}, {"dram_code": NOT_SUPPORTED, "dram": 0.0}])
def test_a_metric_that_failed_is_missing_never_0(change: dict[str, Any]) -> None:
    source, _, clock = sampler(Gpu("GPU-1", **change))
    clock.now += GPM_S
    assert explained(source.sample(1)).missing == {"dram_utilisation": "the driver gave no value"}


def test_a_sample_that_failed_is_missing_and_the_next_one_counts() -> None:
    gpu = Gpu("GPU-1")
    source, _, clock = sampler(gpu)
    gpu.errors["nvmlGpmSampleGet"] = TIMEOUT
    clock.now += GPM_S
    assert explained(source.sample(1)).missing == {"dram_utilisation": "the driver gave no value"}
    gpu.errors.clear()
    clock.now += GPM_S
    assert explained(source.sample(2)).dram_utilisation == 0.42


def test_what_one_gpu_lacks_is_asked_of_the_other() -> None:
    lacks = dict.fromkeys(("nvmlGpmQueryDeviceSupport", "nvmlDeviceGetPowerUsage"), NOT_SUPPORTED)
    nvml, clock = Nvml(FakeNvml(Gpu("GPU-1", errors=lacks), Gpu("GPU-2"))), Clock()
    first, second = (Sampler(device(f"GPU-{n}", f"cuda:{n}"), nvml, clock) for n in (1, 2))
    clock.now += GPM_S
    assert set(explained(first.sample(1)).missing) == {"power_w", "dram_utilisation"}
    assert explained(second.sample(1)).missing == {}


def test_a_part_of_a_divided_gpu_is_found_by_its_own_uuid() -> None:
    lacks = ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage", "nvmlGpmQueryDeviceSupport")
    part = Gpu("MIG-7", total=18 << 30, used=1 << 30, errors=dict.fromkeys(lacks, NOT_SUPPORTED))
    nvml = Nvml(FakeNvml(Gpu("GPU-1", parts=[part])))
    sample = explained(Sampler(device("MIG-7"), nvml, Clock()).sample(1))
    assert sample.memory_total_bytes == 18 << 30
    assert set(sample.missing) == {"utilisation", "power_w", "dram_utilisation"}


# --- the processor --------------------------------------------------------------------------------------------------


def test_a_cpu_is_read_from_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda: 25.0)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2500.0))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=300))
    clock = Clock()
    source = Sampler(CPU, clock=clock)
    clock.now += LOAD_S
    sample = explained(source.sample(9))
    assert (sample.t_ns, sample.device, sample.source) == (9, "cpu", "psutil")
    assert (sample.utilisation, sample.memory_used_bytes, sample.memory_total_bytes) == (0.25, 700, 1000)
    assert sample.sm_clock_hz == 2.5e9
    assert set(sample.missing.values()) == {"a CPU does not report it"}


def test_the_load_is_never_that_of_an_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([0.0, 50.0, 80.0])
    monkeypatch.setattr(psutil, "cpu_percent", lambda: next(loads))
    clock = Clock()
    source = Sampler(CPU, clock=clock)
    assert explained(source.sample(1)).missing["utilisation"] == "the first reading takes two samples"
    clock.now += LOAD_S
    assert source.sample(2).utilisation == 0.5
    clock.now += LOAD_S / 2
    assert source.sample(3).utilisation == 0.5
    clock.now += LOAD_S / 2
    assert source.sample(4).utilisation == 0.8


@pytest.mark.parametrize("answer", [None, SimpleNamespace(current=0.0), NotImplementedError("no"), FileNotFoundError("no")])
def test_a_clock_that_the_system_hides_is_missing(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def frequency() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(psutil, "cpu_freq", frequency)
    assert explained(Sampler(CPU).sample(1)).missing["sm_clock_hz"] == "the system does not report it"


def test_this_computer_can_be_read() -> None:
    sample = explained(Sampler(CPU).sample(1))
    assert sample.memory_used_bytes
    assert sample.memory_total_bytes
    assert 0 < sample.memory_used_bytes < sample.memory_total_bytes
