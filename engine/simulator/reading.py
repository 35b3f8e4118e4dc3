"""From a TOML file to a DeviceSpec, or to one sentence that says what is wrong with it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources.abc import Traversable
from typing import Any, get_args, get_type_hints

import msgspec

from engine.simulator.figures import LIMITS, DeviceSpec, MatrixDtype, PeakDtype, SpecError, out_of_range, shown

AGREEMENT = 0.01  # by how much a published peak may differ from what the rates give
_TYPES = {name: kind for name, kind in get_type_hints(DeviceSpec).items() if name != "id"}
_OPTIONAL = ("estimated", "names", "published_tflops")
_DTYPES = {"matrix_flops_per_clock": get_args(MatrixDtype), "published_tflops": get_args(PeakDtype)}


def read(path: Traversable, id: str) -> DeviceSpec:
    """The spec in a file. Raises: SpecError, `FILE: FIELD: reason`."""
    try:
        return _spec(tomllib.loads(path.read_text(encoding="utf-8")), id)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or of a field
        reason = plain(str(error))
    raise SpecError(f"{plain(str(path))}: {reason}")


def plain(text: str) -> str:
    """As it is, or with escapes where it would not be one line that can be printed."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _spec(values: Mapping[str, Any], id: str) -> DeviceSpec:
    """Raises: SpecError, `FIELD: reason`."""
    if unknown := sorted(values.keys() - _TYPES.keys()):
        raise SpecError(f"{unknown[0]}: there is no such field")
    if missing := [name for name in _TYPES if name not in values and name not in _OPTIONAL]:
        raise SpecError(f"{missing[0]}: it is missing")
    fields = {name: _field(name, values[name]) for name in _TYPES if name in values}
    fields["sources"] = _by_figure(fields["sources"])
    spec = DeviceSpec(id=id, **fields)
    for name, reason in _contradictions(spec):
        raise SpecError(f"{name}: {reason}")
    return spec


def _field(name: str, value: Any) -> Any:
    """One value, of its type and within its range. Raises: SpecError."""
    if name in _DTYPES and isinstance(value, dict) and (strange := sorted(value.keys() - set(_DTYPES[name]))):
        raise SpecError(f"{name}: there is no dtype {strange[0]!r} here: choose from {', '.join(_DTYPES[name])}")
    try:
        converted = msgspec.convert(value, _TYPES[name])
    except msgspec.ValidationError as error:
        raise SpecError(f"{name}: {str(error).partition(' - at ')[0].lower()}") from error
    if name in LIMITS:
        for number in converted.values() if isinstance(converted, dict) else (converted,):
            if reason := out_of_range(name, number):
                raise SpecError(f"{name}: {reason}")
    return converted


def _by_figure(sources: Mapping[str, str]) -> dict[str, str]:
    """Of each figure its source: a key of the table names one, or several with commas between. Raises: SpecError."""
    each: dict[str, str] = {}
    for key, sentence in sources.items():
        for name in (part.strip() for part in key.split(",")):
            if name in each:
                raise SpecError(f"sources: {name} has two")
            each[name] = sentence.strip()
    return each


def _contradictions(spec: DeviceSpec) -> Iterable[tuple[str, str]]:
    """Field and reason for whatever does not go together."""
    if not (spec.title.strip() and spec.title.isprintable()):
        yield "title", "it must be one line of text"
    major, minor = spec.capability
    if not (7 <= major <= 99 and 0 <= minor <= 9):
        yield "capability", f"{shown(major)}.{shown(minor)} is out of range: choose from 7.0 to 99.9"
    if not spec.matrix_flops_per_clock:
        yield "matrix_flops_per_clock", "it names no dtype"
    if spec.max_clock_hz < spec.clock_hz:
        yield "max_clock_hz", "it is less than clock_hz"
    room = spec.sram_bytes_per_sm - spec.sram_reserved_bytes
    if spec.sram_bytes_per_block > room:
        yield "sram_bytes_per_block", f"{shown(spec.sram_bytes_per_block)} is more than an SM has for one: {shown(room)}"
    figures = {*LIMITS, *(("published_tflops",) if spec.published_tflops else ())}
    for name, told in (("estimated", spec.estimated), ("sources", spec.sources)):
        if strange := sorted(set(told) - figures):
            yield name, f"there is no figure {strange[0]!r}"
    if without := sorted(name for name in figures if not spec.sources.get(name)):
        yield "sources", f"{without[0]} has none: say where it comes from"
    for dtype, published in spec.published_tflops.items():
        peak = spec.peak_tflops(dtype)
        if peak is None or not abs(published - peak) <= AGREEMENT * peak:
            yield "published_tflops", (f"{dtype} is {shown(published)}, and SMs, clock and rate give {shown(peak or 0)}: "
                                       "correct them, or leave the table out")
