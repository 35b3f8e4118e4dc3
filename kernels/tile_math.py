"""The tile functions that schedules name: what a program computes on the tiles in its slots, in torch.

Every function takes the slots that its op reads, in order, then the op's args by name, and returns the slots that it
writes, in order. Tiles are [P, rows, columns] over P programs run at once; m_i and l_i are [P, rows]. Products and softmax
are in float32 whatever the tiles' dtype, as the kernels accumulate; P and S are rounded where a kernel rounds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from kernels import chain_math

if TYPE_CHECKING:
    import torch

    T = torch.Tensor


def _product(a: T, b: T) -> T:
    return a.float() @ b.float()


@cache
def _hidden(rows: int, cols: int, row: int, col: int, shift: int, causal: bool, window: int) -> T | None:
    """The keys of a tile that its queries do not see: bool [rows, cols]; None where all are seen."""
    import torch

    if not causal:
        return None
    first, last = row + shift, row + rows - 1 + shift  # the last key that the first and the last row see
    if col + cols - 1 <= first and not (window and col <= last - window):
        return None
    at = torch.arange(row + shift, row + shift + rows)[:, None]
    keys = torch.arange(col, col + cols)[None, :]
    hidden = keys > at
    return hidden | (keys <= at - window) if window else hidden


def scores(q: T, k: T, *, scale: float, row: int = 0, col: int = 0, shift: int = 0, causal: float = 0, window: int = 0) -> T:
    """S = Q K^T * scale, -inf where a key is not seen. q [P, rows, D], k [P, cols, D] -> [P, rows, cols] float32."""
    s = _product(q, k.mT).mul_(scale)
    hidden = _hidden(s.shape[1], s.shape[2], row, col, shift, bool(causal), int(window))
    return s if hidden is None else s.masked_fill_(hidden, -float("inf"))


def mask(s: T, *, row: int, col: int, shift: int, causal: float, window: int) -> T:
    """S with -inf where query row + i does not see key col + j; a copy, for s may be the operand itself."""
    hidden = _hidden(s.shape[1], s.shape[2], row, col, shift, bool(causal), int(window))
    return s if hidden is None else s.masked_fill(hidden, -float("inf"))


def scale_and_mask(s: T, *, scale: float, row: int, col: int, shift: int, causal: float, window: int) -> T:
    """S * scale in float32, -inf where query row + i does not see key col + j; a copy, for s may be the operand itself."""
    x = s.to(_float32(), copy=True).mul_(scale)
    hidden = _hidden(x.shape[1], x.shape[2], row, col, shift, bool(causal), int(window))
    return x if hidden is None else x.masked_fill_(hidden, -float("inf"))


def softmax(s: T) -> T:
    """P = softmax of whole rows in float32; a row of -inf alone gives 0. Rounded to the dtype of s."""
    x = s.float()
    top = x.amax(-1, keepdim=True).nan_to_num_(neginf=0.0)
    e = (x - top).exp_()
    total = e.sum(-1, keepdim=True)
    return e.div_(total.where(total > 0, 1.0)).to(s.dtype)


def row_max(s: T, m_i: T, l_i: T) -> tuple[T, T]:
    """One pass over a chunk of a long row: the running maximum and sum. -> m, l"""
    x = s.float()
    new = m_i.maximum(x.amax(-1))
    base = new.nan_to_num(neginf=0.0)
    return new, l_i * (m_i - base).exp_() + (x - base[..., None]).exp_().sum(-1)


def normalise(s: T, m_i: T, l_i: T) -> T:
    """P = exp(S - m) / l for a chunk of a long row; 0 where the row sees no key. Rounded to the dtype of s."""
    base = m_i.nan_to_num(neginf=0.0)[..., None]
    return ((s.float() - base).exp_() / l_i.where(l_i > 0, 1.0)[..., None]).to(s.dtype)


def start_rows() -> tuple[T, T]:
    """m = -inf and l = 0 before the first chunk of a row: [1, 1], to be broadcast."""
    import torch

    return torch.full((1, 1), -float("inf")), torch.zeros(1, 1)


def start(q: T) -> tuple[T, T, T, T]:
    """m = -inf, l = 0, O = 0 beside a block of queries. -> q, m, l, O"""
    m_i = q.new_full(q.shape[:2], -float("inf"), dtype=_float32())
    return q, m_i, m_i.new_zeros(m_i.shape), m_i.new_zeros(q.shape)


def online_softmax(s: T, m_i: T, l_i: T, o: T) -> tuple[T, T, T, T]:
    """One step of the online softmax; rows that have seen no key keep m = -inf. -> P (unrounded), m, l, O rescaled"""
    new = m_i.maximum(s.amax(-1))
    base = new.nan_to_num(neginf=0.0)
    p = s.sub_(base[..., None]).exp_()
    alpha = (m_i - base).exp_()
    return p, new, l_i * alpha + p.sum(-1), o.mul_(alpha[..., None])


def tile_softmax(s: T, m_i: T, l_i: T) -> tuple[T, T, T, T]:
    """The same step beside an O that is elsewhere and normalised. -> P (unrounded), m, l, and the weight w of that O"""
    new = m_i.maximum(s.amax(-1))
    base = new.nan_to_num(neginf=0.0)
    p = s.sub_(base[..., None]).exp_()
    weight = l_i * (m_i - base).exp_()
    return p, new, weight + p.sum(-1), weight


def lse_softmax(s: T, lse: T) -> tuple[T, T, T, T]:
    """The same step beside an O that is normalised, with its lse alone. -> P (unrounded), l, the weight w of that O, lse"""
    m_i = lse.maximum(s.amax(-1))
    base = m_i.nan_to_num(neginf=0.0)
    p, weight = s.sub_(base[..., None]).exp_(), (lse - base).exp_()
    total = weight + p.sum(-1)
    return p, total, weight, share_lse(m_i, total)


def accumulate_pv(o: T, p: T, v: T) -> T:
    """O + P V, P rounded to V's dtype as the matrix unit takes it."""
    return o.add_(_product(p.to(v.dtype), v))


