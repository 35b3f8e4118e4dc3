"""What a decoding will hold beside its weights and caches, in closed form and without torch.

Each phase of a forward pass is a list of the tensors that live at its peak, as decoder.py makes them; a pass needs what its
largest phase needs. On a GPU torch's allocator rounds them (engine.memory.reserved), and each captured step keeps its own.
"""

from __future__ import annotations

from typing import NamedTuple

from engine import memory
from engine.decoding import PAGE, Decoding, Lane
from engine.models.layout import qkv_rows, shapes, up_rows

ROWS = 4096  # tokens of prompts that are computed at once, where one sequence is not longer

Blocks = tuple[int, ...]


class Activations(NamedTuple):
    """The tensors at the peak of each pass, in bytes of each."""

    prefill: Blocks
    step: Blocks


def sequences_at_once(tokens: int) -> int:
    """Whose prompts of so many tokens are computed together."""
    return max(1, ROWS // tokens)


def predicted(decoding: Decoding, lane: Lane, *, fused: bool = False, sampling: bool = False) -> Activations:
    """Activations of a lane.

    Args:
        fused: steps with a cache read it where it lies, as the kernels do. Plain torch gathers pages and widens 8 bits first.
        sampling: tokens are drawn, and not the likeliest taken.
    """
    choice = _choice(decoding, sampling)
    prompts = min(decoding.batch, sequences_at_once(decoding.prompt)) * decoding.prompt
    prefill = _largest([*_prompt(decoding, lane, prompts), choice])
    if lane.cache != "none":
        return Activations(prefill, _largest([*_step(decoding, lane, fused), choice]))
    growing = max(decoding.tokens, min(ROWS, decoding.batch * decoding.tokens))  # at most, on the way to the last token
    return Activations(prefill, _largest([*_prompt(decoding, lane, growing), choice]))


def weights_blocks(decoding: Decoding) -> Blocks:
    """Every tensor of the weights; what lanes share, once."""
    found = {item for lane in decoding.lanes for item in shapes(decoding.model, lane.kv_heads).items()}
    return tuple(_product(shape) * decoding.itemsize for _, shape in found)


def peak_bytes(decoding: Decoding, kind: str, *, fused: bool = False, sampling: bool = False) -> int:
    """The predicted peak of a run with all of its lanes: on a GPU what torch reserves, on a CPU what is allocated.

    Args:
        kind: of the device: `cuda` or `cpu`.
    """
    passes = [predicted(decoding, lane, fused=fused, sampling=sampling) for lane in decoding.lanes]
    tokens = 8 * decoding.batch * decoding.tokens
    kept = [*weights_blocks(decoding), *(decoding.kv_allocated_bytes(lane) for lane in decoding.lanes),
            *(tokens for _ in decoding.lanes)]
    peaks = [pass_ for both in passes for pass_ in both]
    if kind == "cpu":
        return sum(kept) + sum(_largest(peaks))
    graphs = [pass_.step for lane, pass_ in zip(decoding.lanes, passes, strict=True) if lane.cache != "none"]
    return memory.reserved([*kept, *_largest(peaks)]) + sum(map(memory.reserved, graphs)) + memory.WORKSPACE_BYTES


def _prompt(decoding: Decoding, lane: Lane, rows: int) -> list[Blocks]:
    """The phases of computing so many tokens of whole sequences at once."""
    model, e = decoding.model, decoding.itemsize
    some = min(ROWS, rows)  # of them, where rows do not meet
    x, width = model.hidden * e, model.heads * model.head_dim
    qkv, up, inner = qkv_rows(model, lane.kv_heads) * e, up_rows(model) * e, model.mlp * e
    rotary = model.positions == "rotary"
    angles = 2 * rows * model.head_dim // 2 * 4 if rotary else 0
    base = (decoding.batch * model.vocab * e, 8 * rows, rows * x)
    repeated = 2 * rows * width * e if lane.kv_heads < model.heads else 0
    widened = some * width * 4 if e < 4 else 0
    kv = rows * lane.kv_heads * model.head_dim
    narrowed = kv * (9 if e < 4 else 5) if lane.cache in ("int8", "fp8") else 0  # K in 8 bits while V is widened and divided
    turned = widened + 4 * some * width // 2 * 4 if rotary else 0
    return [
        (*base, rows * x if model.positions == "learned" else angles // 2, angles),
        (*base, angles, rows * qkv, some * qkv, max(some * x, turned, some * width * e if model.qk_norm else 0)),
        (*base, angles, rows * qkv, narrowed),
        (*base, angles, rows * qkv, repeated, rows * width * e, rows * model.heads * 4),
        (*base, angles, rows * width * e, some * x, some * up, some * max(x, inner)),
    ]


def _step(decoding: Decoding, lane: Lane, fused: bool) -> list[Blocks]:
    """The phases of a step with a cache at its longest."""
    model, e, batch = decoding.model, decoding.itemsize, decoding.batch
    x, width = batch * model.hidden * e, batch * model.heads * model.head_dim
    qkv, up, inner = (batch * size * e for size in (qkv_rows(model, lane.kv_heads), up_rows(model), model.mlp))
    tokens = -(-decoding.tokens // PAGE) * PAGE if lane.cache == "paged" else decoding.tokens
    cached = batch * lane.kv_heads * tokens * model.head_dim
    if fused or lane.cache == "dense":
        read = 0
    elif lane.cache == "paged":
        read = 2 * cached * e
    else:
        read = 2 * cached * (4 if e == 4 else 4 + e)
    return [
        (x, qkv, read, width * e),
        (x, qkv, x, up, max(x, inner)),
        (x, qkv, x, batch * model.vocab * e),
    ]


def _choice(decoding: Decoding, sampling: bool) -> Blocks:
    """Choosing a token of each sequence: of sampling among the likeliest, scores before and after, beside the logits."""
    scores = decoding.batch * decoding.model.vocab
    return (scores * decoding.itemsize, *((4 * scores, 4 * scores, scores) if sampling else ()))


def _largest(phases: list[Blocks]) -> Blocks:
    return max(phases, key=sum)


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
