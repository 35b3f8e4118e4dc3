"""With a cache and without one the same tokens are made."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from engine.decoding import CacheKind, Model
from engine.models.generate import Generation, Sampling
from engine.models.kv_cache import make_cache
from tests.engine.models.small import GPT, MODELS, TINY, decoder, tokens

EXACT: tuple[CacheKind, ...] = ("dense", "paged")
LANES = [(4, "MHA"), (2, "GQA"), (1, "MQA")]
ERROR: dict[CacheKind, float] = {  # max |logit - uncached| / max |logit| in float32. Measured: 3e-7, 3e-7, 2.0e-3, 9.3e-3
    "dense": 2e-6, "paged": 2e-6, "int8": 4e-3, "fp8": 2e-2}


def generate(
    model: Model, kv_heads: int, kind: CacheKind, prompt: Tensor, new: int, lengths: Tensor | None = None,
    sampling: Sampling | None = None,
) -> Tensor:
    run = Generation(decoder(model, kv_heads), kind, len(prompt), prompt.shape[1] + new, sampling=sampling)
    run.prefill(prompt, lengths)
    for _ in range(new - 1):
        run.step()
    assert run.position == run.capacity
    return run.tokens()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
@pytest.mark.parametrize("kv_heads", [lane[0] for lane in LANES], ids=[lane[1] for lane in LANES])
def test_greedy_tokens_are_the_same_with_and_without_a_cache(model: Model, kv_heads: int) -> None:
    model = replace(model, tied=False)  # of a tied one with random weights the likeliest token is the last one again
    prompt = tokens(model, 2, 40)
    wanted = generate(model, kv_heads, "none", prompt, 200)
    assert len(set(wanted.flatten().tolist())) > 20  # no trivial agreement
    for kind in EXACT:
        assert torch.equal(generate(model, kv_heads, kind, prompt, 200), wanted)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
@pytest.mark.parametrize("kv_heads", [lane[0] for lane in LANES], ids=[lane[1] for lane in LANES])
def test_logits_over_given_tokens_are_those_without_a_cache(model: Model, kv_heads: int) -> None:
    """Teacher forcing: an error of one step is not hidden by another token of the next."""
    run, given, first = decoder(model, kv_heads), tokens(model, 2, 230), 30
    wanted = torch.stack([run.forward(given[:, :count]) for count in range(first, 230)])
    for kind, bound in ERROR.items():
        cache = make_cache(kind, model, kv_heads, 2, 230, "float32", "cpu")
        found = [run.forward(given[:, :first], cache)]
        found += [run.forward(given[:, count : count + 1], cache) for count in range(first, 229)]
        error = (torch.stack(found) - wanted).abs().max() / wanted.abs().max()
        assert error < bound, f"{kind}: {error:.1e}"
        assert cache.lengths.tolist() == [229, 229]
        assert kind in EXACT or error > 1e-5  # 8 bits were used


@pytest.mark.parametrize("kind", ["none", "dense", "int8"])
@pytest.mark.parametrize("sampling", [None, Sampling(top_k=20, seed=3)], ids=["greedy", "drawn"])
def test_a_rehearsed_step_leaves_nothing(kind: CacheKind, sampling: Sampling | None) -> None:
    prompt, run = tokens(TINY, 2, 5), decoder(TINY, 2)
    found = []
    for rehearsals in (0, 2):
        generation = Generation(run, kind, 2, 30, sampling=sampling)
        generation.prefill(prompt)
        while generation.position < 30:
            for _ in range(rehearsals):
                generation.rehearse()
            generation.step()
        found.append(generation.tokens())
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["none", *EXACT])
def test_sequences_of_different_lengths_do_not_meet(kind: CacheKind) -> None:
    prompt, lengths = tokens(TINY, 3, 50), torch.tensor([50, 1, 23])
    together = generate(TINY, 2, kind, prompt, 40, lengths)
    alone = [generate(TINY, 2, "none", one[None, :length], 40)[0] for one, length in zip(prompt, lengths, strict=True)]
    assert torch.equal(together, torch.stack(alone))


def test_a_prompt_may_be_one_token() -> None:
    prompt = tokens(GPT, 2, 1)
    assert torch.equal(generate(GPT, 4, "dense", prompt, 20), generate(GPT, 4, "none", prompt, 20))


def test_many_sequences_are_those_of_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are cut into chunks of sequences, and a sequence into chunks of rows: neither is seen."""
    prompt = tokens(TINY, 5, 60)
    wanted = generate(TINY, 2, "dense", prompt, 20)
    for rows in (130, 7):
        monkeypatch.setattr("engine.models.memory.ROWS", rows)
        monkeypatch.setattr("engine.models.decoder.ROWS", rows)
        for kind in ("none", *EXACT):
            assert torch.equal(generate(TINY, 2, kind, prompt, 20), wanted)


