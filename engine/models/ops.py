"""What a decoder computes, behind one seam: here in torch, for any device, and the reference of the fused kernels.

A decoder is built with one `Ops` and never asks which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from engine.models.kv_cache import Cache

Activation = Literal["none", "gelu_tanh", "swiglu"]


class Norm(NamedTuple):
    """LayerNorm where there is a bias, RMSNorm where there is none; weight and bias [d_in]."""

    weight: Tensor
    eps: float
    bias: Tensor | None = None


class Linear(NamedTuple):
    """weight [d_out, d_in], bias [d_out]; for SwiGLU both hold the gate above what it multiplies."""

    weight: Tensor
    bias: Tensor | None = None


class Heads(NamedTuple):
    """How a row of Q, K and V is cut into heads, and how Q and K are prepared.

    Attributes:
        query, kv: their numbers. dim: of each.
        q_norm, k_norm: each head is normalised by them first, where there are such.
        theta: base of the rotary angles; None where positions are learned.
    """

    query: int
    kv: int
    dim: int
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    theta: float | None = None


class Angles(NamedTuple):
    """Of the rotary positions of some rows: float32 [rows, 1, D / 2]."""

    cos: Tensor
    sin: Tensor


class Ops(Protocol):
    """The operations that a fused kernel may replace. Rows are tokens."""

    def linear(
        self, x: Tensor, layer: Linear, *, norm: Norm | None = None, activation: Activation = "none",
        residual: Tensor | None = None,
    ) -> Tensor:
        """residual + activation(norm(x) W^T + bias): x [rows, d_in], residual and what returns [rows, d_out]; residual may
        be written to."""

    def angles(self, positions: Tensor, heads: Heads) -> Angles | None:
        """What `rotate_and_append` wants in every layer for tokens at these positions [B]; None where it finds them itself."""

    def rotate_and_append(self, qkv: Tensor, heads: Heads, angles: Angles | None, cache: Cache, layer: int) -> Tensor:
        """One new token of each sequence, qkv [B, (H_q + 2 H_kv) D]: Q and K normalised and rotated, K and V into the cache at
        each sequence's length. Returns Q [B, H_q, D]; qkv may be written to."""

    def attend(self, q: Tensor, cache: Cache, layer: int) -> Tensor:
        """Attention of q [B, H_q, D] over the cache and the token just appended: [B, H_q D]."""


class TorchOps:
    """Plain torch."""

    def linear(
        self, x: Tensor, layer: Linear, *, norm: Norm | None = None, activation: Activation = "none",
        residual: Tensor | None = None,
    ) -> Tensor:
        y = functional.linear(x if norm is None else normalised(x, norm), layer.weight, layer.bias)
        if activation == "swiglu":
            gate, up = y.chunk(2, dim=-1)
            y = functional.silu(gate).mul_(up)
        elif activation == "gelu_tanh":
            y = functional.gelu(y, approximate="tanh")
        return y if residual is None else y.add_(residual)

    def angles(self, positions: Tensor, heads: Heads) -> Angles | None:
        return angles_at(positions, heads)

    def rotate_and_append(self, qkv: Tensor, heads: Heads, angles: Angles | None, cache: Cache, layer: int) -> Tensor:
        q, k, v = split(prepare(qkv, heads, angles), heads)
        cache.append(layer, k[:, None], v[:, None])
        return q

    def attend(self, q: Tensor, cache: Cache, layer: int) -> Tensor:
        return cache.attend(layer, q).flatten(1)


def normalised(x: Tensor, norm: Norm) -> Tensor:
    """Along the last dimension, summed in float32."""
    if norm.bias is None:
        return functional.rms_norm(x, x.shape[-1:], norm.weight, norm.eps)
    return functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def split(qkv: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Views q [..., H_q, D], k and v [..., H_kv, D] of qkv [..., (H_q + 2 H_kv) D]."""
    cut = qkv.view(*qkv.shape[:-1], heads.query + 2 * heads.kv, heads.dim)
    k, v = heads.query, heads.query + heads.kv
    return cut[..., :k, :], cut[..., k:v, :], cut[..., v:, :]


def prepare(qkv: Tensor, heads: Heads, angles: Angles | None) -> Tensor:
    """Q and K of qkv [rows, (H_q + 2 H_kv) D] normalised head by head, then rotated, in place."""
    q, k, _ = split(qkv, heads)
    if heads.q_norm and heads.k_norm:
        q.copy_(normalised(q, heads.q_norm))
        k.copy_(normalised(k, heads.k_norm))
    if angles:
        _rotate(q, angles)
        _rotate(k, angles)
    return qkv


def angles_at(positions: Tensor, heads: Heads) -> Angles | None:
    """The rotary angles of positions [rows]; None where they are learned. Pairs are (i, i + D / 2). Source: Su 2021; Llama."""
    if heads.theta is None:
        return None
    exponents = torch.arange(0, heads.dim, 2, dtype=torch.float32, device=positions.device) / heads.dim
    turns = positions.float()[:, None, None] * (1.0 / heads.theta**exponents)
    return Angles(turns.cos(), turns.sin())


def _rotate(x: Tensor, angles: Angles) -> None:
    """x [rows, H, D], in float32 and in place."""
    first, second = x.float().chunk(2, dim=-1)
    turned = first * angles.cos - second * angles.sin, second * angles.cos + first * angles.sin
    for half, new in zip(x.chunk(2, dim=-1), turned, strict=True):
        half.copy_(new)
