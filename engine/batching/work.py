"""Batching as data: one piece of work at many batch sizes, its arithmetic, and the batch at which it turns from memory to math.

Free of torch: it can be sent, stored, replayed and planned with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import fmean
from typing import Literal

from msgspec import Struct

from engine.decoding import Decoding, Lane, Model
from kernels.contract.workload import ITEMSIZE, DType

Work = Literal["linear", "rnn", "model"]
MOST = 4096
RISEN = 1.25  # the last time over the first, from which on a series has left its flat part
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LIMITS = {"width": (16, 1 << 16), "steps": (2, 256), "cached": (1, 1 << 20)}


class Batching(Struct, frozen=True, kw_only=True):
    """The same work for 1 to 256 rows or sequences at once.

    linear: X [B, width] times W [width, width]. rnn: `steps` of h = tanh(W h), each one such product. model: a decoding step of
    `model` where each sequence has `cached` tokens in a dense cache.

    Raises:
        ValueError: a number out of range, no model where one is wanted, or more cached tokens than it was made for.
    """

    work: Work = "linear"
    width: int = 4096
    steps: int = 16
    model: Model | None = None
    cached: int = 512
    dtype: DType = "bfloat16"
    batches: tuple[int, ...] = BATCHES

    def __post_init__(self) -> None:
        for name, (lo, hi) in LIMITS.items():
            if not lo <= (value := getattr(self, name)) <= hi:
                raise ValueError(f"{name} {value} is out of range: choose from {lo} to {hi}")
        if self.width % 16:
            raise ValueError(f"width {self.width} is not a multiple of 16: choose one that is")
        if not self.batches or not all(1 <= batch <= MOST for batch in self.batches):
            raise ValueError(f"batches are from 1 to {MOST}, and one at least is wanted")
        if self.work == "model" and self.model is None:
            raise ValueError("decoding at many batch sizes wants a model: choose one")
        if self.work == "model" and self.model and self.cached >= self.model.context:
            raise ValueError(f"{self.cached} cached tokens are more than the context of {self.model.title}, "
                             f"{self.model.context}, has room for: choose fewer")

    def decoding(self, batch: int) -> Decoding:
        """The decoding of which the last step is measured. Only of a model."""
        assert self.model is not None
        lane = Lane(cache="dense", kv_heads=self.model.kv_heads)
        return Decoding(model=self.model, lanes=(lane,), batch=batch, prompt=self.cached, new=1, dtype=self.dtype)

    def flops(self, batch: int) -> int:
        """Of one execution: 2 B d² a product; of a model 2 B of each weight of its matrices, and 4 B H D n of attention."""
        if self.work != "model":
            return 2 * batch * self.width**2 * self.repeat
        assert self.model is not None
        m = self.model
        up = m.mlp * (3 if m.activation == "swiglu" else 2)
        matrices = m.layers * m.hidden * ((2 * m.heads + 2 * m.kv_heads) * m.head_dim + up) + m.vocab * m.hidden
        return 2 * batch * (matrices + 2 * m.layers * m.heads * m.head_dim * self.cached)

    def moved_bytes(self, batch: int) -> int:
        """What one execution must move: of each product W, and B rows in and out; of a model weights and cache."""
        item = ITEMSIZE[self.dtype]
        if self.work != "model":
            return item * (self.width**2 + 2 * batch * self.width) * self.repeat
        decoding = self.decoding(batch)
        return decoding.step_bytes(decoding.lanes[0], self.cached)

    @property
    def repeat(self) -> int:
        """Products of one execution, one after the other."""
        return self.steps if self.work == "rnn" else 1

    def made(self, batch: int) -> int:
        """What throughput counts of one execution: rows, steps of an RNN, or tokens."""
        return batch * self.repeat

    def intensity(self, batch: int) -> float:
        """Flops for a byte."""
        return self.flops(batch) / self.moved_bytes(batch)


def knee_predicted(batching: Batching, flops_per_s: float, bytes_per_s: float) -> float | None:
    """The batch at which flops at one ceiling take as long as bytes at the other; None where none up to MOST does: a
    model's cache grows with the batch, and may keep it bound by memory for good.
    """

    def memory_bound(batch: int) -> bool:
        return batching.moved_bytes(batch) / bytes_per_s > batching.flops(batch) / flops_per_s

    low, high = 0, 1
    while memory_bound(high):
        if high == MOST:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if memory_bound(middle) else (low, middle)
    return float(high)


def knee_measured(time_ns: Mapping[int, float]) -> float | None:
    """The batch at which the two lines of `fitted` meet; None before three batches are measured, or where all are flat."""
    flat, slope = fitted(list(time_ns.items())) if len(time_ns) >= 3 else (0.0, None)
    return None if slope is None else flat / slope


def fitted(points: Sequence[tuple[int, float]]) -> tuple[float, float | None]:
    """(flat time, time a row) of the two lines that are nearest to the points in the logarithm: the first so many have one
    time, the others a time in proportion to their batch. The second is None where the last time is no longer than the first.

    Args:
        points: (batch, time), of at least one.
    """
    ordered = sorted(points)
    logs = [(log(batch), log(time)) for batch, time in ordered]
    if len(logs) < 2 or ordered[-1][1] < RISEN * ordered[0][1]:
        return exp(fmean(time for _, time in logs)), None

    def lines(split: int) -> tuple[float, float, float]:
        flat, slope = fmean(t for _, t in logs[:split]), fmean(t - b for b, t in logs[split:])
        apart = sum((t - flat) ** 2 for _, t in logs[:split]) + sum((t - b - slope) ** 2 for b, t in logs[split:])
        return apart, flat, slope

    _, flat, slope = min(lines(split) for split in range(1, len(logs)))
    return exp(flat), exp(slope)


def predicted_ns(batching: Batching, batch: int, flops_per_s: float, bytes_per_s: float) -> float:
    """The roofline's time: the longer of both."""
    return 1e9 * max(batching.flops(batch) / flops_per_s, batching.moved_bytes(batch) / bytes_per_s)
