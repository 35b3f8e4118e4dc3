"""Event streams of batchings: the plans of the engine's own planner, times as a roofline with an overhead would make them."""

from __future__ import annotations

from functools import lru_cache

from app.batching.state import MODEL, kernels_of
from engine.batching import plan as planner
from engine.batching.work import Batching, predicted_ns
from engine.models import shapes
from engine.protocol import (
    BatchingPlanned,
    BatchSample,
    Ceilings,
    Checked,
    ConfigureBatching,
    Device,
    Event,
    Hello,
    KernelInfo,
    Phase,
    Work,
)
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, fields_of
from kernels.contract.workload import DType
from tests.app import feed
from tests.app.feed import CPU, H200

MODELS = {model.id: model for model in shapes.load()}
CEILINGS = {"cuda": (780e12, 4.2e12), "cpu": (50e9, 15e9)}
OVERHEAD_NS = {"cuda": 2e3, "cpu": 40e3}
SHARE = {"batched_linear": 0.9, "torch_linear": 0.85, MODEL: 0.8}       # of the roofline, that each kernel reaches
SAMPLES = 8


def hello() -> Hello:
    """The first event of an engine that has models, and the kernels of a linear layer."""
    return Hello(devices=(H200, CPU), kernels=(*feed.hello().kernels, *_linear()), fields=fields_of(AttentionWorkload),
                 models=tuple(sorted(MODELS.values(), key=lambda model: model.title.lower())))


@lru_cache
def _linear() -> tuple[KernelInfo, ...]:
    return tuple(spec.info for spec in catalog().values() if spec.info.id in ("batched_linear", "torch_linear"))


def batching(
    work: Work = "linear", *, model: str = "llama-3-8b", width: int = 8192, steps: int = 16, cached: int = 512,
    dtype: DType = "bfloat16", batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
) -> Batching:
    """Work at some batch sizes."""
    return Batching(work=work, model=MODELS[model] if work == "model" else None, width=width, steps=steps, cached=cached,
                    dtype=dtype, batches=batches)


def planned(run: Batching, generation: int = 1, device: Device = H200, memory_bytes: int | None = None) -> BatchingPlanned:
    """The answer to a ConfigureBatching."""
    asked = ConfigureBatching(generation=generation, device=device.id, batching=run)
    return planner.plan(asked, device, memory_bytes or device.memory_bytes or 0, catalog())


def ceilings(generation: int = 1, device: Device = H200) -> Ceilings:
    """What was measured first."""
    flops, moved = CEILINGS[device.kind]
    return Ceilings(generation=generation, flops_per_s=flops, bytes_per_s=moved)


def time_ns(run: Batching, kernel: str, batch: int, turn: int = 0, device: Device = H200) -> float:
    """The roofline's time, a share slower, rounded at the knee as both limits come near each other, and an overhead."""
    flops, moved = CEILINGS[device.kind]
    limits = run.flops(batch) / flops * 1e9, run.moved_bytes(batch) / moved * 1e9
    assert max(limits) == predicted_ns(run, batch, flops, moved)
    time = (limits[0] ** 6 + limits[1] ** 6) ** (1 / 6) / SHARE[kernel] + OVERHEAD_NS[device.kind]
    return float(time * (1 + feed.wave(0.4 * turn, batch)))


def sample(
    run: Batching, kernel: str, batch: int, turn: int = 0, generation: int = 1, device: Device = H200
) -> BatchSample:
    """One timing."""
    return BatchSample(generation=generation, kernel=kernel, batch=batch, launches=8,
                       time_ns=time_ns(run, kernel, batch, turn, device))


def run(
    run: Batching | None = None, *, generation: int = 1, device: Device = H200, memory_bytes: int | None = None,
    turns: int = SAMPLES,
) -> list[Event]:
    """A batching in which each batch size has had some turns."""
    run = run or batching()
    plan = planned(run, generation, device, memory_bytes)
    going = [one.batch for one in plan.plans if not one.refused]
    points = [(kernel, batch) for batch in going for kernel in kernels_of(run)]
    events: list[Event] = [hello(), plan, ceilings(generation, device)]
    events += [Checked(generation=generation, kernel=kernel, batch=batch, ok=True, max_error=4e-3, tolerance=2e-2, rows=64)
               for kernel, batch in points if kernel != MODEL]
    events.append(Phase(generation=generation, name="measuring", done=len(points), total=len(points)))
    events += [sample(run, kernel, batch, turn, generation, device) for turn in range(turns) for kernel, batch in points]
    return [*events, feed.device_sample(3.0, device)]
