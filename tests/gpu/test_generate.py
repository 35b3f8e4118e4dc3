"""Decoding on the device: a captured step makes the tokens of a plain one, waits for nothing, and takes what was predicted."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from engine.decoding import CACHES, CacheKind, Decoding, Lane, Model
from engine.memory import MIB
from engine.models import shapes
from engine.models.decoder import Decoder
from engine.models.generate import Generation, Sampling
from engine.models.memory import peak_bytes
from engine.models.weights import random_weights
from kernels.contract.workload import DType

MODELS = {model.id: model for model in shapes.load()}
TINY = MODELS["tiny"]
GPT = replace(MODELS["gpt2"], layers=2, tied=False)


@pytest.fixture(autouse=True, scope="module")
def stream() -> Iterator[None]:
    """All work goes to one stream that can be captured, as in `CudaMachine`."""
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]  # PyTorch left it untyped
        yield


def decoder(model: Model, kv_heads: int, dtype: DType) -> Decoder:
    return Decoder(model, kv_heads, random_weights(model, kv_heads, dtype, "cuda", 0), dtype, "cuda")


def prompt(model: Model, batch: int, count: int) -> Tensor:
    return torch.randint(0, model.vocab, (batch, count), generator=torch.Generator().manual_seed(0)).cuda()


def generate(
    run: Decoder, kind: CacheKind, given: Tensor, new: int, graph: bool = True, how: Sampling | None = None,
    early: bool = False,
) -> Tensor:
    generation = Generation(run, kind, len(given), given.shape[1] + new, sampling=how, graph=graph)
    if early:
        generation.prepare()
    generation.prefill(given)
    for _ in range(new - 1):
        generation.step()
    found = generation.tokens()
    generation.close()
    return found


@pytest.mark.parametrize("model", [TINY, GPT], ids=lambda model: model.id)
@pytest.mark.parametrize("share", [1, 2, 4], ids=["MHA", "GQA", "MQA"])
def test_greedy_tokens_are_the_same_with_and_without_a_cache(model: Model, share: int) -> None:
    run, given = decoder(model, model.heads // share, "float32"), prompt(model, 2, 40)
    wanted = generate(run, "none", given, 200)
    for kind in ("dense", "paged"):
        for graph in (True, False):
            assert torch.equal(generate(run, kind, given, 200, graph), wanted)


@pytest.mark.parametrize("kind", CACHES[1:])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_captured_step_is_a_plain_one(kind: CacheKind, dtype: DType) -> None:
    """Drawn tokens too: the noise goes on from replay to replay as it does from step to step."""
    run, given = decoder(TINY, 2, dtype), prompt(TINY, 3, 40)
    for how in (None, Sampling(top_k=50, seed=1)):
        wanted = generate(run, kind, given, 100, False, how)
        for early in (False, True):
            assert torch.equal(generate(run, kind, given, 100, True, how, early), wanted)


@pytest.mark.parametrize(("batch", "count", "new"), [(1, 1, 130), (3, 70, 80), (90, 50, 20)], ids=["one", "few", "groups"])
def test_captured_passes_without_a_cache_make_the_tokens_of_plain_ones(batch: int, count: int, new: int) -> None:
    """Of ragged prompts too, whose ends the padding must not show; and again after a reset, over what was there."""
    run, given = decoder(GPT, 4, "float32"), prompt(GPT, batch, count)
    ragged = torch.randint(1, count + 1, (batch,), generator=torch.Generator().manual_seed(1)).cuda()
    for lengths in (None, ragged):
        found = []
        for graph in (True, False):
            generation = Generation(run, "none", batch, count + new, graph=graph)
            generation.prepare(count)
            for _ in range(2):
                generation.reset()
                generation.prefill(given, lengths)
                for _ in range(new - 1):
                    generation.step()
                found.append(generation.tokens())
            generation.close()
        assert all(torch.equal(other, found[-1]) for other in found)


@pytest.mark.parametrize("kind", CACHES)
def test_a_step_waits_for_nothing(kind: CacheKind) -> None:
    generation = Generation(decoder(TINY, 2, "float16"), kind, 3, 60)
    generation.prefill(prompt(TINY, 3, 40))
    generation.prepare()
    with warnings.catch_warnings(action="ignore"):  # that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            generation.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert generation.tokens().shape == (3, 6)


@pytest.mark.parametrize(("model", "batch", "count", "new"), [
    ("gpt2", 1, 512, 512), ("gpt2", 32, 256, 64), ("qwen3-0.6b", 16, 1000, 100), ("llama-3-8b", 4, 2000, 40),
])
def test_the_peak_is_what_was_predicted(model: str, batch: int, count: int, new: int) -> None:
    """Within 2 % or 64 MiB, for a lane of each kind beside the others."""
    shape = MODELS[model]
    kinds: tuple[CacheKind, ...] = ("none", "dense", "paged", "int8")
    lanes = tuple(Lane(cache=kind, kv_heads=shape.kv_heads) for kind in kinds)
    decoding = Decoding(model=shape, lanes=lanes, batch=batch, prompt=count, new=new, dtype="bfloat16")
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    run = decoder(shape, shape.kv_heads, "bfloat16")
    held = [Generation(run, lane.cache, batch, decoding.tokens) for lane in lanes]
    for generation in held:
        generation.prepare(count)
        generation.prefill(prompt(shape, batch, count))
    for _ in range(3):
        for generation in held:
            generation.step()
    found = torch.cuda.max_memory_reserved() - before
    for generation in held:
        generation.close()
    predicted = peak_bytes(decoding, "cuda")
    assert abs(found - predicted) <= max(0.02 * found, 64 * MIB), f"{found / MIB:.0f} MiB, and {predicted / MIB:.0f} predicted"
