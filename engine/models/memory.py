"""What a decoding will hold, without torch: its weights and caches by formula, and what its passes make by playing them.

On a CPU a pass needs what lives at its peak. On a GPU torch's allocator keeps every segment that it ever made, and a free block
of one phase may not serve a larger tensor of the next: the passes are played on a simulated one, in the order of a run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from engine import memory
from engine.allocator import Allocator
from engine.decoding import Decoding, Lane, Model
from engine.models.activations import ROWS, Passes, largest, recordings, rows_at_once, sequences_at_once, warmed
from engine.models.layout import shapes
from engine.models.operations import FUSED_ROWS, SMS
from kernels.contract.workload import PAGE

RECORDED = 4  # captured passes that are played: those of fewer rows lie where they lay

Blocks = tuple[int, ...]


class Activations(NamedTuple):
    """The tensors at the peak of each pass, in bytes of each."""

    prefill: Blocks
    step: Blocks


class _Live:
    """A heap that knows what lives, and what lived when it was most."""

    def __init__(self) -> None:
        self.most: Blocks = ()
        self._held: dict[int, int] = {}
        self._now = self._most = self._count = 0

    def take(self, size: int) -> int:
        self._count += 1
        self._held[self._count] = size
        self._now += size
        if self._now > self._most:
            self._most, self.most = self._now, tuple(filter(None, self._held.values()))
        return self._count

    def give(self, *tensors: int | None) -> None:
        for tensor in tensors:
            if tensor is not None:
                self._now -= self._held.pop(tensor)


def predicted(decoding: Decoding, lane: Lane, *, fused: bool = False, sampling: bool = False) -> Activations:
    """Activations of a lane.

    Args:
        fused: on a GPU with our kernels: steps read a cache where it lies. Plain torch gathers pages and widens 8 bits first.
        sampling: tokens are drawn, and not the likeliest taken.
    """
    found = []
    growing = largest(decoding.batch, min(decoding.prompt + 1, decoding.tokens - 1), decoding.tokens - 1)
    for lengths in ([decoding.prompt], growing if lane.cache == "none" else []):
        heap = _Live()
        passes = Passes(decoding, lane, heap, fused=fused, sampling=sampling)
        for tokens in lengths:
            passes.choose(passes.prompts(tokens))
        if not lengths:
            passes.choose(passes.step())
        found.append(heap.most)
    return Activations(*found)


def weights_blocks(decoding: Decoding) -> Blocks:
    """Every tensor of the weights; what lanes share, once."""
    return tuple(_weights(decoding.model, tuple(lane.kv_heads for lane in decoding.lanes), decoding.itemsize))


def peak_bytes(decoding: Decoding, kind: str, *, fused: bool = False, sampling: bool = False, sms: int = SMS) -> int:
    """The predicted peak of a run with all of its lanes: on a GPU what torch reserves, on a CPU what is allocated.

    Args:
        kind: of the device: `cpu`, or that of a GPU, here or simulated.
        sms: streaming multiprocessors of a GPU.
    """
    lanes = decoding.lanes
    if kind == "cpu":
        kept = [*weights_blocks(decoding), *(size for lane in lanes for size in _kept(decoding, lane))]
        made = [predicted(decoding, lane, fused=fused, sampling=sampling) for lane in lanes]
        return sum(kept) + max(sum(blocks) for both in made for blocks in both)
    heap = _loaded(decoding.model, tuple(lane.kv_heads for lane in lanes), decoding.itemsize).beside()
    for lane in lanes:
        for size in _kept(decoding, lane):
            heap.take(size)
    if not fused or decoding.batch > FUSED_ROWS or any(_rows(decoding, lane) > FUSED_ROWS for lane in lanes):
        heap.take(memory.WORKSPACE_BYTES)  # of the products of a library
    running = [Passes(decoding, lane, heap, fused=fused, sampling=sampling, sms=sms) for lane in lanes]
    graphs = sum(_begin(passes, heap) for passes in running)
    new = 8 * decoding.batch * decoding.new
    heap.give(heap.take(new), heap.take(new))  # the tokens, with where they stand, for the host
    return heap.reserved + graphs


def _rows(decoding: Decoding, lane: Lane) -> int:
    """Tokens that a lane computes at once, at most."""
    first = decoding.prompt
    most = [first] if lane.cache != "none" else largest(decoding.batch, first, max(first, decoding.tokens - 1))
    return max(rows_at_once(decoding.batch, tokens) for tokens in most)


def _begin(passes: Passes, heap: Allocator) -> int:
    """What a lane does before its first step: its steps are captured; then the prompt. Steps that follow take no more.

    Returns:
        What its graphs keep for themselves.
    """
    decoding, graph = passes.decoding, Allocator()
    if passes.lane.cache == "none" and decoding.new > 1:
        wanted = recordings(decoding.batch, decoding.prompt, decoding.tokens)
        parts, logits = [pair for pair in wanted if pair[0] < decoding.batch], decoding.model.vocab * decoding.itemsize
        heap.take(max((some for some, _ in parts), default=0) * logits)
        for some, length in parts:
            heap.take(8 * some * length)
        passes.heap = graph
        for pair in (*warmed(wanted), *wanted[:RECORDED]):
            passes.choose(passes.group(*pair))
        passes.heap = heap
        passes.choose(heap.take(decoding.batch * logits))
        return graph.reserved
    if passes.lane.cache != "none":
        passes.choose(passes.step())
        passes.heap = graph
        passes.choose(passes.step())
        passes.heap = heap
    passes.choose(passes.prompts(decoding.prompt))
    return graph.reserved


def _kept(decoding: Decoding, lane: Lane) -> Blocks:
    """A lane's cache and tokens."""
    tokens = 8 * decoding.batch * decoding.tokens
    if lane.cache == "none":
        return (tokens,)
    cache = decoding.kv_allocated_bytes(lane)
    if lane.cache == "paged":
        beside = 4 * decoding.batch * -(-decoding.tokens // PAGE)
    else:
        beside = cache * 4 // (decoding.model.head_dim + 4) if lane.cache in ("int8", "fp8") else 0
    return (cache - beside, beside, tokens)


@lru_cache(maxsize=16)
def _loaded(model: Model, kv_heads: tuple[int, ...], itemsize: int) -> Allocator:
    """With the weights."""
    heap = Allocator()
    for size in _weights(model, kv_heads, itemsize):
        heap.take(size)
    return heap


def _weights(model: Model, kv_heads: tuple[int, ...], itemsize: int) -> list[int]:
    found = dict.fromkeys(item for heads in kv_heads for item in shapes(model, heads).items())
    return [_product(shape) * itemsize for _, shape in found]


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


__all__ = ["ROWS", "Activations", "peak_bytes", "predicted", "sequences_at_once", "weights_blocks"]
