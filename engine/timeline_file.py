"""A timeline as a file of arrays, .npz: what it says of itself is JSON in one of them, and nothing in it is ever executed."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from engine.timeline import Span, Steps, Timeline

PROGRAMS: dict[str, Any] = {"sm": np.int32, "slot": np.int32, "start_ns": np.float64, "end_ns": np.float64, "pattern": np.int32}
STEPS: dict[str, Any] = {
    "begins": np.int64, "op": np.int64, "step": np.int64, "hop": np.int64, "count": np.int64, "first": np.float64,
    "stride": np.float64,
}


class TimelineError(ValueError):
    """A file that cannot be written or is no timeline; the text is one sentence."""


class Head(Struct, frozen=True, kw_only=True):
    """What the arrays do not say."""

    schema: Literal["tilescope-timeline-1"] = "tilescope-timeline-1"
    kernel: str
    device: str
    sms: int
    provenance: Literal["measured", "modelled"]
    source: str
    clock_hz: float | None
    resolution_ns: float
    launches: tuple[Span, ...]


def save(line: Timeline, path: Path) -> None:
    """Writes a new file, beside its place and then renamed. Raises: TimelineError, also where the file exists."""
    if path.exists():
        raise TimelineError(f"{path} exists: give a new name")
    head = Head(**{name: getattr(line, name) for name in Head.__struct_fields__ if name != "schema"})
    arrays: dict[str, npt.NDArray[np.generic]] = {name: getattr(line, name) for name in PROGRAMS}
    arrays |= {f"steps_{name}": getattr(line.steps, name) for name in STEPS}
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as file:
            np.savez(file, head=np.frombuffer(msgspec.json.encode(head), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
        beside.replace(path)
    except OSError as error:
        raise TimelineError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path) -> Timeline:
    """Reads what `save` wrote. Raises: TimelineError, also where what it says cannot have been."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            head = msgspec.json.decode(file["head"].tobytes(), type=Head)
            columns: dict[str, Any] = {name: _column(file[name], kind, name) for name, kind in PROGRAMS.items()}
            steps = Steps(**{name: _column(file[f"steps_{name}"], kind, name) for name, kind in STEPS.items()})
    except TimelineError as error:
        raise TimelineError(f"{path} is no timeline: {error}") from error
    except OSError as error:
        raise TimelineError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, TypeError, AttributeError, NotImplementedError, MemoryError, RuntimeError,
            SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise TimelineError(f"{path} is no timeline: {' '.join(str(error).split()) or 'it ends too early'}") from error
    named = {name: getattr(head, name) for name in Head.__struct_fields__ if name != "schema"}
    line = Timeline(**named, **columns, steps=steps)
    if wrong := line.validate():
        raise TimelineError(f"{path} is no timeline: {wrong[0]}")
    return line


def _column(values: npt.NDArray[np.generic], kind: Any, name: str) -> Any:
    if values.ndim != 1 or values.dtype != kind:
        raise TimelineError(f"{name} is {values.dtype} in {values.ndim} dimensions and not {np.dtype(kind)} in one")
    return values
