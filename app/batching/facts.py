"""What follows from a batching and is said in more than one place: rates, ceilings, the knee, the bytes. Free of Qt."""

from __future__ import annotations

from typing import NamedTuple

from app import format as fmt
from app.batching.state import BatchState
from engine.batching.work import knee_measured, knee_predicted, predicted_ns
from engine.protocol import Batching, Device, Work

WORKS: dict[Work, str] = {"linear": "Linear layer", "rnn": "RNN step", "model": "Whole model"}
UNITS: dict[Work, str] = {"linear": "rows/s", "rnn": "steps/s", "model": "tokens/s"}
ONES: dict[Work, str] = {"linear": "row", "rnn": "sequence", "model": "sequence"}
SHORT: dict[Work, str] = {"linear": "layer", "rnn": "recurrent network", "model": "model"}


class Achieved(NamedTuple):
    """What a median time comes to: what throughput counts a second, and flops and bytes a second."""

    per_s: float
    flops_per_s: float
    bytes_per_s: float


class Share(NamedTuple):
    """Of the measured ceilings, as fractions: above 1 where the bytes come from a cache nearer than the memory."""

    flops: float
    bytes: float


class Knee(NamedTuple):
    """The batch at which arithmetic takes over: predicted by the ceilings, and where throughput was seen to bend."""

    predicted: float | None
    measured: float | None


class Bytes(NamedTuple):
    """Of one execution: who is moved, its operand's letter for the colour, and how much."""

    name: str
    operand: str
    size: int


def achieved(state: BatchState, kernel: str, batch: int) -> Achieved | None:
    """None before its first sample."""
    point = state.points.get(kernel, {}).get(batch)
    if point is None or state.batching is None:
        return None
    per_s, plan = 1e9 / point.stats.p50, state.plans[batch]
    return Achieved(state.batching.made(batch) * per_s, plan.flops * per_s, plan.moved_bytes * per_s)


def share(state: BatchState, kernel: str, batch: int) -> Share | None:
    """None before a sample and the ceilings."""
    got, top = achieved(state, kernel, batch), state.ceilings
    return None if got is None or top is None else Share(got.flops_per_s / top.flops_per_s, got.bytes_per_s / top.bytes_per_s)


def knee(state: BatchState) -> Knee:
    """Of what the lab is about."""
    if state.batching is None:
        return Knee(None, None)
    top = state.ceilings
    predicted = knee_predicted(state.batching, top.flops_per_s, top.bytes_per_s) if top else None
    return Knee(predicted, knee_measured(state.times(state.kernels[0])))


def simulated(state: BatchState, kernel: str, batch: int) -> tuple[float | None, float | None]:
    """What the simulator says of a kernel at a batch size, in ns, and the signed error against the measured median; None where
    it says nothing, or nothing real was measured."""
    said, point = state.foretold.get(kernel), state.points.get(kernel, {}).get(batch)
    if said is None or batch not in said.at:
        return None, None
    time_ns = said.time_ns[said.at.index(batch)]
    return time_ns, time_ns / point.stats.p50 - 1 if point is not None and point.provenance == "measured" else None


def found(state: BatchState) -> str:
    """How the ceilings and the times were found: `measured` or `simulated`."""
    return state.ceilings.provenance if state.ceilings is not None else "measured"


def foretold_ns(state: BatchState, batch: int) -> float | None:
    """The roofline's time of a batch; None before the ceilings are measured."""
    if state.batching is None or state.ceilings is None:
        return None
    return predicted_ns(state.batching, batch, state.ceilings.flops_per_s, state.ceilings.bytes_per_s)


def intensity(state: BatchState, batch: int) -> float:
    """Flops for a byte. Raises: KeyError."""
    plan = state.plans[batch]
    return plan.flops / plan.moved_bytes


def parts(batching: Batching, batch: int) -> tuple[Bytes, ...]:
    """Who must be moved: of products W, X and Y; of a model its weights and the cache."""
    moved = batching.moved_bytes(batch)
    if batching.work != "model":
        rows = (moved - _fixed(batching)) // 2
        name = "W" if batching.repeat == 1 else f"{batching.repeat} {fmt.TIMES} W"
        return Bytes(name, "K", _fixed(batching)), Bytes("X", "Q", rows), Bytes("Y", "O", rows)
    weights = _fixed(batching)
    return Bytes("weights", "K", weights), Bytes("KV cache", "V", moved - weights)


def _fixed(batching: Batching) -> int:
    """Bytes of the weights, which do not grow with the batch."""
    if batching.work == "model":
        decoding = batching.decoding(1)
        return decoding.step_bytes(decoding.lanes[0], 0)
    return 2 * batching.moved_bytes(1) - batching.moved_bytes(2)


def kernel_title(state: BatchState, kernel: str, named: str) -> str:
    """What a kernel is called; of a whole model the model. `named`: as the engine names it."""
    model = state.batching.model if state.batching is not None else None
    return model.title if kernel == "model" and model is not None else named


def in_cache(batching: Batching, device: Device | None) -> bool:
    """Whether W stays in the L2 from one execution to the next, where the ceiling of the memory does not hold."""
    return (batching.work != "model" and device is not None and device.l2_bytes is not None
            and parts(batching, 1)[0].size // batching.repeat <= device.l2_bytes)


def knee_words(value: float | None) -> str:
    """`189`; n/a where there is none."""
    return fmt.count(value)


def words(batching: Batching) -> str:
    """What is done, in a line: `linear layer 4 096 × 4 096 · batch 1 to 256 · bfloat16`."""
    width = fmt.count(batching.width)
    match batching.work:
        case "linear":
            said = f"linear layer {width} × {width}"
        case "rnn":
            said = f"{fmt.count(batching.steps)} RNN steps of {width} × {width}"
        case _:
            assert batching.model is not None
            said = f"{batching.model.title} at {fmt.plural(batching.cached, 'cached token')}"
    low, high = min(batching.batches), max(batching.batches)
    return f"{said} · batch {fmt.count(low)} to {fmt.count(high)} · {batching.dtype}"
