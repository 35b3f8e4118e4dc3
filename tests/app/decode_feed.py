"""Event streams of decodings: the sizes by the model's own formulas, times as memory and overhead would make them."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from engine.models import shapes
from engine.protocol import (
    DecodeSample,
    Decoding,
    DecodingPlanned,
    Device,
    Event,
    Hello,
    Lane,
    LaneDone,
    LanePlan,
    MemorySample,
    Model,
    Phase,
)
from kernels.contract import AttentionWorkload, fields_of
from tests.app import feed
from tests.app.feed import CPU, GIB, H200

MODELS = {model.id: model for model in shapes.load()}
OVERHEAD_NS = 180e3     # of a step: launches and what is small
FLOPS_PER_NS = 60e3     # where tokens are computed again
ROOM = GIB // 2


def hello() -> Hello:
    """The first event of an engine that has models."""
    base = feed.hello()
    return Hello(devices=(H200, CPU), kernels=base.kernels, fields=fields_of(AttentionWorkload),
                 models=tuple(sorted(MODELS.values(), key=lambda model: model.title.lower())))


def decoding(
    model: str = "gpt2", caches: tuple[str, ...] = ("none", "dense"), kv_heads: tuple[int, ...] = (), **changes: int | str
) -> Decoding:
    """A decoding whose lanes are each cache with each number of KV heads; those of the model where none is named."""
    shape = MODELS[model]
    lanes = tuple(Lane(cache=cache, kv_heads=heads)  # type: ignore[arg-type]
                  for heads in kv_heads or (shape.kv_heads,) for cache in caches)
    return Decoding(model=shape, lanes=lanes, **changes)  # type: ignore[arg-type]


def planned(run: Decoding, generation: int = 1, device: Device = H200, memory_bytes: int | None = None) -> DecodingPlanned:
    """The answer to a ConfigureDecoding. What does not fit is refused."""
    memory = memory_bytes or device.memory_bytes or 0
    plans = tuple(_plan(run, lane, memory) for lane in run.lanes)
    peak = max((plan.peak_memory_bytes for plan in plans if not plan.refused), default=0)
    return DecodingPlanned(generation=generation, device=device.id, decoding=run, plans=plans, peak_memory_bytes=peak,
                           memory_bytes=memory)


def _plan(run: Decoding, lane: Lane, memory: int) -> LanePlan:
    weights, held = run.weights_bytes(lane), run.kv_allocated_bytes(lane)
    rows = run.batch * (run.tokens if lane.cache == "none" else run.prompt)
    activations = rows * run.model.hidden * 8 * run.itemsize + run.batch * run.model.vocab * 4
    each = run.kv_bytes(lane, 1) or run.batch * run.model.hidden * 8 * run.itemsize
    longest, alone = max(0, (memory - weights - ROOM) // each), (held + activations) // run.batch
    peak, most = weights + held + activations + ROOM, max(0, (memory - weights - ROOM) // max(1, alone))
    why = f"it needs {peak / GIB:.1f} GiB and {memory / GIB:.1f} GiB are free: choose fewer tokens."
    refused = why if peak > memory else None
    return LanePlan(
        lane=lane, weights_bytes=weights, kv_bytes=run.kv_bytes(lane, run.tokens), kv_allocated_bytes=held,
        activations_bytes=activations, peak_memory_bytes=peak, refused=refused,
        longest=longest if longest < run.model.context else None, largest_batch=most if most < 4096 else None,
    )


def step_ns(run: Decoding, lane: Lane, position: int, device: Device = H200) -> float:
    """Time of one step: what it must read at four fifths of the bandwidth, and without a cache the work of all tokens."""
    bandwidth = 0.8 * (device.bandwidth_bytes_per_s or 20e9)
    time_ns = OVERHEAD_NS + run.step_bytes(lane, position) / bandwidth * 1e9
    if lane.cache == "none":
        time_ns += 2 * run.model.parameters(lane.kv_heads) * run.batch * position / FLOPS_PER_NS
    return time_ns * (1 + feed.wave(position / 40, lane.kv_heads) / 2)


def samples(run: Decoding, lane: Lane, generation: int = 1, device: Device = H200) -> Iterator[DecodeSample]:
    """The prompt, then each step, without the times at which they come."""
    held = run.kv_allocated_bytes(lane)
    for position in range(run.prompt, run.tokens + 1):
        first = position == run.prompt
        grown = None if device.kind == "cpu" or lane.cache == "none" else -(-held // (2 << 20)) * (2 << 20)
        yield DecodeSample(
            generation=generation, lane=lane.id, position=position, steps=1, prefill=first,
            time_ns=step_ns(run, lane, position, device) * (3 if first else 1), tokens=(position % run.model.vocab,),
            kv_bytes=run.kv_bytes(lane, position), kv_allocated_bytes=held, kv_nvml_bytes=grown,
            step_bytes=run.step_bytes(lane, max(0, position - 1)),
        )


def run(
    run: Decoding | None = None, *, until: float = 1.0, generation: int = 1, device: Device = H200,
    memory_bytes: int | None = None,
) -> list[Event]:
    """A decoding in which each lane has come a share `until` of the way; done where that is all. Lanes take turns."""
    run = run or decoding()
    plan = planned(run, generation, device, memory_bytes)
    events: list[Event] = [hello(), plan]
    going = [one.lane for one in plan.plans if not one.refused]
    events.append(Phase(generation=generation, name="measuring", total=len(going)))
    last = run.prompt + round(until * run.new)
    now, streams = 0.5, {lane: samples(run, lane, generation, device) for lane in going}
    while streams:
        for lane in list(streams):
            sample = next(streams[lane], None)
            if sample is None or sample.position > last:
                del streams[lane]
                if sample is None:
                    events.append(LaneDone(
                        t_ns=round(now * 1e9), generation=generation, lane=lane.id, tokens=((1, 2),) * run.batch))
                continue
            now += sample.time_ns * 1e-9
            events.append(_at(sample, now))
    if going:
        lane = going[-1]
        owners = {"weights": run.weights_bytes(lane), "KV cache": run.kv_allocated_bytes(lane), "activations": 24 << 20,
                  "other": 96 << 20}
        events.append(MemorySample(t_ns=round(now * 1e9), generation=generation, owners=owners))
        events.append(feed.device_sample(now, device))
    return events


def _at(sample: DecodeSample, t_s: float) -> DecodeSample:
    return replace(sample, t_ns=round(t_s * 1e9))


__all__ = ["MODELS", "Model", "decoding", "hello", "planned", "run", "samples", "step_ns"]
