"""From a DeviceSpec to the TOML file that reading.py takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from engine.simulator.figures import DeviceSpec, SpecError
from engine.simulator.reading import plain, read


def toml(spec: DeviceSpec) -> str:
    """The text of its file; the id is the file's name."""
    values = {name: value for name, value in asdict(spec).items() if name != "id" and value not in ((), {})}
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"{name} = {_value(value)}" for name, value in values.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def write(spec: DeviceSpec, path: Path) -> None:
    """Its file: beside it, read again, and renamed.

    Raises:
        SpecError: it cannot be written, or what was written is no right spec.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(toml(spec), encoding="utf-8")
        try:
            read(beside, spec.id)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise SpecError(f"{plain(str(path))}: cannot be written: {error.strerror}") from error


def _value(value: Any) -> str:
    if isinstance(value, str):  # as JSON has it; TOML escapes DEL too
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, tuple) else repr(value)
