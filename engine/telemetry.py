"""A device's own counters: NVML on a GPU, psutil on the CPU. Blocking but quick; slow fields are kept for a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from engine import devices
from engine.nvml import Nvml
from engine.protocol import DeviceSample
from kernels.contract import Device

SLOW_S = 1.0
LOAD_S = 0.1  # psutil's load is 0 or nonsense over less. Source: psutil's documentation
GPM_S = 0.12  # GPM samples closer than 100 ms apart are wrong. Source: measured on an H200
GPM_DRAM = 10  # NVML_GPM_METRIC_DRAM_BW_UTIL
THROTTLE = {  # NVML's clocks-event reasons, in words
    0x4: "power cap", 0x8: "hardware slowdown", 0x10: "sync boost", 0x20: "software thermal limit",
    0x40: "hardware thermal limit", 0x80: "power brake", 0x100: "display clocks",
}
READINGS: dict[str, tuple[Any, ...]] = {  # field -> the NVML function that gives it, and what it is asked with
    "utilisation": ("nvmlDeviceGetUtilizationRates",), "power_w": ("nvmlDeviceGetPowerUsage",),
    "memory_used_bytes": ("nvmlDeviceGetMemoryInfo",), "memory_total_bytes": ("nvmlDeviceGetMemoryInfo",),
    "sm_clock_hz": ("nvmlDeviceGetClockInfo", 1), "memory_clock_hz": ("nvmlDeviceGetClockInfo", 2),
    "power_limit_w": ("nvmlDeviceGetEnforcedPowerLimit",), "temperature_c": ("nvmlDeviceGetTemperature", 0),
    "throttle": ("nvmlDeviceGetCurrentClocksThrottleReasons",),
}
HOST_LACKS = ("dram_utilisation", "power_w", "power_limit_w", "memory_clock_hz", "temperature_c", "throttle")


class Sampler:
    """Samples one device. `sample` may be called as often as wanted."""

    def __init__(self, device: Device, nvml: Nvml | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._device = device
        self._counters = _Host(clock) if device.kind == "cpu" else _Gpu(device, nvml or devices.library(), clock)

    def sample(self, t_ns: int) -> DeviceSample:
        """The counters now; what the device does not offer is None, with the reason in `missing`."""
        values = self._counters.read()
        missing = {name: self._counters.why(name) for name, value in values.items() if value is None}
        return DeviceSample(t_ns=t_ns, device=self._device.id, missing=missing, source=self._counters.source, **values)


class _Host:
    """The processor and the memory of this computer, from psutil."""

    source = "psutil"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._at = clock, clock()
        self._load: float | None = None
        psutil.cpu_percent()  # the first call only starts the interval

    def read(self) -> dict[str, Any]:
        if self._clock() - self._at >= LOAD_S:
            self._at, self._load = self._clock(), psutil.cpu_percent() / 100
        ram = psutil.virtual_memory()
        return {
            "utilisation": self._load, "memory_used_bytes": ram.total - ram.available, "memory_total_bytes": ram.total,
            "sm_clock_hz": _frequency_hz(), **dict.fromkeys(HOST_LACKS),
        }

    def why(self, field: str) -> str:
        """Why a field is missing."""
        if field == "utilisation":
            return "the first reading takes two samples"
        return "a CPU does not report it" if field in HOST_LACKS else "the system does not report it"


def _frequency_hz() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError):  # as the platform has it
        return None
    return frequency.current * 1e6 if frequency and frequency.current else None


class _Gpu:
    """A GPU's counters, from NVML."""

    source = "NVML"

    def __init__(self, device: Device, nvml: Nvml, clock: Callable[[], float]) -> None:
        self._nvml, self._id, self._clock = nvml, device.id, clock
        self._handle = devices.handle(device, nvml)
        self._gpm = _Gpm(nvml, self._handle, device.id, clock)
        self._slow_at, self._slow = -math.inf, dict[str, Any]()

    def read(self) -> dict[str, Any]:
        rates, memory = self._value("utilisation"), self._memory()
        return {
            "utilisation": None if rates is None else rates.gpu / 100,
            "memory_used_bytes": memory and memory.used, "memory_total_bytes": memory and memory.total,
            "dram_utilisation": self._gpm.dram_utilisation(), "power_w": _scaled(self._value("power_w"), 1e-3),
            "sm_clock_hz": _scaled(self._value("sm_clock_hz"), 1e6), **self._slow_fields(),
        }

    def why(self, field: str) -> str:
        """Why a field is missing."""
        if self._handle is None:
            return self._nvml.reason or "NVML does not see this GPU"
        if field == "dram_utilisation":
            return self._gpm.reason
        name, *arguments = READINGS[field]
        said = self._nvml.missing.get((name, self._key(arguments)))
        return f"NVML says {said}" if said else "NVML gave none this time"

    def _memory(self) -> Any:
        version = getattr(self._nvml.module, "nvmlMemory_v2", None)
        found = self._query("nvmlDeviceGetMemoryInfo", version) if version else None
        return found or self._query("nvmlDeviceGetMemoryInfo")

    def _slow_fields(self) -> dict[str, Any]:
        if self._clock() - self._slow_at >= SLOW_S:
            reasons = self._query("nvmlDeviceGetCurrentClocksEventReasons")
            if reasons is None:  # drivers before 535 have it by its older name
                reasons = self._value("throttle")
            self._slow = {
                "temperature_c": self._value("temperature_c"), "power_limit_w": _scaled(self._value("power_limit_w"), 1e-3),
                "memory_clock_hz": _scaled(self._value("memory_clock_hz"), 1e6),
                "throttle": None if reasons is None else tuple(word for bit, word in THROTTLE.items() if reasons & bit),
            }
            self._slow_at = self._clock()
        return self._slow

    def _value(self, field: str) -> Any:
        return self._query(*READINGS[field])

    def _query(self, name: str, *arguments: Any) -> Any:
        if self._handle is None:
            return None
        return self._nvml.query(name, self._handle, *arguments, key=self._key(arguments))

    def _key(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        return self._id, *arguments


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


class _Gpm:
    """DRAM bandwidth in use, from the GPU performance monitor of Hopper and newer."""

    def __init__(self, nvml: Nvml, handle: object | None, key: str, clock: Callable[[], float]) -> None:
        self._nvml, self._handle, self._key, self._clock = nvml, handle, key, clock
        self._at = clock()
        self._value: float | None = None
        self._samples: list[Any] = []
        self.reason = "the first reading takes two samples"
        support = nvml.query("nvmlGpmQueryDeviceSupport", handle, key=key) if handle is not None else None
        if not getattr(support, "isSupportedDevice", 0):
            self.reason = "only Hopper and newer report it"
            return
        samples = [nvml.query("nvmlGpmSampleAlloc", key=(key, i)) for i in range(2)]
        if None in samples or not self._take(samples[0]):
            self.reason = "the driver gave no samples"
        else:
            self._samples = samples

    def dram_utilisation(self) -> float | None:
        """0 to 1 of the peak, over the time since the last reading; the last value where that was too short ago."""
        if self._samples and self._clock() - self._at >= GPM_S:
            self._at, self._value = self._clock(), self._read()
            if self._value is None:
                self.reason = "the driver gave no value"
        return self._value

    def _take(self, sample: Any) -> bool:
        return self._nvml.does("nvmlGpmSampleGet", self._handle, sample, key=self._key)

    def _read(self) -> float | None:
        first, second = self._samples
        if not self._take(second):
            return None
        module = self._nvml.module
        metrics = module.c_nvmlGpmMetricsGet_t()
        metrics.version, metrics.numMetrics = module.NVML_GPM_METRICS_GET_VERSION, 1
        metrics.sample1, metrics.sample2 = first, second
        metrics.metrics[0].metricId = GPM_DRAM
        read = self._nvml.does("nvmlGpmMetricsGet", metrics, key=self._key)
        self._samples = [second, first]
        found = metrics.metrics[0]
        return found.value / 100 if read and found.nvmlReturn == 0 and math.isfinite(found.value) else None
