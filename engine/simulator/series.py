"""What the simulator says of the lanes of a decoding over its positions, and of work over its batch sizes. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from engine.batching.plan import OURS, workload_of
from engine.batching.work import Batching
from engine.orders import BatchingJob, DecodingJob
from engine.planner import form_on
from engine.protocol import LanePlan, PredictedSeries
from engine.simulator.decoding import step
from engine.simulator.figures import DeviceSpec
from engine.simulator.prediction import Unpredictable, predict
from engine.simulator.spec import device_of
from kernels.contract import KernelSpec

MODEL = "model"     # the name of a whole model at many batch sizes
POSITIONS = 9       # of a run at which its steps are predicted, first and last among them

Asked = tuple[str, Callable[[], PredictedSeries]]


class Execution(NamedTuple):
    """One execution of work at a batch size, and what takes the most of it."""

    seconds: float
    limiter: str


def of_lanes(job: DecodingJob, gpu: DeviceSpec) -> Iterator[Asked]:
    """Of each lane that is not refused, its steps at some positions. Asked, each raises Unpredictable where it cannot be."""
    for plan in job.plans:
        if not plan.refused:
            yield plan.lane.id, partial(_lane, job, plan, gpu)


def of_batches(job: BatchingJob, gpu: DeviceSpec, catalog: Mapping[str, KernelSpec]) -> Iterator[Asked]:
    """Every batch size that is not refused, of our kernel or the whole model. Asked, it raises Unpredictable."""
    batches = sorted(plan.batch for plan in job.plans if not plan.refused)
    if batches:
        yield name_of(job.batching), partial(_batches, job, batches, gpu, catalog)


def name_of(batching: Batching) -> str:
    """The kernel that is predicted."""
    return MODEL if batching.work == "model" else OURS


def execution(batching: Batching, batch: int, gpu: DeviceSpec, catalog: Mapping[str, KernelSpec]) -> Execution:
    """One execution at a batch size. Raises: Unpredictable."""
    if batching.work == "model":
        decoding = batching.decoding(batch)
        one = step(decoding.model, decoding.lanes[0], batching.dtype, batch, batching.cached, 1, gpu)
        return Execution(one.seconds, one.limiter)
    device, workload = device_of(gpu), workload_of(batching, batch)
    form = form_on(catalog[OURS], device)
    config = form.configure(workload, device)
    if reasons := form.constraints(workload, config, device):
        raise Unpredictable("; ".join(reasons))
    assert form.schedule is not None
    found = predict(form.schedule(workload, config), gpu)
    return Execution(found.seconds, found.limiter)


def _lane(job: DecodingJob, plan: LanePlan, gpu: DeviceSpec) -> PredictedSeries:
    """Where each sequence holds so many tokens after a step, the last of which is chosen but not computed."""
    run, first = job.decoding, job.decoding.prompt + 2
    last = max(first, run.tokens)
    places = sorted({first + round(part * (last - first) / (POSITIONS - 1)) for part in range(POSITIONS)})
    steps = [step(run.model, plan.lane, run.dtype, run.batch, place - 2, 1, gpu) for place in places]
    return PredictedSeries(
        generation=job.generation, name=plan.lane.id, at=tuple(places), time_ns=tuple(one.seconds * 1e9 for one in steps),
        limiter=steps[-1].limiter, source=f"simulator, {gpu.title}")


def _batches(job: BatchingJob, batches: list[int], gpu: DeviceSpec, catalog: Mapping[str, KernelSpec]) -> PredictedSeries:
    each, known, why = list[Execution](), list[int](), None
    for batch in batches:
        try:
            each.append(execution(job.batching, batch, gpu, catalog))
            known.append(batch)
        except Unpredictable as error:
            why = error
    if why is not None and not each:
        raise why
    return PredictedSeries(
        generation=job.generation, name=name_of(job.batching), at=tuple(known),
        time_ns=tuple(one.seconds * 1e9 for one in each), limiter=each[-1].limiter, source=f"simulator, {gpu.title}")
