"""Model shapes as data: assets/models/*.toml, one model a file."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

from engine.protocol import Model
from kernels.contract import AttentionWorkload, fields_of

_RANGES = {field.name: (field.lo or 0, field.hi or 0) for field in fields_of(AttentionWorkload)}
LIMITS = {name: _RANGES[name] for name in ("heads", "kv_heads", "head_dim")} | {
    "context": _RANGES["seq"], "layers": (1, 1024), "hidden": (1, 1 << 20), "mlp": (1, 1 << 20), "vocab": (1, 1 << 20)}


class ModelError(ValueError):
    """A model file is wrong; the text names the file, the field and the reason."""


def load(folder: Traversable | None = None) -> tuple[Model, ...]:
    """Every model in assets/models, by title. Raises: ModelError."""
    folder = files("assets") / "models" if folder is None else folder
    found = [_read(path) for path in folder.iterdir() if path.name.endswith(".toml")]
    return tuple(sorted(found, key=lambda model: model.title.lower()))


def _read(path: Traversable) -> Model:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        if unknown := values.keys() - set(Model.__struct_fields__) | values.keys() & {"id"}:
            raise ModelError(f"there is no field `{min(unknown)}`")
        model = msgspec.convert({"id": path.name.removesuffix(".toml"), **values}, Model)
        for name, (lo, hi) in LIMITS.items():
            if not lo <= (value := getattr(model, name)) <= hi:
                raise ModelError(f"{name} {value} is out of range: choose from {lo} to {hi}")
        AttentionWorkload(heads=model.heads, kv_heads=model.kv_heads, head_dim=model.head_dim)
        if model.bias and model.activation == "swiglu":
            raise ModelError("bias and swiglu do not go together here: set bias = false, or activation = \"gelu\"")
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a type or of a range
        raise ModelError(f"{path.name}: {error}") from error
    return model
