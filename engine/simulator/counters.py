"""A simulated GPU's counters, as they would be while a kernel runs and while none does."""

from __future__ import annotations

from engine.protocol import DeviceSample, Predicted
from engine.simulator.forecast import gpu_of
from kernels.contract import Device

LACKING = ("power_w", "power_limit_w", "temperature_c", "throttle", "memory_clock_hz")


class Counters:
    """`running` and `memory_bytes` are what whoever runs something there sets; `sample` may be called from another thread."""

    def __init__(self, device: Device) -> None:
        gpu = gpu_of(device)
        self._device, self._clock_hz = device, gpu.clock_hz if gpu else None
        self.running: Predicted | None = None
        self.memory_bytes = 0

    def sample(self, t_ns: int) -> DeviceSample:
        """The counters now."""
        running, share = self.running, 0.0
        if running is not None and running.time_ns and self._device.bandwidth_bytes_per_s:
            moved = (running.dram_read_bytes or 0) + (running.dram_write_bytes or 0)
            share = moved / (running.time_ns * 1e-9) / self._device.bandwidth_bytes_per_s
        return DeviceSample(
            t_ns=t_ns, device=self._device.id, utilisation=float(running is not None), memory_used_bytes=self.memory_bytes,
            memory_total_bytes=self._device.memory_bytes, dram_utilisation=share, sm_clock_hz=self._clock_hz,
            missing=dict.fromkeys(LACKING, "it is not simulated"), source="simulator")