def test_drawn_tokens_follow_from_their_seed_alone() -> None:
    prompt = tokens(TINY, 4, 10)
    first, other = Sampling(top_k=50, seed=1), Sampling(top_k=50, seed=2)
    wanted = generate(TINY, 2, "none", prompt, 60, sampling=first)
    assert torch.equal(generate(TINY, 2, "dense", prompt, 60, sampling=first), wanted)
    assert not torch.equal(generate(TINY, 2, "dense", prompt, 60, sampling=other), wanted)


def test_tokens_are_drawn_as_their_probabilities_say() -> None:
    run, prompt, sampling = decoder(TINY, 2), tokens(TINY, 1, 10), Sampling(temperature=0.5, top_k=6, seed=3)
    batch = 4000
    drawn = Generation(run, "none", batch, 11, sampling=sampling)
    drawn.prefill(prompt.expand(batch, -1))
    likeliest = run.forward(prompt)[0].topk(6)
    wanted = (likeliest.values / 0.5).softmax(-1)
    shares = torch.stack([(drawn.tokens() == token).float().mean() for token in likeliest.indices])
    assert shares.sum() == 1  # no other was drawn
    assert (shares - wanted).abs().max() < 5 * (0.25 / batch) ** 0.5  # five deviations


def test_a_temperature_near_zero_is_greedy() -> None:
    prompt = tokens(TINY, 2, 10)
    cold = generate(TINY, 2, "dense", prompt, 30, sampling=Sampling(temperature=1e-4))
    assert torch.equal(cold, generate(TINY, 2, "dense", prompt, 30))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["dense", "paged", "int8", "fp8"])
def test_half_precision_stays_near_float32(dtype: str, kind: CacheKind) -> None:
    run, exact, given = decoder(TINY, 2, dtype), decoder(TINY, 2), tokens(TINY, 2, 60)  # type: ignore[arg-type]
    cache = make_cache(kind, TINY, 2, 2, 60, dtype, "cpu")  # type: ignore[arg-type]
    run.forward(given[:, :50], cache)
    for count in range(50, 60):
        found = run.forward(given[:, count : count + 1], cache).float()
    wanted = exact.forward(given)
    assert (found - wanted).abs().max() / wanted.abs().max() < (0.05 if dtype == "bfloat16" else 0.02)


def test_more_than_there_is_room_for_is_refused() -> None:
    run = Generation(decoder(TINY, 2), "dense", 1, 12)
    with pytest.raises(ValueError, match="room for 12 tokens and 12 are there"):
        run.prefill(tokens(TINY, 1, 12))
    run = Generation(decoder(TINY, 2), "dense", 1, 12)
    run.prefill(tokens(TINY, 1, 11))
    with pytest.raises(ValueError, match="room for 12 tokens and 12 are there"):
        run.step()


def test_a_prompt_wants_an_empty_cache_with_room() -> None:
    run, cache = decoder(TINY, 2), make_cache("dense", TINY, 2, 1, 20, "float32", "cpu")
    with pytest.raises(ValueError, match="21 tokens do not fit a cache for 20"):
        run.forward(tokens(TINY, 1, 21), cache)
    run.forward(tokens(TINY, 1, 5), cache)
    with pytest.raises(ValueError, match="the cache holds 5 tokens"):
        run.forward(tokens(TINY, 1, 5), cache)


def test_closing_lets_the_cache_go() -> None:
    run = Generation(decoder(TINY, 2), "dense", 1, 12)
    assert run.allocated_bytes > 0
    run.close()
    assert run.allocated_bytes == 0
