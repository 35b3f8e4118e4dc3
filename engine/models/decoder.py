"""A decoder-only transformer: a prompt at once, or one token of each sequence behind what a cache holds.

x += attention(norm(x)); x += mlp(norm(x)); logits = norm(x) head^T. Positions are learned or rotary, norms LayerNorm or RMSNorm
(in float32), the MLP GELU or SwiGLU, as the model says. Source: Radford 2019, GPT-2; Touvron 2023, Llama.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.decoding import Model
from engine.models.activations import ROWS, sequences_at_once
from engine.models.kv_cache import Cache
from engine.models.layout import qkv_rows
from engine.models.ops import Activation, Angles, Heads, Linear, Norm, Ops, TorchOps, angles_at, prepare, split
from engine.models.weights import Weights
from kernels.contract.workload import DType

# cuDNN's plans a new kernel for every length
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer."""

    norm1: Norm
    qkv: Linear
    heads: Heads
    out: Linear
    norm2: Norm
    up: Linear
    down: Linear


class Decoder:
    """A model with its weights on one device. Products in float32 are as exact as torch is told to: TF32 is off by default.

    Args:
        ops: what computes; plain torch unless told otherwise.
    """

    def __init__(
        self, model: Model, kv_heads: int, weights: Weights, dtype: DType, place: str, ops: Ops | None = None,
    ) -> None:
        self.model, self.kv_heads, self.dtype, self.place = model, kv_heads, dtype, place
        self.ops: Ops = TorchOps() if ops is None else ops
        self._embedding, self._positions = weights["embedding"], weights.get("positions")
        self._norm = self._norm_of(weights, "norm")
        self._head = Linear(weights["embedding" if model.tied else "head"])
        self._activation: Activation = "swiglu" if model.activation == "swiglu" else "gelu_tanh"
        self._layers = [self._layer(weights, f"layers.{number}") for number in range(model.layers)]

    def _norm_of(self, weights: Weights, name: str) -> Norm:
        return Norm(weights[f"{name}.weight"], self.model.eps, weights.get(f"{name}.bias"))

    def _layer(self, weights: Weights, at: str) -> Layer:
        def linear(name: str) -> Linear:
            return Linear(weights[f"{at}.{name}.weight"], weights.get(f"{at}.{name}.bias"))

        model = self.model
        q_norm, k_norm = (
            Norm(weights[f"{at}.{name}"], model.eps) if model.qk_norm else None for name in ("q_norm", "k_norm"))
        heads = Heads(model.heads, self.kv_heads, model.head_dim, q_norm, k_norm,
                      model.theta if model.positions == "rotary" else None)
        return Layer(self._norm_of(weights, f"{at}.norm1"), linear("qkv"), heads, linear("out"),
                     self._norm_of(weights, f"{at}.norm2"), linear("up"), linear("down"))

    def forward(self, tokens: Tensor, cache: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        """Logits [B, vocab] of what follows each sequence's last token.

        Args:
            tokens: int64 [B, T]. One of each sequence goes behind what the cache holds; several are a prompt, which begins at
                position 0 and fills an empty cache. Attention within a prompt is over K and V as computed, not as cached.
            lengths: int [B], of a prompt whose sequences end before T; what stands behind their ends does not matter.

        Raises:
            ValueError: a prompt for a cache that holds something, or more tokens than it has room for.
        """
        count = tokens.shape[1]
        if cache is not None:
            if cache.longest + count > cache.capacity:
                raise ValueError(f"{cache.longest + count} tokens do not fit a cache for {cache.capacity}: make a larger one")
            if cache.longest and count > 1:
                raise ValueError(f"the cache holds {cache.longest} tokens: give a prompt to an empty one, or a token at a time")
        with sdpa_kernel(BACKENDS):
            if cache is not None and count == 1:
                return self._step(tokens[:, 0], cache)
            return self._prompts(tokens, cache, lengths)

    def _prompts(self, tokens: Tensor, cache: Cache | None, lengths: Tensor | None) -> Tensor:
        """As many sequences at once as `activations` says."""
        batch, count = tokens.shape
        logits = torch.empty((batch, self.model.vocab), dtype=self._embedding.dtype, device=self.place)
        each = sequences_at_once(count)
        for start in range(0, batch, each):
            some = slice(start, start + each)
            logits[some] = self._prompt(
                tokens[some], cache.part(some) if cache else None, None if lengths is None else lengths[some])
        if cache is not None:
            cache.hold(count, lengths)
        return logits

    def _step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """One token of each sequence, tokens [B]."""
        positions = cache.lengths
        x = self._embed(tokens, positions)
        angles = self.ops.angles(positions, self._layers[0].heads)
        for number, layer in enumerate(self._layers):
            qkv = self.ops.linear(x, layer.qkv, norm=layer.norm1)
            q = self.ops.rotate_and_append(qkv, layer.heads, angles, cache, number)
            x = self._rest(layer, self.ops.attend(q, cache, number), x)
        cache.advance()
        return self.ops.linear(x, self._head, norm=self._norm)

    def _prompt(self, tokens: Tensor, cache: Cache | None, lengths: Tensor | None) -> Tensor:
        """All tokens [S, T] of some sequences; what works row by row takes ROWS at once."""
        sequences, count = tokens.shape
        positions = torch.arange(count, device=self.place).repeat(sequences)
        x = self._embed(tokens.flatten(), positions)
        angles = angles_at(positions, self._layers[0].heads)
        for number, layer in enumerate(self._layers):
            self._pass(number, layer, x.view(sequences, count, -1), angles, cache)
        last = x.view(sequences, count, -1)
        ends = last[:, -1] if lengths is None else last[torch.arange(sequences, device=self.place), lengths.long() - 1]
        return self.ops.linear(ends, self._head, norm=self._norm)

    def _pass(self, number: int, layer: Layer, x: Tensor, angles: Angles | None, cache: Cache | None) -> None:
        """x [S, T, hidden] through a layer, in place."""
        o, flat = self._attention(number, layer, x, angles, cache), x.flatten(0, 1)
        for rows in _chunks(len(flat)):
            flat[rows] = self._rest(layer, o[rows], flat[rows])

    def _attention(self, number: int, layer: Layer, x: Tensor, angles: Angles | None, cache: Cache | None) -> Tensor:
        """Causal, within x [S, T, hidden]: [S T, H_q D]."""
        flat = x.flatten(0, 1)
        qkv = x.new_empty((len(flat), qkv_rows(self.model, self.kv_heads)))
        for rows in _chunks(len(flat)):
            turns = Angles(angles.cos[rows], angles.sin[rows]) if angles else None
            qkv[rows] = prepare(self.ops.linear(flat[rows], layer.qkv, norm=layer.norm1), layer.heads, turns)
        q, k, v = split(qkv.view(*x.shape[:2], -1), layer.heads)
        if cache is not None:
            cache.append(number, k, v)
        group = self.model.heads // self.kv_heads
        if group > 1:  # not every back end knows groups
            k, v = (each.repeat_interleave(group, dim=2) for each in (k, v))
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(len(flat), -1)

    def _rest(self, layer: Layer, o: Tensor, x: Tensor) -> Tensor:
        """A layer after its attention: o [rows, H_q D], x [rows, hidden]."""
        x = self.ops.linear(o, layer.out, residual=x)
        inner = self.ops.linear(x, layer.up, norm=layer.norm2, activation=self._activation)
        return self.ops.linear(inner, layer.down, residual=x)

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        x = functional.embedding(tokens, self._embedding)
        return x if self._positions is None else x.add_(functional.embedding(positions, self._positions))


def _chunks(rows: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, rows, ROWS)]
