"""What is predicted against what the host's allocator handed out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from msgspec.structs import replace
from torch.profiler import ProfilerActivity, profile

from engine import memory
from engine.decoding import CACHES, CacheKind, Decoding, Lane, Model
from engine.models import shapes
from engine.models.generate import Generation, Sampling
from engine.models.memory import ROWS, peak_bytes, predicted, sequences_at_once, weights_blocks
from engine.models.weights import random_weights
from kernels.contract.workload import DType
from tests.engine.models.small import GPT, QWEN, TINY, decoder, tokens

SLACK = 128 * memory.KIB  # indices, and what the products of half precision take on this host


def most_allocated(run: Callable[[], None]) -> int:
    """The most bytes that lived at once beside those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize(("model", "kv_heads", "dtype", "batch", "prompt", "sampling"), [
    (TINY, 2, "float32", 3, 100, False), (TINY, 1, "float16", 60, 200, True), (GPT, 4, "bfloat16", 30, 150, False),
    (replace(GPT, vocab=50257), 4, "float32", 8, 40, True), (QWEN, 2, "float32", 16, 250, False),
], ids=["tiny", "mqa", "gpt", "vocab", "qwen"])
@pytest.mark.parametrize("kind", CACHES)
def test_activations_are_what_is_allocated(
    model: Model, kv_heads: int, dtype: DType, batch: int, prompt: int, sampling: bool, kind: CacheKind,
) -> None:
    lane, how = Lane(cache=kind, kv_heads=kv_heads), Sampling(top_k=50) if sampling else None
    decoding = Decoding(model=model, lanes=(lane,), batch=batch, prompt=prompt, new=2, dtype=dtype)
    activations = predicted(decoding, lane, sampling=sampling)
    run = Generation(decoder(model, kv_heads, dtype), kind, batch, decoding.tokens, sampling=how)
    given = tokens(model, batch, prompt)
    for forward, blocks in ((lambda: run.prefill(given), activations.prefill), (run.step, activations.step)):
        assert sum(blocks) == pytest.approx(most_allocated(forward), rel=0.03, abs=SLACK)


@pytest.mark.parametrize("model", [TINY, GPT, QWEN], ids=lambda model: model.id)
def test_weights_are_counted_once(model: Model) -> None:
    lanes = tuple(Lane(cache=kind, kv_heads=heads) for kind in ("none", "dense") for heads in (1, 4))
    pool: dict[str, torch.Tensor] = {}
    for heads in (1, 4):
        random_weights(model, heads, "float32", "cpu", 0, pool)
    decoding = Decoding(model=model, lanes=lanes, prompt=2, new=2, dtype="float32")
    assert sorted(weights_blocks(decoding)) == sorted(tensor.nbytes for tensor in pool.values())


def test_the_peak_of_a_run_is_all_that_its_lanes_hold() -> None:
    lanes = tuple(Lane(cache=kind, kv_heads=2) for kind in CACHES)
    decoding = Decoding(model=TINY, lanes=lanes, batch=4, prompt=100, new=50, dtype="float32")
    kept = 4 * TINY.parameters(2) + sum(decoding.kv_allocated_bytes(lane) for lane in lanes) + 5 * 8 * 4 * 150
    widest = max(sum(blocks) for lane in lanes for blocks in predicted(decoding, lane))
    assert peak_bytes(decoding, "cpu") == kept + widest
    assert peak_bytes(decoding, "cuda") >= kept + widest + memory.WORKSPACE_BYTES
    assert peak_bytes(decoding, "cuda", fused=True) <= peak_bytes(decoding, "cuda")


def test_prompts_are_cut_so_that_activations_stay_modest() -> None:
    llama = next(model for model in shapes.load() if model.id == "llama-3-8b")
    decoding = Decoding(model=llama, lanes=(Lane(cache="dense", kv_heads=8),), batch=256, prompt=4096, new=1, dtype="bfloat16")
    assert sum(predicted(decoding, decoding.lanes[0]).prefill) < memory.GIB
    assert [sequences_at_once(tokens) for tokens in (1, ROWS // 3, ROWS, ROWS + 1)] == [ROWS, 3, 1, 1]
