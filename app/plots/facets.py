"""Curves on scales, as data: what a CurveChart draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from app.plots.rows import Scale
from app.series import FloatArray
from app.theme import Mark


@dataclass(frozen=True)
class Curve:
    """One curve. `values`: what its label says behind the name, fullest first; no label where `name` is empty.

    `stairs`: y holds until the next x. `points`: markers alone, at most one every 24 pixels; `dotted`: markers on the line.
    `spread`: low and high at each x. `tags`: a word at each point, where there is room. `width`: of the line.
    """

    name: str
    mark: Mark
    x: FloatArray
    y: FloatArray
    values: tuple[str, ...] = ("",)
    stairs: bool = False
    points: bool = False
    dotted: bool = False
    spread: tuple[FloatArray, FloatArray] | None = None
    tags: tuple[str, ...] = ()
    width: float = 1.5


class Rule(NamedTuple):
    """A line across, at a value, with a word above it."""

    y: float
    text: str


class Limit(NamedTuple):
    """A line down, at a value of x, with words beside it, fullest first."""

    x: float
    texts: tuple[str, ...]


class Upright(NamedTuple):
    """A line down, at a value of x, with words beside it, fullest first: dashed where it was not measured."""

    x: float
    texts: tuple[str, ...]
    dashed: bool = False


@dataclass(frozen=True)
class Facet:
    """One drawing of several on the same scales. `limit`: where something ends. `high`: the words of `uprights` are on top."""

    curves: tuple[Curve, ...]
    title: str = ""
    strong: bool = False
    rules: tuple[Rule, ...] = ()
    limit: Limit | None = None
    uprights: tuple[Upright, ...] = ()
    high: bool = False
    note: str = field(default="", compare=False)


def thinned(curve: Curve, width: float) -> tuple[FloatArray, FloatArray]:
    """As many of its points as one a pixel, the ends among them; as stairs where it is one."""
    x, y = curve.x, curve.y
    most = max(2, round(width))
    if len(x) > most:
        kept = np.unique(np.linspace(0, len(x) - 1, most).astype(np.int64))
        x, y = x[kept], y[kept]
    if curve.stairs and len(x) > 1:
        return np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    return x, y


def shares(scale: Scale, values: FloatArray) -> FloatArray:
    """Where values lie on a scale, 0 to 1, as Scale.at says of one."""
    low, high = scale.low, scale.high
    if scale.log:
        low, high, values = math.log(low), math.log(high), np.log(np.maximum(values, 1e-300))
    return np.clip((values - low) / ((high - low) or 1.0), 0.0, 1.0)
