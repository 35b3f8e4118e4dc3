"""How long one forward pass of a decoder would take on a GPU: a step, a prompt, or a step without a cache. Without torch.

Every launch of the pass is predicted from its schedule by itself, each shape once, and times and parts are added up. Weights
and cache come from HBM unless the L2 holds all of them; activations lie in the L2 as the launch before left them. A launch that
asks for its weights while the one before runs has no gap before it.

A step's time over its length is predicted at some lengths, four to each doubling, and straight lines between; steps of our own
without a cache are filled up to the lengths that are captured, and are predicted at those. A model's first step takes some
hundreds of milliseconds to predict, that of another length some tens, and what was predicted once a tenth of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.decoding import Decoding, Lane, Model
from engine.models.activations import padded
from engine.options import knows_triton
from engine.simulator import traffic
from engine.simulator.figures import DeviceSpec
from engine.simulator.launches import Product
from engine.simulator.passes import Attention, Counted, Operation, Shape, eager
from engine.simulator.passes import ours as of_ours
from engine.simulator.prediction import Prediction, Unpredictable, predict
from engine.simulator.spec import device_of
from kernels.catalog import catalog
from kernels.contract import Config, Schedule
from kernels.contract.workload import DType

By = Literal["ours", "eager"]
PASSES: dict[By, Callable[[Shape, DeviceSpec], Iterator[Counted]]] = {"ours": of_ours, "eager": eager}
FINE = 16          # tokens between two lengths that are predicted, at least
A_DOUBLING = 4     # lengths in each doubling


class Step(Struct, frozen=True, kw_only=True):
    """One forward pass.

    Attributes:
        seconds: of the pass: the longer of device and host, which runs ahead of it.
        device_seconds: its launches and the gaps between them. host_seconds: what the host needs to make them.
        breakdown: of a prediction's parts the seconds that all launches together would take by each, and `host`.
        limiter: the host where it is slower than the device, else what takes the most of the breakdown.
        launches: kernels of the pass.
        weights_bytes: read of the weights. kv_bytes: read of K and V.
    """

    seconds: float
    device_seconds: float
    host_seconds: float
    breakdown: dict[str, float]
    limiter: str
    launches: int
    weights_bytes: int
    kv_bytes: int


class _Sum(NamedTuple):
    """A pass on the device."""

    seconds: float
    launches: float
    breakdown: dict[str, float]


def step(
    model: Model, lane: Lane, dtype: DType, batch: int, cached: int, new: int, spec: DeviceSpec,
    clock_hz: float | None = None, *, by: By | None = None, host_s: float | None = None,
) -> Step:
    """One forward pass: `new` tokens of each of `batch` sequences that hold `cached` tokens already.

    A decoding step at a position of n tokens, the last of which is chosen but not computed, is `cached` n - 1 and `new` 1,
    with a cache or without: without one all n are computed again. A prompt of P tokens is `cached` 0 and `new` P.

    Args:
        lane: the kind of cache, and how many KV heads.
        clock_hz: of the SMs; left out, the spec's.
        by: our engine on this GPU, whose steps are CUDA graphs; or an eager PyTorch decoder, a launch for each operation. Left
            out: ours, and the eager one where Triton has no matrix units.
        host_s: seconds that the host needs for a pass. Left out: none where it is captured (steps of `ours`, with a cache or
            without), else the spec's `launch_s` for each launch.

    Raises:
        Unpredictable: the GPU does not multiply the dtype, or has no room for a kernel's programs; the text is one sentence.
        ValueError: a number out of range, or more tokens than the model was made for.
    """
    if cached < 0 or new < 1 or (cached and new > 1):
        raise ValueError(f"{new} tokens behind {cached}: a pass is a prompt, or one token more")
    ours = by == "ours" or (by is None and knows_triton(device_of(spec)))
    by = "ours" if ours else "eager"
    if not ours and lane.cache not in ("none", "dense"):
        raise Unpredictable(f"a cache in {lane.cache} is our kernels', whose products Triton does not give to the matrix units "
                            f"of {spec.title}: choose none or dense")
    if spec.flops_per_clock(dtype) is None:
        raise Unpredictable(f"{spec.title} does not multiply {dtype}: choose another data type")
    tokens, steps = cached + new, new == 1
    decoding = Decoding(model=model, lanes=(lane,), batch=batch, prompt=max(1, tokens - 1), new=1, dtype=dtype)
    gpu = _gpu(msgspec.msgpack.encode(spec), clock_hz or spec.clock_hz, by)
    found = gpu.step(decoding, tokens) if steps else gpu.whole(decoding, 0, new)
    captured = by == "ours" and steps
    host = (0.0 if captured else found.launches * spec.launch_s) if host_s is None else host_s
    slowest = "host" if host > found.seconds else max(found.breakdown, key=found.breakdown.__getitem__)
    dense = replace(lane, cache="dense") if lane.cache == "none" or not steps else lane
    return Step(
        seconds=max(found.seconds, host), device_seconds=found.seconds, host_seconds=host,
        breakdown=found.breakdown | {"host": host}, limiter=slowest, launches=round(found.launches),
        weights_bytes=_weights(decoding), kv_bytes=decoding.kv_bytes(dense, tokens))


def _weights(decoding: Decoding) -> int:
    """Bytes of the weights that a pass reads."""
    return decoding.step_bytes(decoding.lanes[0], 0)


class _Gpu:
    """Passes on one GPU at one clock, each shape of an operation predicted once."""

    def __init__(self, spec: DeviceSpec, clock_hz: float, by: By) -> None:
        self._spec, self._clock_hz, self._passes = spec, clock_hz, PASSES[by]
        self._captures, self._device = by == "ours", device_of(spec)
        self._launched: dict[tuple[Operation, bool], Prediction] = {}
        self._summed: dict[Shape, _Sum] = {}

    def step(self, decoding: Decoding, tokens: int) -> _Sum:
        """A token more of each sequence, so that there are so many of each."""
        context = decoding.model.context
        if decoding.lanes[0].cache == "none" and self._captures:
            return self.whole(decoding, padded(tokens, context) - 1, 1)
        low, high = _around(tokens, context)
        first = self.whole(decoding, low - 1, 1)
        return first if low == high else _between(first, self.whole(decoding, high - 1, 1), (tokens - low) / (high - low))

    def whole(self, decoding: Decoding, cached: int, new: int) -> _Sum:
        """At exactly these lengths."""
        shape = Shape(decoding.model, decoding.lanes[0], decoding.dtype, decoding.batch, cached, new)
        if shape not in self._summed:
            self._summed[shape] = self._sum(shape, decoding)
        return self._summed[shape]

    def _sum(self, shape: Shape, decoding: Decoding) -> _Sum:
        read = _weights(decoding) + (decoding.kv_bytes(shape.lane, shape.tokens) if shape.steps else 0)
        cold = read > traffic.cache_bytes(self._spec)
        seconds, launches, breakdown = 0.0, 0, dict[str, float]()
        for times, operation in self._passes(shape, self._spec):
            if not times:
                continue
            one = self._predicted(operation, cold)
            gap = self._spec.graph_launch_s if operation.overlap else 0.0
            seconds += times * (one.seconds - gap)
            launches += times * len(one.launches)
            for name, part in one.breakdown.items():
                breakdown[name] = breakdown.get(name, 0.0) + times * (part - (gap if name == "launch" else 0.0))
        return _Sum(seconds, launches, breakdown)

    def _predicted(self, operation: Operation, cold: bool) -> Prediction:
        key = operation, cold
        if key not in self._launched:
            self._launched[key] = self._predict(operation, cold)
        return self._launched[key]

    def _predict(self, operation: Operation, cold: bool) -> Prediction:
        """`cold`: the L2 holds nothing of weights and cache. Raises: Unpredictable."""
        if isinstance(operation, Attention):
            return self._attend(operation, cold)
        kept = isinstance(operation, Product) and operation.kept != "made"
        return predict(operation.schedule(self._spec), self._spec, self._clock_hz, cold=("B",) if cold and kept else ())

    def _attend(self, operation: Attention, cold: bool) -> Prediction:
        """By the first kernel that can. Raises: Unpredictable with the last one's reason."""
        workload, reason = operation.workload, "no kernel takes this attention"
        for name in operation.kernels:
            blueprint = catalog()[name].blueprint
            assert blueprint is not None
            config = blueprint.configure(workload, self._device)
            if reasons := blueprint.constraints(workload, config, self._device):
                reason = reasons[0]
                continue
            if name == "paged" and workload.keys < config["block_n"]:  # pages of a tile that are none cannot be predicted
                workload = replace(workload, seq_kv=config["block_n"])
            for tried in _shallower(config):
                schedule = blueprint.schedule(workload, tried)
                gone = _cache_of(schedule) if cold and operation.cached else ()
                try:
                    return predict(schedule, self._spec, self._clock_hz, cold=gone)
                except Unpredictable as error:
                    reason = str(error)
        raise Unpredictable(reason)


