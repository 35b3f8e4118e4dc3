"""Decoding as data: a model's shape, ways to decode it side by side (lanes), and the sizes that follow from both.

Free of torch: it can be sent, stored, replayed and planned with.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kernels.contract.workload import ITEMSIZE, PAGE, DType

CacheKind = Literal["none", "dense", "paged", "int8", "fp8"]
CACHES: tuple[CacheKind, ...] = ("none", "dense", "paged", "int8", "fp8")

SCALE_BYTES = 4      # of the scale of one token's K or V of one head in an 8-bit cache
MOST = {"batch": 4096, "prompt": 1 << 20, "new": 1 << 20}


class Model(Struct, frozen=True, kw_only=True):
    """A decoder-only transformer's shape. Source of each: the model's published configuration, named in `source`.

    Attributes:
        heads, kv_heads, head_dim: of the attention; the query width heads * head_dim need not be `hidden`.
        hidden: width of the residual stream.
        mlp: inner width of the MLP; swiglu has two matrices of that width, gelu one.
        context: the most tokens that it was made for.
        bias: whether its linear layers have biases.
        tied: whether the last layer is the embedding.
        theta: base of the rotary angles. eps: of the norms.
        qk_norm: whether Q and K are normalised, head by head, before they are rotated (Qwen3).
    """

    id: str
    title: str
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    context: int
    hidden: int
    mlp: int
    vocab: int
    positions: Literal["learned", "rotary"] = "rotary"
    norm: Literal["layer", "rms"] = "rms"
    activation: Literal["gelu", "swiglu"] = "swiglu"
    bias: bool = False
    tied: bool = False
    qk_norm: bool = False
    theta: float = 10000.0
    eps: float = 1e-5
    source: str = ""

    def parameters(self, kv_heads: int) -> int:
        """Weights of the model with so many KV heads, norms and biases included; a tied embedding once."""
        width, kv_width = self.heads * self.head_dim, kv_heads * self.head_dim
        up = self.mlp * (2 if self.activation == "swiglu" else 1)
        outs = (width + 2 * kv_width, self.hidden, up, self.hidden)
        matrices = outs[0] * self.hidden + outs[1] * width + outs[2] * self.hidden + outs[3] * self.mlp
        norm = self.hidden * (2 if self.norm == "layer" else 1)
        layer = matrices + 2 * norm + (sum(outs) if self.bias else 0) + (2 * self.head_dim if self.qk_norm else 0)
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        learned = self.context * self.hidden if self.positions == "learned" else 0
        return self.layers * layer + embeddings + learned + norm


class Lane(Struct, frozen=True, kw_only=True):
    """One way of decoding a model: how it keeps K and V, and of how many heads."""

    cache: CacheKind
    kv_heads: int

    @property
    def id(self) -> str:
        """`dense-8`: how samples name it."""
        return f"{self.cache}-{self.kv_heads}"


class Decoding(Struct, frozen=True, kw_only=True):
    """A run: from a prompt of so many tokens so many new ones, of `batch` sequences at once, in every lane.

    Attributes:
        weights: a folder with the model's safetensors; empty: random ones, from `seed` as the prompt is.
        temperature: 0 chooses the likeliest token, else one is drawn, of the `top_k` likeliest where that is not 0.

    Raises:
        ValueError: a number out of range, more tokens than the model was made for, or lanes that are none, alike or do not
            divide the heads.
    """

    model: Model
    lanes: tuple[Lane, ...]
    batch: int = 1
    prompt: int = 128
    new: int = 512
    dtype: DType = "float16"
    weights: str = ""
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            if not 1 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} {value} is out of range: choose from 1 to {most}")
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature {self.temperature:g} is out of range: choose from 0, which is greedy, to 100")
        if not 0 <= self.top_k <= self.model.vocab:
            raise ValueError(f"top-k {self.top_k} is out of range: choose from 0, which is all, to {self.model.vocab}")
        if self.tokens > self.model.context:
            raise ValueError(f"{self.prompt} tokens of prompt and {self.new} new ones are more than the context of "
                             f"{self.model.title}, {self.model.context}: choose fewer")
        if not self.lanes or len({lane.id for lane in self.lanes}) < len(self.lanes):
            raise ValueError("each lane is wanted once, and one at least: choose caches and KV heads")
        for lane in self.lanes:
            if lane.kv_heads < 1 or self.model.heads % lane.kv_heads:
                raise ValueError(f"kv-heads {lane.kv_heads} does not divide the {self.model.heads} heads of "
                                 f"{self.model.title}: choose one that does")

    @property
    def tokens(self) -> int:
        """Of one sequence at the end."""
        return self.prompt + self.new

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the weights, and of K and V where the cache is not of 8 bits."""
        return ITEMSIZE[self.dtype]

    def weights_bytes(self, lane: Lane) -> int:
        """Bytes of the model's weights in this lane."""
        return self.model.parameters(lane.kv_heads) * self.itemsize

    def kv_bytes(self, lane: Lane, tokens: int) -> int:
        """By formula, of a cache of `tokens` of each sequence: 2 B n H_kv D layers bytes, and in 8 bits the scales."""
        if lane.cache == "none":
            return 0
        eight = lane.cache in ("int8", "fp8")
        head = self.model.head_dim + SCALE_BYTES if eight else self.model.head_dim * self.itemsize
        return 2 * self.batch * tokens * lane.kv_heads * head * self.model.layers

    def kv_allocated_bytes(self, lane: Lane) -> int:
        """What a cache for the whole run takes: whole pages where it is paged, and their table."""
        pages = -(-self.tokens // PAGE)
        if lane.cache == "paged":
            return self.kv_bytes(lane, pages * PAGE) + 4 * self.batch * pages
        return self.kv_bytes(lane, self.tokens)

    def step_bytes(self, lane: Lane, tokens: int) -> int:
        """What one step must read from memory where each sequence holds `tokens` already: the weights and the cache.

        Of the embedding only the rows of its tokens where it is not the last layer as well. Without a cache all tokens are
        computed again, from the weights alone: K and V of `tokens` go through memory once a layer, written and read.
        """
        embedding = 0 if self.model.tied else self.model.vocab * self.model.hidden * self.itemsize
        learned = self.model.context * self.model.hidden * self.itemsize if self.model.positions == "learned" else 0
        weights = self.weights_bytes(lane) - embedding - learned
        if lane.cache == "none":
            return weights + 2 * self.kv_bytes(Lane(cache="dense", kv_heads=lane.kv_heads), tokens)
        return weights + self.kv_bytes(lane, tokens)
