"""Whole models on a GPU: steps by our kernels, in a CUDA graph, make the tokens that plain torch makes."""

from __future__ import annotations

import gc

import pytest
import torch

from engine.decoding import CACHES, CacheKind, Decoding, Lane, Model
from engine.machine import open_machine
from engine.models import shapes
from engine.models.decoder import Decoder
from engine.models.generate import Generation, Sampling
from engine.models.kernel_ops import KernelOps
from engine.models.plan import peak_bytes
from engine.models.weights import random_weights
from kernels.contract import Device
from kernels.contract.workload import DType

MODELS = {model.id: model for model in shapes.load()}
PROMPT, NEW = 9, 200


def generation(
    model: Model, kv_heads: int, cache: CacheKind, device: Device, *, ours: bool, dtype: DType = "float32", batch: int = 2,
    sampling: Sampling | None = None,
) -> Generation:
    weights = random_weights(model, kv_heads, dtype, "cuda", 0)
    decoder = Decoder(model, kv_heads, weights, dtype, "cuda", KernelOps(device) if ours else None)
    made = Generation(decoder, cache, batch, PROMPT + NEW, sampling=sampling, graph=ours)
    prompt = torch.randint(model.vocab, (batch, PROMPT), generator=torch.Generator().manual_seed(1)).cuda()
    made.prepare()
    made.prefill(prompt)
    return made


def tokens(made: Generation, count: int = NEW) -> list[list[int]]:
    for _ in range(count - 1):
        made.step()
    found: list[list[int]] = made.tokens().tolist()
    made.close()
    return found


@pytest.mark.parametrize("cache", ["dense", "paged"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("batch", [1, 2, 20])
def test_in_float32_the_same_tokens_as_torch_without_a_cache(
    cache: CacheKind, kv_heads: int, batch: int, device: Device
) -> None:
    ours = tokens(generation(MODELS["tiny"], kv_heads, cache, device, ours=True, batch=batch))
    assert ours == tokens(generation(MODELS["tiny"], kv_heads, "none", device, ours=False, batch=batch))


@pytest.mark.parametrize("name", ["gpt2", "qwen3-0.6b"])
def test_in_float32_a_real_shape_makes_the_same_tokens(name: str, device: Device) -> None:
    model = MODELS[name]
    ours = tokens(generation(model, model.kv_heads, "dense", device, ours=True), 60)
    assert ours == tokens(generation(model, model.kv_heads, "none", device, ours=False), 60)


@pytest.mark.parametrize("cache", ["dense", "paged", "int8", "fp8"])
@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_a_step_has_the_logits_of_plain_torch_with_the_same_cache(cache: CacheKind, name: str, device: Device) -> None:
    """Teacher forced, in 16 bits, where a token may turn: one step's logits within a hundredth of the largest."""
    model, found = MODELS[name], []
    for ours in (True, False):
        weights = random_weights(model, model.kv_heads, "float16", "cuda", 0)
        decoder = Decoder(model, model.kv_heads, weights, "float16", "cuda", KernelOps(device) if ours else None)
        made = Generation(decoder, cache, 2, 120, graph=False)
        text = torch.randint(model.vocab, (2, 101), generator=torch.Generator().manual_seed(2)).cuda()
        assert made.cache is not None
        decoder.forward(text[:, :100], made.cache)
        found.append(decoder.forward(text[:, 100:], made.cache).float())
    assert (found[0] - found[1]).abs().max() <= 0.01 * found[1].abs().max()


def test_sampling_in_a_graph_draws_anew_each_step(device: Device) -> None:
    drawn = [tokens(generation(MODELS["tiny"], 2, "dense", device, ours=True, sampling=Sampling(1.0, None, seed)), 50)
             for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0][0])) > 10


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(("name", "batch", "prompt"), [("gpt2", 8, 500), ("qwen3-0.6b", 2, 3000)])
def test_the_peak_is_predicted(cache: CacheKind, name: str, batch: int, prompt: int, device: Device) -> None:
    """Within 2 % or 64 MiB of what torch reserved at most."""
    model, lane = MODELS[name], Lane(cache=cache, kv_heads=MODELS[name].kv_heads)
    decoding = Decoding(model=model, lanes=(lane,), batch=batch, prompt=prompt, new=40, dtype="float16")
    machine = open_machine(device, lambda: None)
    gc.collect()
    machine.release()
    before = torch.cuda.memory_reserved()
    machine.forget_peak()
    weights = random_weights(model, model.kv_heads, "float16", machine.place, 0)
    decoder = Decoder(model, model.kv_heads, weights, "float16", machine.place, KernelOps(device))
    made = Generation(decoder, cache, batch, decoding.tokens)
    made.prepare(prompt)
    made.prefill(torch.randint(model.vocab, (batch, prompt)).cuda())
    for _ in range(39):
        made.step()
    made.tokens()
    peak = (machine.peak_bytes() or 0) - before
    made.close()
    predicted = peak_bytes(decoding, [lane], device)
    assert abs(predicted - peak) <= max(0.02 * peak, 64 << 20), f"predicted {predicted >> 20} MiB, reserved {peak >> 20}"
