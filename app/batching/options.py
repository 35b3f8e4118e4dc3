"""The command line's part of a first batching: `--lab batching --work linear --width 8192`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from engine.batching.work import LIMITS
from engine.options import BadInput

F = TypeVar("F", bound=Callable[..., Any])
NAMES = ("work", "width", "steps", "cached")
SHARED = ("model", "dtype")     # options that other labs have too
WORKS = ("linear", "rnn", "model")
_OPTIONS = (
    click.option("--work", metavar="KIND", help=f"What is batched: {', '.join(WORKS)}."),
    click.option("--width", type=click.IntRange(*LIMITS["width"]), help="Of the square W of a layer or an RNN."),
    click.option("--steps", type=click.IntRange(*LIMITS["steps"]), help="Steps of the RNN."),
    click.option("--cached", type=click.IntRange(*LIMITS["cached"]), help="Tokens that each sequence has in its cache."),
)


def batch_options(command: F) -> F:
    """Adds the options; the command takes them as `**options`. `--model` is decode's."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def batching_from(given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a first choice they decide, as app.batching.choice.asked_choice takes it. Raises: BadInput."""
    if given.get("work", WORKS[0]) not in WORKS:
        raise BadInput(f"--work {given['work']!r} is none: choose {', '.join(WORKS)}")
    return dict(given)
