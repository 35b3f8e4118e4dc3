"""Batching as data: its arithmetic against definitions, and the knee, predicted and measured."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batching.work import BATCHES, MOST, Batching, Work, knee_measured, knee_predicted, predicted_ns
from engine.decoding import Model
from engine.models import shapes
from engine.protocol import ConfigureBatching, decode_command, encode

MODELS = {model.id: model for model in shapes.load()}
LLAMA, TINY = MODELS["llama-3-8b"], MODELS["tiny"]
FLOPS, READ = 780e12, 4.2e12


def batching(work: Work = "linear", **more: object) -> Batching:
    return Batching(work=work, model=LLAMA if work == "model" else None, **more)  # type: ignore[arg-type]


@given(st.integers(1, 512), st.integers(1, 300), st.integers(2, 40))
def test_products_are_counted_by_their_definition(sixteenths: int, batch: int, steps: int) -> None:
    width = 16 * sixteenths
    one, many = batching(width=width), batching("rnn", width=width, steps=steps)
    assert one.flops(batch) == 2 * batch * width * width
    assert one.moved_bytes(batch) == 2 * (width * width + batch * width + batch * width)
    assert many.flops(batch) == steps * one.flops(batch)
    assert many.moved_bytes(batch) == steps * one.moved_bytes(batch)
    assert (one.made(batch), many.made(batch)) == (batch, steps * batch)
    assert one.intensity(batch) == pytest.approx(many.intensity(batch))


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.id)
def test_a_model_does_two_flops_a_weight_of_its_matrices_and_reads_each_once(model: Model) -> None:
    run = Batching(work="model", model=model, cached=8)
    embeddings = model.vocab * model.hidden * (1 if model.tied else 2)
    learned = model.context * model.hidden if model.positions == "learned" else 0
    inner = model.parameters(model.kv_heads) - embeddings - learned      # and a few norms and biases
    matrices = (run.flops(1) - 4 * model.layers * model.heads * model.head_dim * 8) // 2 - model.vocab * model.hidden
    assert matrices == pytest.approx(inner, rel=0.02)
    assert matrices <= inner
    assert run.flops(3) == 3 * run.flops(1)
    cache = 2 * 8 * model.layers * model.kv_heads * model.head_dim * 2
    assert run.moved_bytes(3) - run.moved_bytes(1) == 2 * cache


def test_more_cached_tokens_are_more_bytes_and_flops() -> None:
    few, many = batching("model", cached=100), batching("model", cached=1100)
    assert many.flops(1) - few.flops(1) == 4 * LLAMA.layers * LLAMA.heads * LLAMA.head_dim * 1000
    assert many.moved_bytes(2) - few.moved_bytes(2) == 2 * 128 * 1024 * 1000     # 128 KiB a token of a sequence


@pytest.mark.parametrize(("more", "says"), [
    ({"width": 8}, "width 8 is out of range: choose from 16 to 65536"),
    ({"width": 100}, "width 100 is not a multiple of 16: choose one that is"),
    ({"work": "rnn", "steps": 1}, "steps 1 is out of range"), ({"cached": 0}, "cached 0 is out of range"),
    ({"batches": ()}, "batches are from 1 to 4096, and one at least is wanted"), ({"batches": (0,)}, "batches are from 1"),
    ({"work": "model"}, "decoding at many batch sizes wants a model: choose one"),
    ({"work": "model", "model": TINY, "cached": 256}, "256 cached tokens are more than the context of .*, 256, has room for"),
])
def test_what_cannot_be_is_one_sentence(more: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Batching(**more)  # type: ignore[arg-type]
    wire = {"type": "ConfigureBatching", "generation": 1, "device": "cpu", "batching": msgspec.to_builtins(more)}
    with pytest.raises(ValueError, match=says):
        decode_command(msgspec.json.encode(wire))


def test_it_travels() -> None:
    for work in ("linear", "rnn", "model"):
        asked = ConfigureBatching(generation=3, device="cpu", batching=batching(work))
        assert decode_command(encode(asked)) == asked


@given(st.integers(8, 512), st.floats(20, 400))
def test_the_predicted_knee_is_the_first_batch_that_arithmetic_limits(sixteenths: int, ridge: float) -> None:
    run = batching(width=16 * sixteenths)
    knee = knee_predicted(run, ridge * READ, READ)
    if knee is None:
        assert run.intensity(MOST) < ridge
        return
    assert run.intensity(round(knee)) >= ridge
    assert knee == 1 or run.intensity(round(knee) - 1) < ridge


def test_a_layer_bends_at_the_ridge_and_a_long_cache_never() -> None:
    ridge = FLOPS / READ
    assert knee_predicted(batching(width=65536), FLOPS, READ) == pytest.approx(ridge, rel=0.02)
    assert knee_predicted(batching("model", cached=8), FLOPS, READ) == pytest.approx(ridge, rel=0.2)
    assert knee_predicted(batching("model", cached=8000), FLOPS, READ) is None


def test_a_prediction_is_the_longer_of_both_limits() -> None:
    run = batching()
    assert predicted_ns(run, 1, FLOPS, READ) == pytest.approx(run.moved_bytes(1) / READ * 1e9)
    assert predicted_ns(run, 256, FLOPS, READ) == pytest.approx(run.flops(256) / FLOPS * 1e9)


@given(st.floats(3, 200))
def test_the_measured_knee_is_where_flat_times_begin_to_climb(knee: float) -> None:
    times = {batch: 1e3 * max(1.0, batch / knee) for batch in BATCHES}
    found = knee_measured(times)
    assert found == pytest.approx(knee)


def test_no_knee_is_claimed_of_few_or_of_what_has_not_bent() -> None:
    assert knee_measured({}) is None
    assert knee_measured({1: 1e3, 256: 1e6}) is None
    assert knee_measured(dict.fromkeys(BATCHES, 1e3)) is None
