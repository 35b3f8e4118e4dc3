"""A device's own counters: NVML on a GPU, psutil on the CPU. Blocking but quick; slow fields are kept for a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from engine.devices import handle, library
from engine.nvml import Nvml
from engine.protocol import DeviceSample
from kernels.contract import Device

SLOW_S = 1.0
GPM_S = 0.12  # GPM samples closer than 100 ms apart are wrong. Source: measured on an H200
GPM_DRAM = 10  # NVML_GPM_METRIC_DRAM_BW_UTIL
THROTTLE = {  # NVML's clocks-event reasons, in words
    0x4: "power cap", 0x8: "hardware slowdown", 0x10: "sync boost", 0x20: "software thermal limit",
    0x40: "hardware thermal limit", 0x80: "power brake", 0x100: "display clocks",
}


class Sampler:
    """Samples one device. `sample` may be called as often as wanted."""

    def __init__(self, device: Device, nvml: Nvml | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._device, self._clock = device, clock
        self._slow: tuple[float, dict[str, Any]] = (-SLOW_S, {})
        if device.kind == "cuda":
            self._nvml = nvml or library()
            self._handle = handle(device, self._nvml)
            self._gpm = _Gpm(self._nvml, self._handle, clock)
        elif device.kind == "cpu":
            psutil.cpu_percent()  # the first call only starts the interval

    def sample(self, t_ns: int) -> DeviceSample:
        """The counters now; what the device does not offer is None, with the reason in `missing`."""
        return self._host(t_ns) if self._device.kind == "cpu" else self._gpu(t_ns)

    def _host(self, t_ns: int) -> DeviceSample:
        ram = psutil.virtual_memory()
        frequency = psutil.cpu_freq()
        missing = dict.fromkeys(("power_w", "temperature_c", "dram_utilisation", "throttle"), "a CPU does not report it")
        if not frequency:
            missing["sm_clock_hz"] = "the system does not report it"
        return DeviceSample(
            t_ns=t_ns, device=self._device.id, utilisation=psutil.cpu_percent() / 100,
            memory_used_bytes=ram.total - ram.available,
            memory_total_bytes=ram.total, sm_clock_hz=frequency.current * 1e6 if frequency else None, missing=missing,
            source="psutil",
        )

    def _gpu(self, t_ns: int) -> DeviceSample:
        rates, memory = self._query("nvmlDeviceGetUtilizationRates"), self._memory()
        power, clock = self._query("nvmlDeviceGetPowerUsage"), self._query("nvmlDeviceGetClockInfo", 1)
        slow = self._slow_fields()
        dram = self._gpm.dram_utilisation()
        values: dict[str, Any] = {
            "utilisation": None if rates is None else rates.gpu / 100, "memory_used_bytes": memory and memory.used,
            "memory_total_bytes": memory and memory.total, "dram_utilisation": dram,
            "power_w": None if power is None else power / 1e3,
            "sm_clock_hz": None if clock is None else clock * 1e6, **slow,
        }
        missing = {name: self._why(name) for name, value in values.items() if value is None}
        return DeviceSample(t_ns=t_ns, device=self._device.id, missing=missing, **values)

    def _memory(self) -> Any:
        version = getattr(self._nvml.module, "nvmlMemory_v2", None)
        found = self._query("nvmlDeviceGetMemoryInfo", version) if version else None
        return found or self._query("nvmlDeviceGetMemoryInfo")

    def _slow_fields(self) -> dict[str, Any]:
        at, fields = self._slow
        if self._clock() - at < SLOW_S:
            return fields
        limit, memory_clock = self._query("nvmlDeviceGetEnforcedPowerLimit"), self._query("nvmlDeviceGetClockInfo", 2)
        reasons = self._query("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = self._query("nvmlDeviceGetCurrentClocksThrottleReasons")
        fields = {
            "temperature_c": self._query("nvmlDeviceGetTemperature", 0), "power_limit_w": None if limit is None else limit / 1e3,
            "memory_clock_hz": None if memory_clock is None else memory_clock * 1e6,
            "throttle": None if reasons is None else tuple(word for bit, word in THROTTLE.items() if reasons & bit),
        }
        self._slow = (self._clock(), fields)
        return fields

    def _query(self, name: str, *arguments: Any) -> Any:
        if self._handle is None:
            return None
        return self._nvml.query(name, self._handle, *arguments, key=(self._device.id, arguments))

    def _why(self, field: str) -> str:
        if self._handle is None:
            return self._nvml.reason or "NVML does not see this GPU"
        if field == "dram_utilisation":
            return self._gpm.reason
        return "this GPU does not report it"


class _Gpm:
    """DRAM bandwidth in use, from the GPU performance monitor of Hopper and newer."""

    def __init__(self, nvml: Nvml, handle: object | None, clock: Callable[[], float]) -> None:
        self._nvml, self._handle, self._clock = nvml, handle, clock
        self._samples: list[Any] = []
        self._at = clock()
        self._value: float | None = None
        self.reason = "the first reading takes two samples"
        support = nvml.query("nvmlGpmQueryDeviceSupport", handle, key="gpm") if handle is not None else None
        if not getattr(support, "isSupportedDevice", 0):
            self.reason = "only Hopper and newer report it"
            return
        self._samples = [nvml.query("nvmlGpmSampleAlloc", key=i) for i in range(2)]
        if None in self._samples or not self._take(0):
            self._samples, self.reason = [], "the driver gave no samples"

    def _take(self, place: int) -> bool:
        self._nvml.query("nvmlGpmSampleGet", self._handle, self._samples[place], key="gpm")
        return ("nvmlGpmSampleGet", "gpm") not in self._nvml.missing

    def dram_utilisation(self) -> float | None:
        """0 to 1 of the peak, over the time since the last reading; the last value where that was too short ago."""
        if not self._samples or self._clock() - self._at < GPM_S:
            return self._value
        self._at = self._clock()
        if not self._take(1):
            return None
        module = self._nvml.module
        metrics = module.c_nvmlGpmMetricsGet_t()
        metrics.version, metrics.numMetrics = module.NVML_GPM_METRICS_GET_VERSION, 1
        metrics.sample1, metrics.sample2 = self._samples
        metrics.metrics[0].metricId = GPM_DRAM
        if self._nvml.query("nvmlGpmMetricsGet", metrics, key="gpm") is not None or (
            ("nvmlGpmMetricsGet", "gpm") not in self._nvml.missing
        ):
            self._value = metrics.metrics[0].value / 100
        self._samples.reverse()
        return self._value
