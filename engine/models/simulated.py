"""A decoding on a GPU that is not here: the events of a run, predicted step by step. Nothing is computed. Without torch."""

from __future__ import annotations

from collections.abc import Iterator

from engine.decoding import Decoding
from engine.models.plan import plan
from engine.protocol import ConfigureDecoding, DecodeSample, DecodingPlanned, LaneDone, LanePlan, Refused
from engine.simulator.decoding import step
from engine.simulator.figures import DeviceSpec
from engine.simulator.prediction import Unpredictable
from engine.simulator.spec import device_of

SOURCE = "simulator"

Told = DecodingPlanned | DecodeSample | LaneDone | Refused


def events(decoding: Decoding, spec: DeviceSpec, generation: int = 1) -> Iterator[Told]:
    """What a session would say of the run: the plan, and of each lane that fits its prompt, its steps and its end.

    A lane whose steps cannot be predicted is refused with the reason.
    """
    device = device_of(spec)
    planned = plan(ConfigureDecoding(generation=generation, device=device.id, decoding=decoding), device, spec.memory_bytes)
    yield planned
    for lane in planned.plans:
        if lane.refused:
            continue
        try:
            yield from _lane(decoding, lane, spec, generation)
        except Unpredictable as error:
            yield Refused(generation=generation, kernel=lane.lane.id, reason=str(error))


def _lane(decoding: Decoding, plan: LanePlan, spec: DeviceSpec, generation: int) -> Iterator[Told]:
    """Raises: Unpredictable."""
    yield sample(decoding, plan, spec, generation, 0)
    for made in range(1, decoding.new):
        yield sample(decoding, plan, spec, generation, made)
    yield LaneDone(generation=generation, lane=plan.lane.id, tokens=((),) * decoding.batch)


def sample(decoding: Decoding, plan: LanePlan, spec: DeviceSpec, generation: int, made: int) -> DecodeSample:
    """Of one step of a lane, `made` new tokens after its prompt; of 0 the prompt itself, which makes the first.

    Raises:
        Unpredictable: the GPU cannot run it.
    """
    lane, held = plan.lane, decoding.prompt + made  # tokens of each sequence before it
    cached, new = (0, decoding.prompt) if made == 0 else (held - 1, 1)
    took = step(decoding.model, lane, decoding.dtype, decoding.batch, cached, new, spec)
    return DecodeSample(
        generation=generation, lane=lane.id, position=held + 1, steps=1, time_ns=took.seconds * 1e9, prefill=made == 0,
        kv_bytes=decoding.kv_bytes(lane, held), kv_allocated_bytes=decoding.kv_allocated_bytes(lane),
        step_bytes=decoding.step_bytes(lane, held), provenance="simulated", source=SOURCE)
