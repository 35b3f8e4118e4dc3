"""What kernels can run on here: GPUs through NVML without torch, numbered as CUDA numbers them, and this CPU."""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from engine.nvml import Nvml, text
from kernels.contract import Device

COPY_BYTES = 32 << 20


class _Gpu(NamedTuple):
    number: int  # NVML's
    handle: object
    uuid: str


@cache
def library() -> Nvml:
    """NVML, opened once."""
    return Nvml()


def find(nvml: Nvml | None = None) -> tuple[Device, ...]:
    """The GPUs that CUDA would show, then the CPU. No GPU, or no NVML, is no error."""
    return (*_gpus(nvml or library()), _cpu())


def handle(device: Device, nvml: Nvml) -> object | None:
    """NVML's handle of a GPU, by its UUID."""
    return nvml.query("nvmlDeviceGetHandleByUUID", device.uuid, key=device.uuid) if device.uuid else None


def _gpus(nvml: Nvml) -> list[Device]:
    driver = text(nvml.query("nvmlSystemGetDriverVersion"))
    known = [_Gpu(index, handle, text(nvml.query("nvmlDeviceGetUUID", handle, key=(index, part))))
             for index in range(nvml.query("nvmlDeviceGetCount") or 0)
             for part, handle in enumerate(_parts(nvml, index))]
    return [_device(nvml, f"cuda:{place}", gpu, driver) for place, gpu in enumerate(_visible(known))]


def _parts(nvml: Nvml, index: int) -> list[object]:
    """The handle of a GPU, or those of its MIG instances where it is divided."""
    gpu = nvml.query("nvmlDeviceGetHandleByIndex", index, key=index)
    mode = nvml.query("nvmlDeviceGetMigMode", gpu, key=index) if gpu is not None else None
    if not (mode and mode[0]):
        return [] if gpu is None else [gpu]
    most = nvml.query("nvmlDeviceGetMaxMigDeviceCount", gpu, key=index) or 0
    parts = [nvml.query("nvmlDeviceGetMigDeviceHandleByIndex", gpu, i, key=(index, i)) for i in range(most)]
    return [part for part in parts if part is not None]


def _visible(known: list[_Gpu]) -> list[_Gpu]:
    """Those that CUDA shows: of MIG instances the first alone. Source: NVIDIA's MIG user guide, device enumeration."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = known if wanted is None else _named(known, wanted)
    return shown[:1] if shown and shown[0].uuid.startswith("MIG-") else shown


def _named(known: list[_Gpu], wanted: str) -> list[_Gpu]:
    """As CUDA reads it: a name that no GPU has, or more than one, ends the list; one given twice voids it.

    Source: CUDA's programming guide, environment variables; torch.cuda._parse_visible_devices.
    """
    chosen: list[_Gpu] = []
    for name in (part.strip() for part in wanted.split(",")):
        if name.isdecimal():
            match = [gpu for gpu in known if gpu.number == int(name)][:1]
        else:
            match = [gpu for gpu in known if len(name) > 4 and gpu.uuid.startswith(name)]
        if len(match) != 1:
            break
        if match[0] in chosen:
            return []
        chosen += match
    return chosen


def _device(nvml: Nvml, id: str, gpu: _Gpu, driver: str) -> Device:
    key, handle = gpu.uuid or gpu.number, gpu.handle
    memory = nvml.query("nvmlDeviceGetMemoryInfo", handle, key=key)
    capability = nvml.query("nvmlDeviceGetCudaComputeCapability", handle, key=key)
    width = nvml.query("nvmlDeviceGetMemoryBusWidth", handle, key=key)
    clock = nvml.query("nvmlDeviceGetMaxClockInfo", handle, 2, key=key)  # 2: NVML_CLOCK_MEM
    return Device(
        id=id, kind="cuda", name=text(nvml.query("nvmlDeviceGetName", handle, key=key)) or f"GPU {gpu.number}", uuid=gpu.uuid,
        capability=tuple(capability) if capability else None, memory_bytes=memory.total if memory else None,
        bandwidth_bytes_per_s=2 * clock * 1e6 * width / 8 if width and clock else None,  # two transfers a clock
        bandwidth_provenance="spec", driver=driver,
    )


@cache
def _cpu() -> Device:
    cores = psutil.cpu_count(logical=True) or 1
    return Device(
        id="cpu", kind="cpu", name=_cpu_name(), sms=cores, l2_bytes=_l2_bytes(), memory_bytes=psutil.virtual_memory().total,
        bandwidth_bytes_per_s=_copy_bandwidth(), bandwidth_provenance="measured",
    )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def _l2_bytes() -> int | None:
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(size.rstrip("KM")) << (20 if size.endswith("M") else 10)
    except (OSError, ValueError):
        return None


def _copy_bandwidth() -> float:
    """Bytes read and written a second by one thread copying a buffer that no cache holds: the best of three."""
    source = np.ones(COPY_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return 2 * COPY_BYTES / min(times)
