"""What kernels can run on here: GPUs through NVML without torch, numbered as CUDA numbers them, and this CPU."""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from pathlib import Path

import numpy as np
import psutil

from engine.nvml import Nvml, text
from kernels.contract import Device

COPY_BYTES = 32 << 20


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
    count = nvml.query("nvmlDeviceGetCount") or 0
    handles = [nvml.query("nvmlDeviceGetHandleByIndex", i, key=i) for i in range(count)]
    known = [(i, h, text(nvml.query("nvmlDeviceGetUUID", h, key=i))) for i, h in enumerate(handles) if h is not None]
    driver = text(nvml.query("nvmlSystemGetDriverVersion"))
    return [_gpu(nvml, f"cuda:{place}", index, handle, uuid, driver)
            for place, (index, handle, uuid) in enumerate(_visible(known))]


def _visible(known: list[tuple[int, object, str]]) -> list[tuple[int, object, str]]:
    """Those that CUDA_VISIBLE_DEVICES names, in its order; NVML's order where it is not set."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return known
    chosen = []
    for name in (part.strip() for part in wanted.split(",")):
        match = [k for k in known if (name.isdecimal() and k[0] == int(name)) or (len(name) > 4 and k[2].startswith(name))]
        if not match:  # as CUDA does: what follows a name that is not there is not shown
            break
        chosen.append(match[0])
    return chosen


def _gpu(nvml: Nvml, id: str, index: int, handle: object, uuid: str, driver: str) -> Device:
    memory = nvml.query("nvmlDeviceGetMemoryInfo", handle, key=index)
    capability = nvml.query("nvmlDeviceGetCudaComputeCapability", handle, key=index)
    width = nvml.query("nvmlDeviceGetMemoryBusWidth", handle, key=index)
    clock = nvml.query("nvmlDeviceGetMaxClockInfo", handle, 2, key=index)  # 2: NVML_CLOCK_MEM
    return Device(
        id=id, kind="cuda", name=text(nvml.query("nvmlDeviceGetName", handle, key=index)) or f"GPU {index}", uuid=uuid,
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
