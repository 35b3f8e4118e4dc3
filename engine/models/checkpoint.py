"""A local folder of safetensors, in GPT-2's or Llama's naming: which of its tensors make ours, and what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.decoding import Model
from engine.models.layout import Shape, WeightsError

INDEX = "model.safetensors.index.json"
DTYPES = ("F64", "F32", "F16", "BF16")
Naming = Mapping[str, tuple[str, ...]]
GPT2: Naming = {
    "embedding": ("wte.weight",), "positions": ("wpe.weight",), "norm": ("ln_f",), "head": ("lm_head.weight",),
    "norm1": ("h.{}.ln_1",), "qkv": ("h.{}.attn.c_attn",), "out": ("h.{}.attn.c_proj",),
    "norm2": ("h.{}.ln_2",), "up": ("h.{}.mlp.c_fc",), "down": ("h.{}.mlp.c_proj",),
}
LLAMA: Naming = {
    "embedding": ("embed_tokens.weight",), "norm": ("norm",), "head": ("lm_head.weight",),
    "norm1": ("layers.{}.input_layernorm",), "out": ("layers.{}.self_attn.o_proj",),
    "qkv": ("layers.{}.self_attn.q_proj", "layers.{}.self_attn.k_proj", "layers.{}.self_attn.v_proj"),
    "q_norm": ("layers.{}.self_attn.q_norm.weight",), "k_norm": ("layers.{}.self_attn.k_norm.weight",),
    "norm2": ("layers.{}.post_attention_layernorm",), "down": ("layers.{}.mlp.down_proj",),
    "up": ("layers.{}.mlp.gate_proj", "layers.{}.mlp.up_proj"),
}
BUFFERS = re.compile(r".*\.(?:attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)")  # no weights, though some files have them
OURS = re.compile(r"(?:layers\.(\d+)\.)?(\w+)((?:\.weight|\.bias)?)")


class Part(NamedTuple):
    """A tensor in a file that is some rows of ours."""

    name: str
    transposed: bool


class Checkpoint:
    """The open files of a folder. A context manager.

    Raises:
        WeightsError: no such folder or file, one that cannot be read, or tensors that are of neither naming.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        self._folder, self._model = folder, model
        self._open = ExitStack()
        self._where: dict[str, tuple[Path, Any]] = {}
        try:
            for path in _files(folder):
                self._add(path)
            self._prefix, self._names = self._naming()
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _add(self, path: Path) -> None:
        try:
            file = self._open.enter_context(safe_open(path, framework="pt"))
            names = list(file.keys())
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{path} cannot be read as safetensors: {_line(error)}") from error
        for name in names:
            if name in self._where:
                raise WeightsError(f"{name} is in {self._where[name][0].name} and in {path.name} of {self._folder}: "
                                   "keep one of the files")
            self._where[name] = path, file

    def _naming(self) -> tuple[str, Naming]:
        """What precedes all names, and the names."""
        for names, prefixes in ((GPT2, ("transformer.", "")), (LLAMA, ("model.", ""))):
            for prefix in prefixes:
                if prefix + names["embedding"][0] in self._where:
                    return prefix, names
        raise WeightsError(f"{self._folder} has neither GPT-2's wte.weight nor Llama's model.embed_tokens.weight: "
                           "choose a folder with weights in one of these namings")

    def require_kv_heads(self, kv_heads: int) -> None:
        """Raises: WeightsError, where the weights are of another number of KV heads."""
        model = self._model
        if self._names is GPT2:
            found = model.heads
        else:
            name = f"{self._prefix}layers.0.self_attn.k_proj.weight"
            rows = self._shape(name)[0] if name in self._where and self._shape(name) else 0
            found = rows // model.head_dim if rows % model.head_dim == 0 else 0  # another head_dim: the shape will be named
        if found and found != kv_heads:
            raise WeightsError(f"the weights in {self._folder} have {found} KV heads and cannot be made to have {kv_heads}: "
                               f"choose {found} KV heads, or random weights")

    def parts(self, name: str, shape: Shape) -> tuple[Part, ...]:
        """What is stacked to our tensor of that name and shape. Raises: WeightsError, where that is missing or does not fit."""
        names = self._file_names(name)
        transposed = self._names is GPT2 and name.startswith("layers.") and len(shape) == 2  # its Conv1D: [d_in, d_out]
        for one, rows in zip(names, self._rows(name, shape[0], len(names)), strict=True):
            wanted = (rows, *shape[1:])[:: -1 if transposed else 1]
            if (found := self._shape(one)) != wanted:
                raise WeightsError(f"{one} in {self._folder} is {list(found)} and for {self._model.title} must be "
                                   f"{list(wanted)}: choose the model that the weights are of")
        return tuple(Part(one, transposed) for one in names)

    def require_no_more(self, parts: Iterable[Part]) -> None:
        """Raises: WeightsError, where the files have tensors beside these: leaving them out would be another model."""
        more = self._where.keys() - {part.name for part in parts} - ({"lm_head.weight"} if self._model.tied else set())
        if strange := sorted(name for name in more if not BUFFERS.fullmatch(name)):
            raise WeightsError(f"{strange[0]} in {self._folder} is no part of {self._model.title}: "
                               "choose the model that the weights are of")

    def read(self, part: Part) -> Tensor:
        """On the host. Raises: WeightsError."""
        path, file = self._where[part.name]
        try:
            tensor: Tensor = file.get_tensor(part.name)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{part.name} in {path} cannot be read: {_line(error)}") from error
        return tensor.mT if part.transposed else tensor

    def _rows(self, name: str, rows: int, parts: int) -> list[int]:
        """How many rows of ours each part has."""
        if parts == 1:
            return [rows]
        first = self._model.heads * self._model.head_dim if ".qkv." in name else rows // parts
        return [first] + [(rows - first) // (parts - 1)] * (parts - 1)

    def _file_names(self, name: str) -> list[str]:
        """The names in the files of what makes ours. Raises: WeightsError."""
        match = OURS.fullmatch(name)
        layer, which, kind = match.groups() if match else (None, name, "")
        if which not in self._names:
            naming = "GPT-2" if self._names is GPT2 else "Llama"
            raise WeightsError(f"the weights in {self._folder} are named as {naming}'s, which has no {which} as "
                               f"{self._model.title} has: choose a model of their kind")
        prefix = "" if which == "head" else self._prefix
        found = [prefix + one.format(layer) + kind for one in self._names[which]]
        for one in found:
            if one not in self._where:
                raise WeightsError(f"{one} is missing in {self._folder}: choose all of the weights of {self._model.title}, "
                                   "or the model that they are of")
        return found

    def _shape(self, name: str) -> Shape:
        path, file = self._where[name]
        piece = file.get_slice(name)
        if piece.get_dtype() not in DTYPES:
            raise WeightsError(f"{name} in {path} is of {piece.get_dtype()}: choose weights in one of {', '.join(DTYPES)}")
        return tuple(piece.get_shape())


def _files(folder: Path) -> list[Path]:
    """Those of the index where there is one, else all. Raises: WeightsError."""
    try:
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else None
        if files is not None and (index := folder / INDEX).is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            files = [folder / name for name in sorted(set(shards))]
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{folder / INDEX} does not say which files there are: {_line(error)}") from error
    if files is None:
        raise WeightsError(f"there is no folder {folder}: choose one with *.safetensors")
    if not files:
        raise WeightsError(f"there is no *.safetensors in {folder}: choose a folder that has some")
    for path in files:
        if path.parent != folder or not path.is_file():
            raise WeightsError(f"{folder / INDEX} names {path.name}, which is not in {folder}: fetch it, or remove the index")
    return files


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