def _shallower(config: Config) -> Iterator[Config]:
    """The configuration, and those with fewer stages, for SMs that have no room for its ring of tiles."""
    yield config
    for stages in range(config.params.get("stages", 1) - 1, 0, -1):
        yield Config(params=config.params | {"stages": stages})


def _cache_of(schedule: Schedule) -> tuple[str, ...]:
    """The operands that lie in the cache: all that is read but Q and what the launches leave each other."""
    return tuple(operand.name for operand in schedule.operands if operand.role in ("input", "saved") and operand.name != "Q")


def _around(tokens: int, context: int) -> tuple[int, int]:
    """The lengths that are predicted nearest to so many tokens, on both sides."""
    grain = max(FINE, (1 << (tokens.bit_length() - 1)) // A_DOUBLING)
    low = tokens // grain * grain
    return (tokens, tokens) if low == tokens else (max(1, low), min(context, low + grain))


def _between(first: _Sum, second: _Sum, part: float) -> _Sum:
    """On the straight line from one to the other."""

    def at(a: float, b: float) -> float:
        return a + (b - a) * part

    names = first.breakdown | second.breakdown
    return _Sum(at(first.seconds, second.seconds), at(first.launches, second.launches), {
        name: at(first.breakdown.get(name, 0.0), second.breakdown.get(name, 0.0)) for name in names})


@lru_cache(maxsize=8)
def _gpu(encoded: bytes, clock_hz: float, by: By) -> _Gpu:
    """Of a spec as MessagePack: its tables make it unfit for a key."""
    return _Gpu(msgspec.msgpack.decode(encoded, type=DeviceSpec), clock_hz, by)

