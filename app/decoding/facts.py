"""What follows from a decoding and is said in more than one place: names of lanes, exponents, pages, lengths. Free of Qt."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from app import format as fmt
from app.decoding.state import DecodeState, LaneSeries
from app.facts import shared
from engine.protocol import CacheKind, Decoding, Lane, Model
from kernels.contract.workload import PAGE

CACHE_TITLES: dict[CacheKind, str] = {"none": "no cache", "dense": "dense", "paged": "paged", "int8": "int8", "fp8": "fp8"}
OWNERS = ("weights", "KV cache", "activations", "other")
NEAR = 16               # samples around a position that a time there is the median of


def lane_title(model: Model, lane: Lane) -> str:
    """`dense GQA-4`."""
    return f"{CACHE_TITLES[lane.cache]} {shared(model.heads, lane.kv_heads)}"


def titles(state: DecodeState) -> dict[str, str]:
    """lane -> its name; how K and V are shared is left out where that is alike in all."""
    if state.decoding is None:
        return {}
    alike = len({plan.lane.kv_heads for plan in state.plans.values()}) == 1
    model, lanes = state.decoding.model, {name: plan.lane for name, plan in state.plans.items()}
    return {name: CACHE_TITLES[lane.cache] if alike else lane_title(model, lane) for name, lane in lanes.items()}


def time_at(series: LaneSeries, position: float) -> float | None:
    """Time of a step in ns around a position: the median of the nearest samples; None beyond the samples."""
    if not len(series.position) or not series.position[0] <= position <= series.position[-1]:
        return None
    at = int(np.searchsorted(series.position, position))
    return float(np.median(series.time_ns[max(0, at - NEAR):at + NEAR]))


def foretold(state: DecodeState, lane: str) -> tuple[float | None, float | None]:
    """What is predicted of a lane's step where it stands, in ns, and the signed error against the measured median; None where
    nothing is predicted, or nothing real was measured."""
    said, series = state.foretold.get(lane), state.lanes.get(lane)
    if said is None or series is None or series.median_ns is None:
        return None, None
    time_ns = float(np.interp(series.position[-1], said.at, said.time_ns))
    return time_ns, time_ns / series.median_ns - 1 if series.provenance == "measured" else None


def kv_token_bytes(decoding: Decoding, lane: Lane) -> int:
    """Bytes of the cache for one token of one sequence."""
    return decoding.kv_bytes(lane, 1) // decoding.batch


class Pages(NamedTuple):
    """A paged cache of some tokens: pages of one sequence, slots used and slots there."""

    pages: int
    used: int
    slots: int

    @property
    def waste(self) -> float:
        """The share of the slots that hold nothing."""
        return 1 - self.used / self.slots


def pages(tokens: int) -> Pages:
    """The pages that `tokens` of one sequence take."""
    count = -(-tokens // PAGE)
    return Pages(count, tokens, count * PAGE)


def longest(decoding: Decoding, lane: Lane, memory_bytes: int) -> int:
    """Tokens of each sequence that fit beside the weights, by formula: 0 where the weights alone do not fit."""
    each = decoding.kv_bytes(lane, 1)
    room = memory_bytes - decoding.weights_bytes(lane)
    return max(0, room // each) if each else 0


def computed(prompt: int, position: int, cached: bool) -> int:
    """Tokens whose k and v are computed until a sequence of `prompt` has `position`, of which the last is chosen but not
    computed: each once, or all again at each step.

    Without a cache the steps compute prompt, prompt + 1, ... n tokens: n(n + 1)/2 of them where the prompt is one token.
    """
    last = position - 1
    return last if cached else (last * (last + 1) - prompt * (prompt - 1)) // 2


def read(prompt: int, position: int, cached: bool) -> int:
    """Tokens whose k and v are read from the cache meanwhile: at each step after the prompt, those before its own."""
    last = position - 1
    return (last * (last - 1) - prompt * (prompt - 1)) // 2 if cached else 0


def compared(state: DecodeState) -> tuple[str, str] | None:
    """The lanes with and without a cache that tell what a cache does: of the same heads where there are such."""
    running = [plan.lane for plan in state.running()]
    bare = [lane for lane in running if lane.cache == "none"]
    held = [lane for lane in running if lane.cache != "none"]
    pairs = [(one, other) for one in held for other in bare]
    if not pairs:
        return None
    one, other = min(pairs, key=lambda pair: pair[0].kv_heads != pair[1].kv_heads)
    return one.id, other.id


def power_of(value: float | None) -> str:
    """`~ n^0.97`; empty where it is not known."""
    if value is None or not math.isfinite(value):
        return ""
    return f"~{fmt.SPACE}n^{abs(value) if round(value, 2) == 0 else value:.2f}".replace("-", fmt.MINUS)
