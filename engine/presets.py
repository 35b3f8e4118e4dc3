"""Model shapes as data: assets/models/*.toml, one model a file."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

from engine.protocol import Preset
from kernels.contract import AttentionWorkload, fields_of

_RANGES = {field.name: (field.lo or 0, field.hi or 0) for field in fields_of(AttentionWorkload)}
LIMITS = {name: _RANGES[name] for name in ("heads", "kv_heads", "head_dim")} | {"context": _RANGES["seq"], "layers": (1, 1024)}


class PresetError(ValueError):
    """A model file is wrong; the text names the file, the field and the reason."""


def load(folder: Traversable | None = None) -> tuple[Preset, ...]:
    """Every model in assets/models, by title. Raises: PresetError."""
    folder = files("assets") / "models" if folder is None else folder
    found = [_read(path) for path in folder.iterdir() if path.name.endswith(".toml")]
    return tuple(sorted(found, key=lambda preset: preset.title.lower()))


def _read(path: Traversable) -> Preset:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        if unknown := values.keys() - set(Preset.__struct_fields__) | values.keys() & {"id"}:
            raise PresetError(f"there is no field `{min(unknown)}`")
        preset = msgspec.convert({"id": path.name.removesuffix(".toml"), **values}, Preset)
        for name, (lo, hi) in LIMITS.items():
            if not lo <= (value := getattr(preset, name)) <= hi:
                raise PresetError(f"{name} {value} is out of range: choose from {lo} to {hi}")
        AttentionWorkload(heads=preset.heads, kv_heads=preset.kv_heads, head_dim=preset.head_dim)
    except OSError as error:
        raise PresetError(f"{path.name}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a type or of a range
        raise PresetError(f"{path.name}: {error}") from error
    return preset
