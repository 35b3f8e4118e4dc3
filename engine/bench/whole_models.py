"""Rows of tables that are of a whole model: what is run, what the simulator says of it, and what a plain roofline does.

Without torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from statistics import median
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from engine.batching.work import Batching
from engine.decoding import CacheKind, Decoding, Lane, Model
from engine.models import shapes
from engine.simulator.decoding import By, Step, step
from engine.simulator.figures import DeviceSpec
from engine.simulator.prediction import Unpredictable
from kernels.contract.workload import DType

MAKERS: dict[str, By] = {"ours": "ours", "transformers": "eager"}
UNITS = ("s", "tokens_per_s", "ms")  # of a run with its prompt, of the median step, of a step behind the prompt


class Generation(Struct, frozen=True, kw_only=True, tag="decoding"):
    """A run: from a prompt of so many tokens so many new ones, of `batch` sequences.

    Attributes:
        model: of assets/models.
        host_ms: of one step, where it is known or chosen; left out, as the simulator has it.

    Raises:
        ValueError: there is no such model, or what a Decoding refuses.
    """

    model: str
    cache: CacheKind = "dense"
    dtype: DType = "float16"
    batch: int = 1
    prompt: int = 16
    new: int = 1
    host_ms: Annotated[float, Meta(gt=0, le=1e6)] | None = None

    def __post_init__(self) -> None:
        if self.model not in _models():
            raise ValueError(f"there is no model {self.model!r}: choose from {', '.join(_models())}")
        _ = self.decoding

    @property
    def decoding(self) -> Decoding:
        """In one lane, with the KV heads of the model."""
        model = _models()[self.model]
        lane = Lane(cache=self.cache, kv_heads=model.kv_heads)
        return Decoding(model=model, lanes=(lane,), batch=self.batch, prompt=self.prompt, new=self.new, dtype=self.dtype)

    @property
    def name(self) -> str:
        kind = "uncached" if self.cache == "none" else self.cache
        return f"{self.model} {kind} {self.dtype} B{self.batch} {self.prompt}+{self.new}"


class Found(NamedTuple):
    """Of one row, in the table's unit, and what limits most of its steps."""

    predicted: float
    limiter: str
    roofline: float


def found(run: Generation, maker: str, spec: DeviceSpec, clock_hz: float | None, unit: str) -> Found:
    """What is said of a run. Raises: Unpredictable with the reason."""
    if maker not in MAKERS:
        raise Unpredictable(f"{maker} decodes no model: choose from {', '.join(MAKERS)}")
    peak = spec.flops_per_clock(run.dtype)
    decoding = run.decoding
    steps = [step(decoding.model, decoding.lanes[0], run.dtype, run.batch, cached, new, spec, clock_hz, by=MAKERS[maker],
                  host_s=None if run.host_ms is None else run.host_ms / 1e3) for cached, new in _passes(run, unit)]
    assert peak is not None  # else the steps are unpredictable
    rates = peak * spec.sms * (clock_hz or spec.clock_hz), spec.bandwidth_bytes_per_s
    bounds = [max(_flops(decoding, cached, new) / rates[0], (one.weights_bytes + one.kv_bytes) / rates[1])
              for one, (cached, new) in zip(steps, _passes(run, unit), strict=True)]
    return Found(_in_unit(run, [one.seconds for one in steps], unit), _limiter(steps), _in_unit(run, bounds, unit))


def _passes(run: Generation, unit: str) -> Iterator[tuple[int, int]]:
    """(cached, new) of each pass that the unit is of: the prompt makes the first token."""
    if unit == "s":
        yield 0, run.prompt
    for made in range(0 if unit == "ms" else 1, run.new):
        yield run.prompt + made - (unit != "ms"), 1


def _in_unit(run: Generation, seconds: list[float], unit: str) -> float:
    if unit == "s":
        return sum(seconds)
    return run.batch / median(seconds) if unit == "tokens_per_s" else median(seconds) * 1e3


def _limiter(steps: list[Step]) -> str:
    limiters = [one.limiter for one in steps]
    return max(dict.fromkeys(limiters), key=limiters.count)


def _flops(decoding: Decoding, cached: int, new: int) -> int:
    """Nominal, of a pass: of a token behind a cache as Batching has it; of all tokens 2 for each weight of the layers, of the
    last layer for one of each sequence, and 4 H D for each pair that attention sees."""
    model, lane = decoding.model, decoding.lanes[0]
    tokens = cached + new
    if lane.cache != "none" and new == 1:
        return Batching(work="model", model=model, cached=cached, dtype=decoding.dtype).flops(decoding.batch)
    head, layers = model.vocab * model.hidden, _matrices(model)
    pairs = tokens * (tokens + 1) // 2
    return 2 * decoding.batch * (layers * tokens + head + 2 * model.layers * model.heads * model.head_dim * pairs)


def _matrices(model: Model) -> int:
    """Weights of the matrices of all layers."""
    up = model.mlp * (3 if model.activation == "swiglu" else 2)
    return model.layers * model.hidden * ((2 * model.heads + 2 * model.kv_heads) * model.head_dim + up)


@cache
def _models() -> dict[str, Model]:
    return {model.id: model for model in shapes.load()}
