"""Weights: random ones from a seed, and those of a folder, whatever state its files are in."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from engine.decoding import Model
from engine.models import shapes
from engine.models.layout import shapes as tensors_of
from engine.models.weights import STD, Weights, WeightsError, load_weights, random_weights
from tests.engine.models.small import GPT, MODELS, QWEN, TINY, as_gpt2, as_llama, save, weights

FILE = "model.safetensors"


def same(found: Weights, wanted: Weights) -> bool:
    assert found.tensors.keys() == wanted.tensors.keys()
    return all(torch.equal(found[name], wanted[name]) for name in wanted.tensors)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save(tmp_path / "weights", as_llama(TINY, 2, weights(TINY, 2)))


# --- random ---


@pytest.mark.parametrize("model", [*shapes.load(), *MODELS], ids=lambda model: model.id)
def test_there_are_as_many_as_the_model_says(model: Model) -> None:
    for kv_heads in (model.heads, model.kv_heads, 1):
        found = tensors_of(model, kv_heads)
        assert sum(torch.Size(shape).numel() for shape in found.values()) == model.parameters(kv_heads)


def test_random_ones_follow_from_the_seed_and_are_scaled() -> None:
    first, again = (random_weights(GPT, 4, "float32", "cpu", 7) for _ in range(2))
    other = random_weights(GPT, 4, "float32", "cpu", 8)
    assert same(first, again)
    assert not any(torch.equal(first[name], other[name]) for name in first.tensors)
    assert first["layers.1.up.weight"].std().item() == pytest.approx(STD, rel=0.05)
    assert first["layers.1.out.weight"].std().item() == pytest.approx(STD / 2, rel=0.05)  # 2 layers: sqrt(4)
    assert first["layers.1.norm1.weight"].mean().item() == pytest.approx(1, abs=0.01)
    assert not torch.equal(first["layers.0.up.weight"], first["layers.1.up.weight"])


def test_lanes_share_what_does_not_depend_on_their_heads() -> None:
    pool: dict[str, Tensor] = {}
    gqa, mqa, again = (random_weights(TINY, heads, "float16", "cpu", 0, pool) for heads in (2, 1, 2))
    alone = random_weights(TINY, 1, "float16", "cpu", 0)
    assert same(mqa, alone)
    apart = {name for name in gqa.tensors if gqa[name].data_ptr() != mqa[name].data_ptr()}
    assert apart == {"layers.0.qkv.weight", "layers.1.qkv.weight"}
    assert all(gqa[name] is again[name] for name in gqa.tensors)
    assert gqa.bytes == 2 * TINY.parameters(2)


# --- files ---


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_gpt2_names_are_read(prefix: str, tmp_path: Path) -> None:
    tensors = as_gpt2(GPT, weights(GPT, 4), prefix)
    buffers = {f"{prefix}h.0.attn.bias": torch.ones(1, 1, 8, 8), "lm_head.weight": tensors[f"{prefix}wte.weight"].clone()}
    found = load_weights(save(tmp_path / "gpt2", tensors | buffers), GPT, 4, "float32", "cpu")
    assert same(found, weights(GPT, 4))


@pytest.mark.parametrize(("model", "kv_heads"), [(TINY, 2), (TINY, 4), (QWEN, 1)])
def test_llama_names_are_read(model: Model, kv_heads: int, tmp_path: Path) -> None:
    found = load_weights(save(tmp_path / "llama", as_llama(model, kv_heads, weights(model, kv_heads))), model, kv_heads,
                         "float32", "cpu")
    assert same(found, weights(model, kv_heads))


@pytest.mark.parametrize("index", [True, False])
def test_several_files_are_one(index: bool, tmp_path: Path) -> None:
    tensors = as_llama(TINY, 2, weights(TINY, 2))
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in files.items():
        save(tmp_path, {name: tensors[name] for name in some}, file)
    if index:
        weight_map = {name: file for file, some in files.items() for name in some}
        (tmp_path / f"{FILE}.index.json").write_text(json.dumps({"weight_map": weight_map}))
        save(tmp_path, {"stranger": torch.ones(1)}, "consolidated.safetensors")  # of no interest to the index
    assert same(load_weights(tmp_path, TINY, 2, "float32", "cpu"), weights(TINY, 2))


def test_they_become_what_the_run_wants(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in as_llama(TINY, 2, weights(TINY, 2)).items()}
    found = load_weights(save(tmp_path / "half", halves), TINY, 2, "float16", "cpu")
    assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float16}
    assert torch.equal(found["embedding"], weights(TINY, 2)["embedding"].bfloat16().half())


def refusal(folder: Path, model: Model = TINY, kv_heads: int = 2) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(folder, model, kv_heads, "float32", "cpu")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_heads_cannot_be_made_fewer_or_more(llama: Path) -> None:
    for wanted in (1, 4):
        assert f"have 2 KV heads and cannot be made to have {wanted}: choose 2 KV heads" in refusal(llama, kv_heads=wanted)


Change = Callable[[dict[str, Tensor]], object]
UP, K = "model.layers.1.mlp.up_proj.weight", "model.layers.1.self_attn.k_proj.weight"
CHANGES: dict[str, tuple[Change, str]] = {
    "missing": (lambda given: given.pop(UP), f"{UP} is missing in"),
    "narrow": (lambda given: given.update({UP: torch.ones(344, 127)}), "is [344, 127] and for Tiny must be [344, 128]"),
    "short": (lambda given: given.update({UP: torch.ones(343, 128)}), "is [343, 128] and for Tiny must be [344, 128]"),
    "flat": (lambda given: given.update({UP: torch.ones(344 * 128)}), "is [44032] and for Tiny must be"),
    "scalar": (lambda given: given.update({UP: torch.tensor(1.0)}), "is [] and for Tiny must be"),
    "rows of another": (lambda given: given.update({K: torch.ones(32, 128)}), "is [32, 128] and for Tiny must be [64, 128]"),
    "integers": (lambda given: given.update({UP: torch.ones(344, 128, dtype=torch.int8)}), f"{UP} in "),
    "more layers": (lambda given: given.update({"model.layers.2.mlp.up_proj.weight": torch.ones(1)}),
                    "model.layers.2.mlp.up_proj.weight in "),
    "a bias": (lambda given: given.update({K.replace("weight", "bias"): torch.ones(64)}), "k_proj.bias in "),
    "no embedding": (lambda given: given.pop("model.embed_tokens.weight"), "neither GPT-2's wte.weight nor Llama's"),
    "nothing": (lambda given: given.clear(), "neither GPT-2's wte.weight nor Llama's"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_tensor_that_does_not_fit_is_named(change: str, tmp_path: Path) -> None:
    tensors = as_llama(TINY, 2, weights(TINY, 2))
    act, said = CHANGES[change]
    act(tensors)
    assert said in refusal(save(tmp_path / "wrong", tensors))


def test_a_model_of_another_kind_is_named(llama: Path, tmp_path: Path) -> None:
    assert "named as Llama's, which has no positions as Small GPT has" in refusal(llama, GPT, 2)
    gpt2 = save(tmp_path / "gpt2", as_gpt2(GPT, weights(GPT, 4)))
    assert "named as GPT-2's, which has no q_norm as Small GPT has" in refusal(gpt2, replace(GPT, qk_norm=True), 4)
    untied = save(tmp_path / "untied", as_llama(replace(TINY, tied=True), 2, weights(TINY, 2)))
    assert "lm_head.weight is missing in" in refusal(untied)


def test_folders_that_are_none(tmp_path: Path, llama: Path) -> None:
    assert f"there is no folder {tmp_path / 'nowhere'}" in refusal(tmp_path / "nowhere")
    assert "there is no folder" in refusal(llama / FILE)
    assert "there is no *.safetensors in" in refusal(tmp_path)


def test_a_tensor_in_two_files_is_named(llama: Path) -> None:
    save(llama, {UP: torch.ones(344, 128)}, "other.safetensors")
    assert f"{UP} is in model.safetensors and in other.safetensors" in refusal(llama)


@pytest.mark.parametrize("text", [
    "", "[]", "{", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../model.safetensors"}}',
    '{"weight_map": {"a": "gone.safetensors"}}', '{"weight_map": {"a": []}}', "[" * 10000, "\xff", '{"weight_map": {}}',
    '{"weight_map": {"a": "x\\u0000y"}}', '{"weight_map": {"a": "/etc/passwd"}}',
])
def test_an_index_that_is_none_is_named(llama: Path, text: str) -> None:
    (llama / f"{FILE}.index.json").write_text(text, encoding="latin-1")
    assert refusal(llama)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.9999))
def test_a_file_cut_short_is_named(llama: Path, keep: float) -> None:
    whole = (llama / FILE).read_bytes()
    cut = llama.parent / "cut"
    cut.mkdir(exist_ok=True)
    (cut / FILE).write_bytes(whole[: int(keep * len(whole))])
    assert FILE in refusal(cut)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5))
def test_bytes_of_a_header_may_be_anything(llama: Path, changes: list[tuple[float, int]]) -> None:
    """What is still a file of these weights is read; whatever else is a sentence."""
    content = bytearray((llama / FILE).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for place, value in changes:
        content[int(place * header)] = value
    strange = llama.parent / "strange"
    strange.mkdir(exist_ok=True)
    (strange / FILE).write_bytes(content)
    with suppress(WeightsError):
        assert load_weights(strange, TINY, 2, "float32", "cpu").bytes == 4 * TINY.parameters(2)
