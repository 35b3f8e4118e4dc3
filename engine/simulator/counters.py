"""A simulated GPU's counters, as they would be while a kernel runs and while none does."""

from __future__ import annotations

from engine.protocol import DeviceSample
from engine.simulator.forecast import gpu_of
from kernels.contract import Device

LACKING = ("power_w", "power_limit_w", "temperature_c", "throttle", "memory_clock_hz")


class Counters:
    """`moving` (bytes of HBM a second; None: idle) and `memory_bytes` are what whoever runs something there sets; `sample` may
    be called from another thread."""

    def __init__(self, device: Device) -> None:
        gpu = gpu_of(device)
        self._device, self._clock_hz = device, gpu.clock_hz if gpu else None
        self.moving: float | None = None
        self.memory_bytes = 0

    def sample(self, t_ns: int) -> DeviceSample:
        """The counters now."""
        moving, most = self.moving, self._device.bandwidth_bytes_per_s
        share = min(1.0, (moving or 0.0) / most) if most else None
        return DeviceSample(
            t_ns=t_ns, device=self._device.id, utilisation=float(moving is not None), memory_used_bytes=self.memory_bytes,
            memory_total_bytes=self._device.memory_bytes, dram_utilisation=share, sm_clock_hz=self._clock_hz,
            missing=dict.fromkeys(LACKING, "it is not simulated"), source="simulator")
