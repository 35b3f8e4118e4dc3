"""Models as data: each file of the catalog loads, and a wrong one is refused by its file and field."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from engine.decoding import Decoding, Lane
from engine.models import shapes
from engine.models.shapes import ModelError
from kernels.contract import AttentionWorkload

GOOD = {"title": '"A model"', "heads": "8", "kv_heads": "2", "head_dim": "64", "layers": "4", "context": "1024",
        "hidden": "512", "mlp": "2048", "vocab": "1000"}


def write(folder: Path, name: str = "model.toml", **changes: str | None) -> Path:
    values = {**GOOD, **changes}
    path = folder / name
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items() if value is not None), encoding="utf-8")
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        shapes.load(folder)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_every_model_loads_and_is_a_workload() -> None:
    loaded = shapes.load()
    there = [path.name for path in (files("assets") / "models").iterdir() if path.name.endswith(".toml")]
    assert sorted(f"{model.id}.toml" for model in loaded) == sorted(there)
    for model in loaded:
        workload = AttentionWorkload(
            heads=model.heads, kv_heads=model.kv_heads, head_dim=model.head_dim, seq=model.context
        )
        assert workload.group >= 1
        assert model.source


@pytest.mark.parametrize(("id", "parameters", "kib"), [  # as published; KiB of K and V a token in 16 bits
    ("gpt2", 124_439_808, 36), ("gpt2-xl", 1_557_611_200, 300), ("llama-2-7b", 6_738_415_616, 512),
    ("llama-3-8b", 8_030_261_248, 128), ("mistral-7b", 7_241_732_096, 128), ("qwen3-0.6b", 596_049_920, 112),
])
def test_parameters_and_cache_are_as_published(id: str, parameters: int, kib: int) -> None:
    model = next(model for model in shapes.load() if model.id == id)
    lane = Lane(cache="dense", kv_heads=model.kv_heads)
    assert model.parameters(model.kv_heads) == parameters
    assert Decoding(model=model, lanes=(lane,), prompt=1, new=1).kv_bytes(lane, 1) == kib * 1024


def test_models_come_by_title_and_other_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "z.toml", title='"alpha"')
    write(tmp_path, "a.toml", title='"Beta"', source='"a paper"')
    (tmp_path / "README.md").write_text("not a model")
    assert [(model.id, model.title) for model in shapes.load(tmp_path)] == [("z", "alpha"), ("a", "Beta")]
    assert shapes.load(tmp_path)[1].source == "a paper"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"heads": None}, "missing required field `heads`"),
        ({"heads": '"eight"'}, "`$.heads`"),
        ({"layers": "true"}, "`$.layers`"),
        ({"head_dim": "64.5"}, "`$.head_dim`"),
        ({"title": "7"}, "`$.title`"),
        ({"heads": "6", "kv_heads": "4"}, "heads 6 is not a multiple of kv-heads 4"),
        ({"kv_heads": "0"}, "kv_heads 0 is out of range: choose from 1 to 1024"),
        ({"kv_heads": "-2"}, "kv_heads -2 is out of range: choose from 1 to 1024"),
        ({"heads": "0"}, "heads 0 is out of range: choose from 1 to 1024"),
        ({"heads": "2048", "kv_heads": "1024"}, "heads 2048 is out of range: choose from 1 to 1024"),
        ({"head_dim": "12"}, "head-dim 12 is not a multiple of 8"),
        ({"head_dim": "512"}, "head_dim 512 is out of range: choose from 8 to 256"),
        ({"mlp": None}, "missing required field `mlp`"),
        ({"vocab": "0"}, "vocab 0 is out of range: choose from 1 to 1048576"),
        ({"norm": '"batch"'}, "`$.norm`"),
        ({"bias": "true"}, "bias and swiglu do not go together here"),
        ({"layers": "0"}, "layers 0 is out of range: choose from 1 to 1024"),
        ({"context": "-1"}, "context -1 is out of range: choose from 1 to 1048576"),
        ({"context": "99999999"}, "context 99999999 is out of range: choose from 1 to 1048576"),
        ({"sorce": '"a typing error"'}, "there is no field `sorce`"),
        ({"id": '"another"'}, "there is no field `id`"),
    ],
)
def test_a_wrong_model_is_refused_by_file_and_field(tmp_path: Path, changes: dict[str, str | None], says: str) -> None:
    write(tmp_path, "fine.toml")
    write(tmp_path, "wrong.toml", **changes)
    said = refusal(tmp_path)
    assert said.startswith("wrong.toml: ")
    assert says in said


@pytest.mark.parametrize("content", [b"heads = ", b"\xff\xfe", b"heads = 8\nheads = 9\n", b"\x00", b"a = " + b"[" * 5000])
def test_a_file_that_is_no_toml_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.toml").write_bytes(content)
    assert refusal(tmp_path).startswith("wrong.toml: ")


def test_what_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert refusal(tmp_path) == "folder.toml: cannot be read: Is a directory"
