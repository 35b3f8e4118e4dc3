"""Columns of numbers that grow at the end and forget at the beginning. Free of Qt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

KEEP = 4096  # samples: some minutes at ten a second


class Ring:
    """`columns` numbers a sample, at least the newest KEEP samples.

    A block of twice that is written once, front to back; when it is full its newer half begins the next. What was handed
    out is therefore never overwritten, and a snapshot stays as it was for as long as anyone holds it.
    """

    def __init__(self, columns: int, keep: int = KEEP) -> None:
        self._keep = keep
        self._block: npt.NDArray[np.float64] = np.empty((columns, 2 * keep))
        self._size = 0

    def append(self, sample: Sequence[float]) -> None:
        """Adds one sample: a number for each column."""
        if self._size == 2 * self._keep:
            self._block = self._next_block(self._block[:, self._keep:])
            self._size = self._keep
        self._block[:, self._size] = sample
        self._size += 1

    def copy(self) -> Ring:
        """The same samples in a block of their own, which may be changed."""
        ring = Ring(len(self._block), self._keep)
        ring._block, ring._size = self._next_block(self._block[:, :self._size]), self._size
        return ring

    @property
    def rows(self) -> npt.NDArray[np.float64]:
        """[columns, n], oldest first: a view."""
        return self._block[:, :self._size]

    def _next_block(self, begin: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        block = np.empty_like(self._block)
        block[:, :begin.shape[1]] = begin
        return block
