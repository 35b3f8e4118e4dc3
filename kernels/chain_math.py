"""The tile functions of chains of launches from HBM to HBM, beside those of tile_math: no slot that is read is written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    T = torch.Tensor


def added(x: T, y: T) -> T:
    """x + y"""
    return x + y


def unchanged(x: T) -> T:
    """x, to be stored in another dtype."""
    return x


def dropped(p: T) -> tuple[T, T]:
    """Dropout at a rate of 0, for what falls by chance has no reference. -> P, and what is kept: all"""
    return p, p.new_ones(p.shape)


def kept(x: T, keep: T) -> T:
    """x where it is kept, else 0."""
    return x * keep.to(x.dtype)


def softmax_gradients(dp: T, p: T) -> T:
    """dS = P (dP - rowsum(dP P)) of whole rows in float32. Rounded to the dtype of dP."""
    return gradients_beside(dp, p, add_row_products(start_sum(), dp, p))


def start_sum() -> T:
    """A number for each row, 0 before the first part of it: [1, 1], to be broadcast."""
    import torch

    return torch.zeros(1, 1)


def add_row_products(total: T, dp: T, p: T) -> T:
    """total + rowsum(dP P) in float32, of a part of long rows."""
    return total + (dp.float() * p.float()).sum(-1)


def gradients_beside(dp: T, p: T, total: T) -> T:
    """dS = P (dP - total), of a part of long rows. Rounded to the dtype of dP."""
    return ((dp.float() - total[..., None]) * p.float()).to(dp.dtype)


def is_hidden(s: T) -> T:
    """Where S is -inf."""
    return s == -float("inf")


def start_all() -> T:
    """True before the first part of a row: [1, 1], to be broadcast."""
    return start_sum() == 0


def all_so_far(total: T, flags: T) -> T:
    """Whether all flags of this part of long rows are set, and all before."""
    return total & flags.bool().all(-1)


def zero_where(p: T, flags: T) -> T:
    """P, 0 in the rows whose flag is set."""
    return p.masked_fill(flags.bool()[..., None], 0.0)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        added, unchanged, dropped, kept, softmax_gradients, start_sum, add_row_products, gradients_beside, is_hidden, start_all,
        all_so_far, zero_where,
    )
}
