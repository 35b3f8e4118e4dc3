"""Which visits find their tile in a cache that replaces what was not used for longest.

A tile is there still where all that was visited since its last visit, itself included, fits: its reuse distance. Source:
Mattson 1970, stack algorithms. Distances are read off one table of what is visited between any two of some hundred moments, and
between these in proportion to the bytes visited.
"""

from __future__ import annotations

import numpy as np

from engine.simulator.sharing import Floats
from kernels.contract.expr import Ints

MOMENTS = 512


def by_tile(tile: Ints) -> tuple[Ints, Ints]:
    """Visits in order of tile and then of time, and of each visit the one before of the same tile, -1 where it is the first.

    Args:
        tile: of each visit, in order of time: [visits].
    """
    order: Ints = np.argsort(tile, kind="stable")
    found: Ints = np.full(len(tile), -1, dtype=np.int64)
    same = tile[order[1:]] == tile[order[:-1]]
    found[order[1:][same]] = order[:-1][same]
    return order, found


def distances(before: Ints, size: Floats) -> Floats:
    """Of each visit that has one before, the bytes of all tiles visited from that one on; infinite for a first visit.

    Args:
        before: of each visit, in order of time, the one before of the same tile, or -1. size: bytes of its tile: [visits].
    """
    count = len(before)
    moments = min(MOMENTS, count)
    at = np.arange(count) + 0.0 if count <= MOMENTS else (np.cumsum(size) - size) * (moments * (1 - 1e-9) / size.sum())
    part = at.astype(np.int64)
    again = before >= 0
    since = np.where(again, part[before] + 1, 0)
    new = np.bincount(part * (moments + 1) + since, weights=size, minlength=moments * (moments + 1))
    new = np.cumsum(new.reshape(moments, moments + 1), axis=1)    # of each part, what was not visited since a moment
    upto = np.vstack((np.zeros(moments + 1), np.cumsum(new, axis=0)))
    between = (upto - np.diag(upto)).T                            # of two moments, the bytes visited from the one to the other
    step = np.arange(moments)
    between[step + 1, step] = -between[step, step + 1]            # so that it is in proportion within one part, too
    found = np.full(count, np.inf)
    start, end = at[before[again]], at[again]
    i, j = start.astype(np.int64), end.astype(np.int64)
    u, v = start - i, end - j
    found[again] = ((1 - u) * ((1 - v) * between[i, j] + v * between[i, j + 1])
                    + u * ((1 - v) * between[i + 1, j] + v * between[i + 1, j + 1]))
    return found
