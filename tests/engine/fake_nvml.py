"""An NVML without a driver: a module object with the GPUs that a test describes, and every call counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

NOT_SUPPORTED, NO_PERMISSION, TIMEOUT, LOST = 3, 4, 10, 15
WORDS = {NOT_SUPPORTED: "Not Supported", NO_PERMISSION: "Insufficient Permissions", TIMEOUT: "Timeout", LOST: "GPU is lost",
         9: "Driver Not Loaded", 12: "NVML Shared Library Not Found", 13: "Function Not Found",
         18: "RM has detected an NVML/RM version mismatch."}


class NVMLError(Exception):
    """As pynvml's: a code and its words."""

    def __init__(self, value: int) -> None:
        super().__init__(WORDS[value])
        self.value = value


@dataclass(eq=False)
class Gpu:
    """A GPU, or a MIG instance of one (`parts` of its whole). `errors`: NVML function, or (function, argument) -> code."""

    uuid: str
    name: str = "NVIDIA H200"
    total: int = 140 << 30
    used: int = 3 << 30
    gpm: bool = True
    dram: float = 42.0
    dram_code: int = 0
    reasons: int = 0
    parts: list[Gpu] = field(default_factory=list)
    errors: dict[Any, int] = field(default_factory=dict)


class FakeNvml:
    """Looks like pynvml.

    Args:
        gpus: in NVML's order. init: the code with which nvmlInit fails.
        lacks: functions that this version does not have.
    """

    NVMLError = NVMLError
    NVML_ERROR_TIMEOUT = TIMEOUT
    nvmlMemory_v2 = 0x02000028  # noqa: N815
    NVML_GPM_METRICS_GET_VERSION = 1

    def __init__(self, *gpus: Gpu, init: int = 0, lacks: tuple[str, ...] = ()) -> None:
        self.gpus, self.calls = list(gpus), Counter[str]()
        self._init, self._lacks = init, lacks

    def __getattr__(self, name: str) -> Any:
        function: Callable[..., Any] | None = None if name in self._lacks else FUNCTIONS.get(name)
        if function is None:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls[name] += 1
            owner = arguments[0] if arguments and isinstance(arguments[0], Gpu) else None
            errors: dict[Any, int] = owner.errors if owner else {"nvmlInit": self._init} if self._init else {}
            for key in (name, (name, *(a for a in arguments[1:] if isinstance(a, int)))):
                if key in errors:
                    raise NVMLError(errors[key])
            return function(self, *arguments)

        return call

    def c_nvmlGpmMetricsGet_t(self) -> Any:  # noqa: N802
        return SimpleNamespace(metrics=[SimpleNamespace(metricId=0, nvmlReturn=0, value=0.0)])

    def by_uuid(self, uuid: str) -> Gpu:
        found = [one for gpu in self.gpus for one in (gpu, *gpu.parts) if one.uuid == uuid]
        if not found:
            raise NVMLError(NOT_SUPPORTED)
        return found[0]


def _raise(value: int) -> Any:
    raise NVMLError(value)


def _metrics(_: FakeNvml, metrics: Any) -> Any:
    first, second = metrics.sample1, metrics.sample2
    metric = metrics.metrics[0]
    assert metric.metricId == 10
    assert second["at"] > first["at"]
    metric.value, metric.nvmlReturn = second["gpu"].dram, second["gpu"].dram_code
    return metrics


def _sample(fake: FakeNvml, gpu: Gpu, sample: dict[str, Any]) -> Any:
    sample |= {"gpu": gpu, "at": fake.calls["nvmlGpmSampleGet"]}
    return sample


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "nvmlInit": lambda _: None,
    "nvmlSystemGetDriverVersion": lambda _: b"570.1",
    "nvmlDeviceGetCount": lambda fake: len(fake.gpus),
    "nvmlDeviceGetHandleByIndex": lambda fake, index: fake.gpus[index],
    "nvmlDeviceGetHandleByUUID": lambda fake, uuid: fake.by_uuid(uuid),
    "nvmlDeviceGetUUID": lambda _, gpu: gpu.uuid,
    "nvmlDeviceGetName": lambda _, gpu: gpu.name.encode(),
    "nvmlDeviceGetMigMode": lambda _, gpu: [int(bool(gpu.parts)), 0],
    "nvmlDeviceGetMaxMigDeviceCount": lambda _, gpu: 7 if gpu.parts else 0,
    "nvmlDeviceGetMigDeviceHandleByIndex": lambda _, gpu, i: gpu.parts[i] if i < len(gpu.parts) else _raise(NOT_SUPPORTED),
    "nvmlDeviceGetCudaComputeCapability": lambda _, _gpu: (9, 0),
    "nvmlDeviceGetMemoryBusWidth": lambda _, _gpu: 6144,
    "nvmlDeviceGetMaxClockInfo": lambda _, _gpu, kind: {1: 1980, 2: 3201}[kind],
    "nvmlDeviceGetPowerManagementDefaultLimit": lambda _, _gpu: 700_000,
    "nvmlDeviceGetMemoryInfo": lambda _, gpu, version=None: SimpleNamespace(
        total=gpu.total, used=gpu.used + (1 << 30 if version else 0)),
    "nvmlDeviceGetUtilizationRates": lambda _, _gpu: SimpleNamespace(gpu=75, memory=30),
    "nvmlDeviceGetPowerUsage": lambda _, _gpu: 350_500,
    "nvmlDeviceGetEnforcedPowerLimit": lambda _, _gpu: 700_000,
    "nvmlDeviceGetClockInfo": lambda _, _gpu, kind: {1: 1980, 2: 3201}[kind],
    "nvmlDeviceGetTemperature": lambda _, _gpu, kind: {0: 55}[kind],
    "nvmlDeviceGetCurrentClocksEventReasons": lambda _, gpu: gpu.reasons,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _, gpu: gpu.reasons,
    "nvmlGpmQueryDeviceSupport": lambda _, gpu: SimpleNamespace(isSupportedDevice=int(gpu.gpm)),
    "nvmlGpmSampleAlloc": lambda _: {},
    "nvmlGpmSampleGet": _sample,
    "nvmlGpmMetricsGet": _metrics,
}
