"""The knee of a layer: the batch up to which more rows cost no more time. Predicted from two roofs, and fitted to times."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from engine.batching.work import fitted


class Knee(Struct, frozen=True, kw_only=True):
    """Of one kernel at one width. `measured_batch` is None where all times are flat: the knee lies beyond them.

    `predicted_batch` is None where more rows never cost more than their bytes.
    """

    kernel: str
    width: int
    predicted_batch: float | None
    measured_batch: float | None
    flat_us: float
    us_a_row: float | None
    last_batch: int

    @property
    def text(self) -> str:
        """In a sentence."""
        wanted = "never" if self.predicted_batch is None else f"{self.predicted_batch:.0f}"
        found = f"beyond {self.last_batch}" if self.measured_batch is None else f"{self.measured_batch:.0f}"
        slope = "" if self.us_a_row is None else f", then {self.us_a_row:.3g} µs a row"
        where = f"knee predicted at batch {wanted}, measured at {found}"
        return f"{self.kernel} d{self.width}: {where}: {self.flat_us:.4g} µs{slope}"


def predicted(width: int, itemsize: int, tflops: float, tb_per_s: float) -> float | None:
    """The batch B at which 2 B d^2 flops take as long as (d^2 + 2 B d) elements. Source: the roofline, Williams 2009."""
    flops, read = tflops * 1e12, tb_per_s * 1e12
    gained = 2 * width * read - 2 * itemsize * flops
    return itemsize * width * flops / gained if gained > 0 else None


def knees(
    kernel: str, width: int, itemsize: int, points: Sequence[tuple[int, float]], tflops: float, tb_per_s: float
) -> Knee:
    """Both. `points`: (batch, µs)."""
    flat, slope = fitted(points)
    return Knee(
        kernel=kernel, width=width, predicted_batch=predicted(width, itemsize, tflops, tb_per_s),
        measured_batch=None if slope is None else flat / slope, flat_us=flat, us_a_row=slope,
        last_batch=max(batch for batch, _ in points))
