"""Choices of batchings: what means something to which work, what the command line, a picture and the last start bring."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.batching.choice import BatchChoice, asked_choice, first_choice, fitted, of, restored
from app.batching.configuration import BatchConfiguration
from app.batching.kind import BATCHINGS
from app.lab_options import options_of
from engine.options import BadInput
from engine.protocol import Hello
from tests.app import batch_feed, feed
from tests.app.batch_feed import MODELS, batching

HELLO = batch_feed.hello()
FIRST = first_choice(feed.H200, HELLO.models)


def asked(**options: object) -> BatchChoice:
    return asked_choice(FIRST, options_of("batching", options)["batching"], HELLO.models)


def test_a_device_begins_with_a_w_that_its_cache_does_not_hold() -> None:
    assert (FIRST.work, FIRST.width, FIRST.dtype, FIRST.model.id) == ("linear", 8192, "bfloat16", "gpt2")
    assert 2 * FIRST.width**2 > (feed.H200.l2_bytes or 0)
    on_cpu = first_choice(feed.CPU, HELLO.models)
    assert (on_cpu.dtype, on_cpu.model.id) == ("float32", "tiny")
    assert first_choice(feed.CPU, ()).batching().batches[-1] == 256


def test_the_command_line_decides_the_first_choice() -> None:
    assert asked(work="rnn", width=512, steps=7, dtype="float16").batching() == batching(
        "rnn", width=512, steps=7, dtype="float16")
    model = asked(model="llama-3-8b", cached=1000)
    assert (model.work, model.model.id, model.cached) == ("model", "llama-3-8b", 1000)
    assert asked() == FIRST


@pytest.mark.parametrize(("options", "says"), [
    ({"work": "cnn"}, "--work 'cnn' is none: choose linear, rnn, model"),
    ({"width": 100}, "width 100 is not a multiple of 16: choose one that is"),
    ({"steps": 3}, "--steps means nothing to --work linear: leave it out, or choose --work rnn"),
    ({"work": "rnn", "cached": 3}, "--cached means nothing to --work rnn: leave it out, or choose --work model"),
    ({"work": "linear", "model": "gpt2"}, "--model means nothing to --work linear"),
    ({"model": "bert"}, "there is no model 'bert': choose gpt2"),
    ({"model": "gpt2", "cached": 5000}, "5000 cached tokens are more than the context of GPT-2 small, 1024"),
    ({"seq": 4}, "--seq belongs to the attention lab: leave it out of the batching lab"),
    ({"prompt": 4}, "--prompt belongs to the decode lab: leave it out of the batching lab"),
    ({"kernel": "flash"}, "--kernel belongs to the attention lab: leave it out of the batching lab"),
])
def test_what_cannot_be_is_one_sentence(options: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        asked(**options)


def test_other_labs_refuse_its_options() -> None:
    for lab, says in (("attention", "--width belongs to the batching lab: add --lab batching"),
                      ("decode", "--width belongs to the batching lab: leave it out of the decode lab")):
        with pytest.raises(BadInput, match=says):
            options_of(lab, {"width": 64})


def test_a_step_is_named_by_what_changed() -> None:
    assert replace(FIRST, width=64).changed_from(FIRST) == "width"
    assert replace(FIRST, work="rnn").changed_from(FIRST) == "work"
    assert FIRST.of_model(MODELS["llama-3-8b"]).changed_from(FIRST) == "model"
    assert FIRST.of_model(MODELS["tiny"]).changed_from(FIRST) == "model"     # and fewer cached tokens with it
    assert replace(FIRST, width=64, work="rnn").changed_from(FIRST) == "batching"


def test_what_was_kept_serves_only_where_it_still_can() -> None:
    assert BATCHINGS.kept(msgspec.json.encode(FIRST), HELLO) == FIRST
    assert fitted(replace(FIRST, device="cuda:9"), HELLO) is None
    assert fitted(replace(FIRST, width=17), HELLO) is None
    old = replace(FIRST, work="model", model=replace(FIRST.model, context=4096), cached=3000)
    kept = fitted(old, HELLO)
    assert kept is not None
    assert (kept.model.context, kept.cached) == (1024, 1023)
    for raw in (b"[]", b"{", b'{"device": "cuda:0"}', None):
        assert BATCHINGS.kept(raw, HELLO) is None


@given(st.sampled_from(["linear", "rnn", "model"]), st.integers(1, 64), st.integers(2, 256), st.integers(1, 900))
def test_a_choice_is_its_batching_and_back(work: str, width: int, steps: int, cached: int) -> None:
    choice = replace(FIRST, work=work, width=16 * width, steps=steps, cached=cached)
    assert of("cuda:0", choice.batching()).batching() == choice.batching()
    assert choice.configure(4).generation == 4
    assert choice.lacks() is None


def test_a_picture_brings_its_work_and_says_what_had_to_differ() -> None:
    run = batching("rnn", width=64)
    shown = BatchConfiguration(lab="batching", device="cuda:3", batching=run)
    choice, said = restored(shown, HELLO, "cpu")
    assert choice.batching() == run
    assert (choice.device, choice.model.id) == ("cpu", "tiny")
    assert said == "cuda:3 (cuda:3) is not here: cpu runs instead."
    bare = Hello(devices=(feed.CPU,), kernels=(), fields=(), models=())
    assert restored(shown, bare, "cpu")[0].batching() == run
