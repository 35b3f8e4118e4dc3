"""From a ConfigureBatching to a plan: what each batch size takes, and which do not fit. Answers without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from engine import memory
from engine.batching.work import Batching
from engine.models.plan import peak_bytes
from engine.protocol import BatchingPlanned, BatchPlan, ConfigureBatching
from kernels.contract import Device, KernelSpec, LinearWorkload

OURS = "batched_linear"


def plan(configure: ConfigureBatching, device: Device, free: int, catalog: Mapping[str, KernelSpec]) -> BatchingPlanned:
    """A plan for every batch size. `free`: bytes that a run may take on the device."""
    batching = configure.batching
    plans = tuple(_plan(batching, batch, device, free, catalog) for batch in batching.batches)
    return BatchingPlanned(
        generation=configure.generation, device=device.id, batching=batching, plans=plans, memory_bytes=free)


def workload_of(batching: Batching, batch: int) -> LinearWorkload:
    """What a linear kernel is asked for."""
    return LinearWorkload(
        batch=batch, d_in=batching.width, d_out=batching.width, repeat=batching.repeat, dtype=batching.dtype)


def _plan(batching: Batching, batch: int, device: Device, free: int, catalog: Mapping[str, KernelSpec]) -> BatchPlan:
    programs = rows = None
    if batching.work == "model":
        decoding = batching.decoding(batch)
        peak = peak_bytes(decoding, decoding.lanes, device)
    else:
        spec, workload = catalog[OURS], workload_of(batching, batch)
        config = spec.configure(workload, device)
        peak = memory.peak_bytes(device, workload, [spec.operands(workload)])
        assert spec.schedule is not None
        programs = math.prod(axis.size for axis in spec.schedule(workload, config).launches[0].grid)
        rows = config["block_m"]
    smaller = "fewer cached tokens, or a smaller model" if batching.work == "model" else "a smaller width"
    refused = None if peak <= free else (
        f"it needs {memory.text(peak)} and {memory.text(free)} are free on {device.id}: choose {smaller}")
    return BatchPlan(
        batch=batch, flops=batching.flops(batch), moved_bytes=batching.moved_bytes(batch), peak_memory_bytes=peak,
        programs=programs, rows=rows, refused=refused)
