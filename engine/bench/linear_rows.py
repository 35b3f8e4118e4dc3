"""The rows of the linear bench: batch 1 to 256 at two widths, and steps of a recurrent network."""

from __future__ import annotations

from typing import NamedTuple

from engine.bench.grid import named
from kernels.contract import LinearWorkload

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WIDTHS = (4096, 8192)
STEPS = 16


class Row(NamedTuple):
    """One workload under the name that `--only` finds it by."""

    id: str
    workload: LinearWorkload


def rows(only: tuple[str, ...] = ()) -> list[Row]:
    """All of them, or those that `only` names. Raises: BadInput where there is none."""
    return named(_all(), only)


def _all() -> list[Row]:
    layers = [Row(f"linear d{width} B{batch}", LinearWorkload(batch=batch, d_in=width, d_out=width))
              for width in WIDTHS for batch in BATCHES]
    steps = [Row(f"rnn d4096 B{batch} R{STEPS}", LinearWorkload(batch=batch, d_in=4096, d_out=4096, repeat=STEPS))
             for batch in (1, 8, 64)]
    return [*layers, *steps]
