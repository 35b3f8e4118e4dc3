"""Integer expressions over a program's coordinates and loop variables: the bounds and indices of a schedule.

Three forms are enough for causal clamps, windows, grouped heads, page tables and ragged splits:
`Affine`  clip((sum of c * variable + const) // div % mod, lo, hi)
`Lookup`  table[at], a small integer table that travels with the schedule
`Least`   the smaller of two expressions
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

Ints = npt.NDArray[np.int64]
Env = Mapping[str, Any]  # variable -> int or an int array; arrays broadcast


class Affine(Struct, frozen=True, tag="affine", omit_defaults=True):
    """clip((sum of c * variable + const) // div % mod, lo, hi); mod 0 means none. `//` rounds down."""

    terms: tuple[tuple[str, int], ...] = ()
    const: int = 0
    div: int = 1
    mod: int = 0
    lo: int | None = None
    hi: int | None = None

    def __add__(self, other: Affine | int) -> Affine:
        self._require_linear("+")
        if isinstance(other, int):
            return replace(self, const=self.const + other)
        other._require_linear("+")
        sums = dict(self.terms)
        for name, factor in other.terms:
            sums[name] = sums.get(name, 0) + factor
        return Affine(tuple((n, c) for n, c in sums.items() if c), self.const + other.const)

    def __sub__(self, other: Affine | int) -> Affine:
        return self + (-other if isinstance(other, int) else other * -1)

    def __mul__(self, factor: int) -> Affine:
        self._require_linear("*")
        return Affine(tuple((n, c * factor) for n, c in self.terms if c * factor), self.const * factor)

    def __floordiv__(self, divisor: int) -> Affine:
        self._require_linear("//")
        return replace(self, div=divisor)

    def __mod__(self, modulus: int) -> Affine:
        if self.mod or self.lo is not None or self.hi is not None:
            raise ValueError("% must come before clip and only once")
        return replace(self, mod=modulus)

    def clip(self, lo: int | None = None, hi: int | None = None) -> Affine:
        """Bounded below by `lo` and above by `hi`, both inclusive."""
        return replace(self, lo=lo, hi=hi)

    def _require_linear(self, operator: str) -> None:
        if self.div != 1 or self.mod or self.lo is not None or self.hi is not None:
            raise ValueError(f"{operator} applies before // % and clip, not after")


class Lookup(Struct, frozen=True, tag="lookup"):
    """table[at[0], at[1], ...]"""

    table: str
    at: tuple[Affine, ...]


class Least(Struct, frozen=True, tag="least"):
    """min(first, second)"""

    first: Affine
    second: Lookup


Expr = Affine | Lookup | Least


def var(name: str) -> Affine:
    """The variable itself: a grid axis or a loop variable."""
    return Affine(((name, 1),))


def const(value: int) -> Affine:
    """A number."""
    return Affine(const=value)


def lookup(table: str, *at: Affine | int) -> Lookup:
    """An entry of a table that travels with the schedule."""
    return Lookup(table, tuple(const(i) if isinstance(i, int) else i for i in at))


def evaluate(expr: Expr, env: Env, tables: Mapping[str, Ints]) -> Any:
    """The value of `expr`: an int where every variable in `env` is one, else an array.

    Raises:
        KeyError: a variable or a table that is not there.
    """
    match expr:
        case Affine():
            value: Any = expr.const
            for name, factor in expr.terms:
                value = value + env[name] * factor
            if expr.div != 1:
                value = value // expr.div
            if expr.mod:
                value = value % expr.mod
            if expr.lo is not None:
                value = np.maximum(value, expr.lo)
            if expr.hi is not None:
                value = np.minimum(value, expr.hi)
            return value
        case Lookup():
            return tables[expr.table][tuple(evaluate(i, env, tables) for i in expr.at)]
        case Least():
            return np.minimum(evaluate(expr.first, env, tables), evaluate(expr.second, env, tables))


def variables(expr: Expr) -> frozenset[str]:
    """The names that `expr` depends on."""
    match expr:
        case Affine():
            return frozenset(name for name, _ in expr.terms)
        case Lookup():
            return frozenset().union(*(variables(i) for i in expr.at))
        case Least():
            return variables(expr.first) | variables(expr.second)
