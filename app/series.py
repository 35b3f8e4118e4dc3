"""One kernel's samples over time, and the statistics of the newest. Free of Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.rings import Ring
from engine.protocol import KernelSample, Provenance

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WINDOW = 40             # newest samples that the statistics are made of
EARLIER = -1            # generation of samples from before the engine was restarted


class Stats(NamedTuple):
    """Quantiles of the newest samples of the current generation, in nanoseconds, and how many they are."""

    p20: float
    p50: float
    p80: float
    n: int


@dataclass(frozen=True, slots=True)
class Series:
    """One kernel's samples, oldest first, all generations. Arrays [n]; never written again, so a snapshot stays as it was."""

    t_s: FloatArray
    time_ns: FloatArray
    generation: IntArray
    tflops: FloatArray
    stats: Stats | None
    provenance: Provenance
    source: str
    l2_policy: str

    @property
    def median_tflops(self) -> float | None:
        """Nominal flops over the median time: the figure that is quoted. None before the first sample."""
        return None if self.stats is None else float(self.tflops[-1] * self.time_ns[-1]) / self.stats.p50


def quantiles(time_ns: Sequence[float] | FloatArray) -> Stats:
    """Of some times, one at least."""
    p20, p50, p80 = np.percentile(np.asarray(time_ns), (20, 50, 80)).tolist()
    return Stats(p20, p50, p80, len(time_ns))


class KernelRing:
    """The samples of one kernel and the statistics of the newest."""

    def __init__(self) -> None:
        self._ring = Ring(4)
        self._current = 0  # samples of the current generation, at the end
        self._series: Series | None = None

    def add(self, t_s: float, sample: KernelSample, nominal_flops: int) -> None:
        self._ring.append((t_s, sample.time_ns, sample.generation, nominal_flops / sample.time_ns / 1e3))
        self._current += 1
        self._last = sample
        self._series = None

    def new_generation(self) -> None:
        self._current = 0
        self._series = None

    def new_session(self) -> None:
        """Generations are numbered anew by a restarted engine: what came before belongs to none of them."""
        self._ring = self._ring.copy()
        self._ring.rows[2][:] = EARLIER
        self.new_generation()

    def series(self) -> Series:
        if self._series is None:
            t_s, time_ns, generation, tflops = self._ring.rows
            n = min(self._current, WINDOW)
            stats = quantiles(time_ns[-n:]) if n else None
            last = self._last
            self._series = Series(
                t_s, time_ns, generation.astype(np.int64), tflops, stats, last.provenance, last.source, last.l2_policy
            )
        return self._series