def weighted_pv(o: T, w: T, p: T, v: T) -> T:
    """w O + P V, P rounded to V's dtype; a copy, for o may be the operand itself."""
    return _product(p.to(v.dtype), v).add_(o * w[..., None])


def start_o() -> T:
    """O = 0, or another sum, before the first product: [1, 1, 1], to be broadcast."""
    import torch

    return torch.zeros(1, 1, 1)


def pv(o: T, p: T, v: T) -> T:
    """O + P V, where O may be the [1, 1, 1] it starts as."""
    return o + _product(p, v)


def finish(o: T, l_i: T) -> T:
    """O / l; 0 for a row that saw no key."""
    return o.div_(l_i.where(l_i > 0, 1.0)[..., None])


def page_scores(q: T, *pages: T, scale: float) -> T:
    """S = Q K^T * scale, the keys [P, tokens, D] of some pages one after the other."""
    import torch

    return scores(q, torch.cat(pages, 1), scale=scale)


def page_pv(o: T, p: T, *pages: T) -> T:
    """O + P V, the values of some pages one after the other."""
    import torch

    return accumulate_pv(o, p, torch.cat(pages, 1))


def scaled_scores(q: T, k: T, k_scale: T, *, scale: float) -> T:
    """S = Q K^T * scale with K in 8 bits, times the scale of each key. k_scale [P, cols] -> [P, rows, cols] float32."""
    return _product(q, k.mT).mul_(k_scale[:, None, :] * scale)


def accumulate_scaled_pv(o: T, p: T, v: T, v_scale: T) -> T:
    """O + (P scale) V with V in 8 bits and the scale of each key."""
    return o.add_(_product(p * v_scale[:, None, :], v))


def share_lse(m_i: T, l_i: T) -> T:
    """lse = m + log l of a share of the keys; -inf where it has none."""
    return m_i + l_i.where(l_i > 0, 1.0).log()


def start_merge() -> tuple[T, T, T]:
    """m = -inf, l = 0 and O = 0 before the first shares: [1, 1], [1, 1] and [1, 1, 1], to be broadcast."""
    return (*start_rows(), start_o())


def merge(part: T, lse: T, m_i: T, l_i: T, o: T) -> tuple[T, T, T]:
    """The normalised O [P, shares, D] of some shares, weighted by their lse [P, shares], beside those of before. -> m, l, O"""
    new = m_i.maximum(lse.amax(-1, keepdim=True))
    base = new.nan_to_num(neginf=0.0)
    weight, alpha = (lse - base).exp(), (m_i - base).exp()
    return new, l_i * alpha + weight.sum(-1, keepdim=True), o * alpha[..., None] + weight[:, None, :] @ part


def base_of(lse: T) -> T:
    """lse in base 2, inf where it is -inf: P = exp2(S log2 e - base) is 0 in a row that sees no key."""
    return (lse * math.log2(math.e)).masked_fill(lse == -float("inf"), float("inf"))


def row_products(o: T, do: T) -> T:
    """delta = rowsum(dO O) in float32."""
    return (o.float() * do.float()).sum(-1)


def start_gradients() -> tuple[T, T]:
    """dK = 0 and dV = 0: [1, 1, 1] each, to be broadcast."""
    return start_o(), start_o()


def probabilities(s: T, base: T) -> T:
    """P = exp2(S log2 e - base), unrounded."""
    return s.mul_(math.log2(math.e)).sub_(base[..., None]).exp2_()


def score_gradients(p: T, dp: T, delta: T) -> T:
    """dS = P (dP - delta), unrounded."""
    return dp.sub_(delta[..., None]).mul_(p)


def accumulate_transposed(total: T, weights: T, x: T) -> T:
    """total + weights^T x, weights rounded to the dtype of x as the matrix unit takes them."""
    return total + _product(weights.to(x.dtype).mT, x)


def rounded_product(weights: T, x: T) -> T:
    """weights x in float32, weights rounded to the dtype of x."""
    return _product(weights.to(x.dtype), x)


def accumulate_dq(dq: T, ds: T, k: T) -> T:
    """dQ + dS K in float32, dS rounded to the dtype of K; a copy, for dq may be the operand itself."""
    return dq + rounded_product(ds, k)


def scaled(x: T, *, scale: float) -> T:
    """x * scale"""
    return x * scale


def accumulate_rows(y: T, x: T, w: T) -> T:
    """Y + X W^T, where Y may be the [1, 1, 1] it starts as."""
    return y + _product(x, w.mT)


def add(total: T, part: T) -> T:
    """total + part, where total may be the [1, 1, 1] it starts as."""
    return total + part


def tanh_scaled(y: T, *, scale: float) -> T:
    """tanh(scale Y)"""
    return (y * scale).tanh_()


def _float32() -> Any:
    import torch

    return torch.float32


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        scores, mask, scale_and_mask, softmax, row_max, normalise, start_rows, start, online_softmax, tile_softmax, lse_softmax,
        accumulate_pv, weighted_pv, start_o, pv, finish, page_scores, page_pv, scaled_scores, accumulate_scaled_pv,
        share_lse, start_merge, merge,
         base_of, row_products, start_gradients, probabilities, score_gradients, accumulate_transposed, rounded_product,
         accumulate_dq, scaled, accumulate_rows, add, tanh_scaled,
    )
} | chain_math.FUNCTIONS
