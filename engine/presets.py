"""Model shapes as data: assets/models/*.toml, one model a file."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

from engine.protocol import Preset


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
        preset = msgspec.convert({"id": path.name.removesuffix(".toml"), **values}, Preset)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise PresetError(f"{path.name}: {error}") from error
    if preset.kv_heads < 1 or preset.heads % preset.kv_heads:
        raise PresetError(f"{path.name}: heads {preset.heads} is not a multiple of kv_heads {preset.kv_heads}")
    return preset
