"""The command line's part of a first decoding: `--lab decode --model gpt2 --cache none,paged --prompt 128 --new 512`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from app.decoding.choice import ATTENTIONS
from engine.decoding import CACHES, MOST
from engine.options import BadInput

F = TypeVar("F", bound=Callable[..., Any])
SHARED = ("batch", "dtype")     # options that a workload has too
_OPTIONS = (
    click.option("--model", metavar="ID", help="Which model is decoded, of assets/models."),
    click.option("--cache", metavar="KIND[,KIND...]", help=f"Caches to compare: {', '.join(CACHES)}."),
    click.option("--attention", metavar="KIND[,KIND...]", help="mha, gqa, mqa; left out: as the model has it."),
    click.option("--prompt", type=click.IntRange(1, MOST["prompt"]), help="Tokens that each sequence begins with."),
    click.option("--new", type=click.IntRange(1, MOST["new"]), help="Tokens that are made, one a step."),
)
NAMES = ("model", "cache", "attention", "prompt", "new")


def decode_options(command: F) -> F:
    """Adds the options; the command takes them as `**options`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def decoding_from(given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a first choice they decide, as app.decoding.choice.asked_choice takes it. Raises: BadInput."""
    asked = {name: given[name] for name in ("model", "prompt", "new", *SHARED) if name in given}
    if "cache" in given:
        asked["caches"] = _several("cache", given["cache"], CACHES)
    if "attention" in given:
        asked["attentions"] = _several("attention", given["attention"].upper(), ATTENTIONS)
    return asked


def _several(name: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Each of them once, in the order known."""
    wanted = {part.strip() for part in text.split(",")}
    if strange := sorted(wanted - set(known)):
        raise BadInput(f"--{name} {strange[0].lower()!r} is none: choose {', '.join(known).lower()}")
    return tuple(one for one in known if one in wanted)
