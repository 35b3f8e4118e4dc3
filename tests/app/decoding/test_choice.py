"""Choices of decodings: lanes, models, what the command line, a picture and the last start bring."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.decoding.choice import ATTENTIONS, DecodeChoice, asked_choice, first_choice, fitted, of, restored
from app.decoding.configuration import DecodeConfiguration
from app.decoding.kind import DECODINGS
from app.decoding.options import decoding_from
from app.history import History
from app.lab_options import options_of
from engine.options import BadInput
from engine.protocol import CACHES, Decoding, Hello
from tests.app import decode_feed, feed
from tests.app.decode_feed import MODELS

HELLO = decode_feed.hello()
FIRST = first_choice(feed.H200, HELLO.models)


def lanes(choice: DecodeChoice) -> list[str]:
    return [lane.id for lane in choice.lanes()]


def test_a_device_begins_with_a_model_of_its_own() -> None:
    assert (FIRST.model.id, FIRST.dtype, lanes(FIRST)) == ("gpt2", "float16", ["none-12", "dense-12"])
    cpu = first_choice(feed.CPU, HELLO.models)
    assert (cpu.model.id, cpu.dtype, lanes(cpu)) == ("tiny", "float32", ["none-2", "dense-2"])
    assert cpu.decoding().tokens <= cpu.model.context


def test_lanes_are_caches_times_attentions_each_once() -> None:
    choice = replace(FIRST, caches=("paged", "none"), attentions=ATTENTIONS, group=4)
    assert lanes(choice) == ["none-12", "paged-12", "none-3", "paged-3", "none-1", "paged-1"]
    assert lanes(replace(choice, group=12)) == ["none-12", "paged-12", "none-1", "paged-1"]
    assert lanes(replace(choice, group=1)) == ["none-12", "paged-12", "none-1", "paged-1"]


def test_another_model_has_its_own_heads_and_fits_its_context() -> None:
    llama = FIRST.of_model(MODELS["llama-3-8b"])
    assert (llama.attentions, llama.group, lanes(llama)) == (("GQA",), 4, ["none-8", "dense-8"])
    assert llama.of_model(MODELS["gpt2"]).attentions == ("MHA",)
    tiny = replace(FIRST, attentions=ATTENTIONS, prompt=900, new=100).of_model(MODELS["tiny"])
    assert tiny.attentions == ATTENTIONS
    assert tiny.decoding().tokens == 256


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(sorted(MODELS)), st.integers(1, 40000), st.integers(1, 40000))
def test_any_model_after_any_other_can_be_decoded(first: str, second: str, prompt: int, new: int) -> None:
    choice = FIRST.of_model(MODELS[first])
    choice = replace(choice, prompt=prompt, new=new).fitting().of_model(MODELS[second])
    assert choice.decoding().tokens <= MODELS[second].context


def test_what_is_not_ticked_is_said() -> None:
    assert FIRST.lacks() is None
    assert "cache" in replace(FIRST, caches=()).lacks()[0]  # type: ignore[index]
    assert "MHA, GQA or MQA" in replace(FIRST, attentions=()).lacks()[1]  # type: ignore[index]


def test_a_step_has_the_name_of_what_changed() -> None:
    history = History(lambda _: None)
    history.begin(FIRST)
    history.choose(replace(FIRST, batch=8))
    assert history.stack.undoText() == "batch"
    history.choose(replace(FIRST, batch=8, caches=("dense",)))
    assert history.stack.undoText() == "caches"
    history.choose(FIRST.of_model(MODELS["tiny"]))
    assert history.stack.undoText() == "model"


def some(of_these: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(of_these), min_size=1, unique=True)


@given(some(CACHES), some(ATTENTIONS), st.sampled_from([2, 3, 4, 6]), st.integers(1, 64))
def test_a_picture_brings_back_the_lanes(caches: list[str], attentions: list[str], group: int, batch: int) -> None:
    choice = replace(FIRST, caches=tuple(caches), attentions=tuple(attentions), group=group, batch=batch)
    shown = DecodeConfiguration(lab="decode", device="cuda:0", decoding=choice.decoding())
    back, differs = restored(shown, HELLO, "cpu")
    assert differs == ""
    assert back.decoding() == choice.decoding()


def test_a_picture_of_another_machine_runs_on_this_one_and_says_so() -> None:
    shown = DecodeConfiguration(lab="decode", device="cuda:7", decoding=FIRST.decoding())
    choice, differs = restored(shown, HELLO, "cpu")
    assert choice.device == "cpu"
    assert "cuda:7" in differs


def test_what_was_kept_serves_only_where_it_still_can() -> None:
    assert DECODINGS.kept(msgspec.json.encode(FIRST), HELLO) == FIRST
    assert fitted(replace(FIRST, device="cuda:9"), HELLO) is None
    assert fitted(replace(FIRST, batch=0), HELLO) is None
    assert fitted(replace(FIRST, group=0), HELLO) is None
    kept = fitted(replace(FIRST, caches=()), HELLO)
    assert kept is not None
    assert kept.caches == ()
    old = replace(FIRST, model=replace(FIRST.model, layers=3))
    assert fitted(old, HELLO) == FIRST      # the model file was mended since
    for raw in (b"[]", b"{", b'{"device": "cuda:0"}', b"[" * 5000, None):
        assert DECODINGS.kept(raw, HELLO) is None


def test_a_decoding_of_mixed_lanes_is_as_near_as_the_form_can() -> None:
    choice = of("cuda:0", decode_feed.decoding(caches=("dense",), kv_heads=(12, 4, 1)))
    assert (choice.attentions, choice.group) == (ATTENTIONS, 3)


def test_the_command_line_decides_the_first_choice() -> None:
    asked = decoding_from({"model": "llama-3-8b", "cache": "paged,none", "attention": "mha,mqa", "prompt": 64, "new": 32,
                           "batch": 4, "dtype": "bfloat16"})
    choice = asked_choice(FIRST, asked, HELLO.models)
    assert lanes(choice) == ["none-32", "paged-32", "none-1", "paged-1"]
    assert (choice.prompt, choice.new, choice.batch, choice.dtype) == (64, 32, 4, "bfloat16")
    assert asked_choice(FIRST, {"prompt": 1000}, HELLO.models).new == 24


@pytest.mark.parametrize(("options", "says"), [
    ({"cache": "dense,foo"}, "--cache 'foo' is none: choose none, dense, paged, int8, fp8"),
    ({"attention": "mla"}, "--attention 'mla' is none: choose mha, gqa, mqa"),
    ({"seq": 4}, "--seq belongs to the attention lab"),
    ({"head_dim": 64}, "--head-dim belongs to the attention lab"),
    ({"settings": ("block_m=1",)}, "--set belongs to the attention lab"),
])
def test_what_cannot_be_is_one_sentence(options: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        options_of("decode", options)


def test_a_model_that_is_none_and_too_many_tokens_are_told() -> None:
    with pytest.raises(BadInput, match="there is no model 'bert': choose gpt2, gpt2-medium"):
        asked_choice(FIRST, {"model": "bert"}, HELLO.models)
    with pytest.raises(BadInput, match="more than the context of GPT-2 small, 1024: choose fewer"):
        asked_choice(FIRST, {"prompt": 1000, "new": 1000}, HELLO.models)
    with pytest.raises(BadInput, match="--prompt belongs to the decode lab: add --lab decode"):
        options_of("attention", {"prompt": 4})
    assert options_of("attention", {"seq": 4, "kernel": "flash, naive"}) == {
        "kernels": ("flash", "naive"), "options": {"seq": 4}}


def test_an_engine_without_models_still_has_a_choice() -> None:
    bare = Hello(devices=(feed.CPU,), kernels=(), fields=(), models=())
    choice = first_choice(feed.CPU, bare.models)
    assert isinstance(choice.decoding(), Decoding)
