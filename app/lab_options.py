"""Which options of the command line belong to which lab, and what of its first choice they decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from app.batching.options import NAMES as BATCHING
from app.batching.options import SHARED as BATCHING_TOO
from app.batching.options import batch_options, batching_from
from app.decoding.options import NAMES as DECODING
from app.decoding.options import SHARED as DECODING_TOO
from app.decoding.options import decode_options, decoding_from
from engine.options import BadInput, workload_from

F = TypeVar("F", bound=Callable[..., Any])
ATTENTION = "attention"     # whose are all that no other lab has


class _Options(NamedTuple):
    """Of one lab: its own, those that another has too, and how they become what a first choice is asked for, by a name."""

    own: tuple[str, ...]
    shared: tuple[str, ...]
    name: str
    read: Callable[[Mapping[str, Any]], dict[str, Any]]


_LABS = {"decode": _Options(DECODING, DECODING_TOO, "decoding", decoding_from),
         "batching": _Options(BATCHING, BATCHING_TOO, "batching", batching_from)}


def lab_options(command: F) -> F:
    """Adds the options of all labs but the workload's; the command takes them as `**options`."""
    return decode_options(batch_options(command))


def options_of(lab: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a first choice is asked for, as the kind of the lab takes it. `given`: the options that are given.

    Raises: BadInput where one belongs to another lab, or is not what it should be.
    """
    of = _LABS.get(lab)
    for name in given:
        owner = next((other for other, options in _LABS.items() if name in options.own), ATTENTION)
        flag = "set" if name == "settings" else name.replace("_", "-")
        if of is None and owner != ATTENTION:
            raise BadInput(f"--{flag} belongs to the {owner} lab: add --lab {owner}")
        if of is not None and name not in (*of.own, *of.shared):
            raise BadInput(f"--{flag} belongs to the {owner} lab: leave it out of the {lab} lab")
    if of is not None:
        return {of.name: of.read(given)}
    options = {name: value for name, value in given.items() if name != "kernel"}
    workload_from(options)
    kernels = tuple(name.strip() for name in given["kernel"].split(",")) if "kernel" in given else ()
    return {"kernels": kernels, "options": options}
