"""From a ConfigureDecoding to a plan: which lanes run, in how much memory. Answers without torch."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from engine import memory
from engine.decoding import MOST, Decoding, Lane
from engine.models import memory as models_memory
from engine.models.operations import SMS
from engine.protocol import ConfigureDecoding, DecodingPlanned, LanePlan
from kernels.contract import Device


def plan(configure: ConfigureDecoding, device: Device, free: int) -> DecodingPlanned:
    """A plan for every lane, those that cannot run with the reason why. `free`: bytes that a run may take on the device."""
    decoding = configure.decoding
    plans = [_plan(decoding, lane, device, free) for lane in decoding.lanes]
    plans, peak = _fit_together(plans, decoding, device, free)
    return DecodingPlanned(
        generation=configure.generation, device=device.id, decoding=decoding, plans=tuple(plans), peak_memory_bytes=peak,
        memory_bytes=free,
    )


def peak_bytes(decoding: Decoding, lanes: Sequence[Lane], device: Device) -> int:
    """The predicted peak of these lanes side by side."""
    shape = replace(decoding, lanes=tuple(lanes))
    return models_memory.peak_bytes(shape, device.kind, fused=device.kind != "cpu", sampling=decoding.temperature > 0,
                                    sms=device.sms or SMS)


def _activation_bytes(decoding: Decoding, lane: Lane, device: Device) -> int:
    """Of the larger of a lane's passes."""
    passes = models_memory.predicted(decoding, lane, fused=device.kind != "cpu", sampling=decoding.temperature > 0)
    return max(map(sum, passes))


def _plan(decoding: Decoding, lane: Lane, device: Device, free: int) -> LanePlan:
    def needed(tokens: int, batch: int) -> int:
        shape = replace(decoding, lanes=(lane,), batch=batch, prompt=min(decoding.prompt, tokens - 1),
                        new=tokens - min(decoding.prompt, tokens - 1))
        return peak_bytes(shape, [lane], device)

    peak = needed(decoding.tokens, decoding.batch)
    longest = memory.longest(lambda tokens: needed(max(2, tokens), decoding.batch) <= free, decoding.model.context)
    largest = memory.longest(lambda batch: needed(decoding.tokens, max(1, batch)) <= free, MOST["batch"])
    return LanePlan(
        lane=lane, weights_bytes=decoding.weights_bytes(lane), kv_bytes=decoding.kv_bytes(lane, decoding.tokens),
        kv_allocated_bytes=decoding.kv_allocated_bytes(lane), activations_bytes=_activation_bytes(decoding, lane, device),
        peak_memory_bytes=peak, longest=longest, largest_batch=largest,
        refused=_too_large(decoding, peak, free, device, longest or 0, largest or 0) if peak > free else None,
    )


def _too_large(decoding: Decoding, peak: int, free: int, device: Device, longest: int, largest: int) -> str:
    fitting = [f"{longest:,} tokens of a sequence" if longest > 1 else "", f"a batch of {largest:,}" if largest else ""]
    remedy = f"choose at most {' or '.join(filter(None, fitting))}" if any(fitting) else "choose a smaller model"
    return (f"{decoding.model.title} needs {memory.text(peak)} here and {memory.text(free)} are free on {device.id}: {remedy}")


def _fit_together(
    plans: list[LanePlan], decoding: Decoding, device: Device, free: int
) -> tuple[list[LanePlan], int]:
    """Refuses the largest lane as long as those that would fit alone do not fit side by side; the plans, and their peak."""
    while True:
        running = [plan for plan in plans if not plan.refused]
        peak = peak_bytes(decoding, [plan.lane for plan in running], device) if running else 0
        if peak <= free:
            return plans, peak
        largest = max(running, key=lambda plan: plan.peak_memory_bytes)
        reason = (f"it does not fit beside the other lanes: together they need {memory.text(peak)} and {memory.text(free)} are "
                  f"free on {device.id}: choose fewer lanes, or fewer tokens")
        plans = [replace(plan, refused=reason) if plan is largest else plan for plan in plans]
