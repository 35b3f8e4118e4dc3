"""What one forward pass of a decoder launches, in order: by our engine, or by an eager PyTorch decoder, a kernel an operation.

`ours` reads as engine/models/decoder.py, kernel_ops.py and ops.py do: a step is fused layers of few rows, an append, and
attention over the cache where it lies; a prompt, and a step without a cache, is plain torch. `eager` reads as the decoders of
Hugging Face's transformers did before they took to SDPA: scores, mask and softmax go through memory, the last layer is of all
rows, a cache is copied when it grows. Copies that hang on strides, and most of what takes a few bytes, are left out.
Source: transformers 4.2x, modeling_gpt2.py, modeling_llama.py and activations.py (NewGELUActivation: 8 kernels).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from engine.decoding import Lane, Model
from engine.models.activations import ROWS, groups
from engine.models.layout import qkv_rows, up_rows
from engine.models.operations import FUSED_ROWS
from engine.simulator.figures import DeviceSpec
from engine.simulator.launches import HOPPER, Kept, Pass, Product
from kernels.contract import ITEMSIZE, AttentionWorkload
from kernels.contract.workload import DType

CACHE_KERNELS = {"dense": "split_kv", "paged": "paged", "int8": "int8", "fp8": "fp8"}
SDPA = ("sdpa_flash", "flash", "sdpa_math")  # the first that takes it: flash stands for the back end that torch calls efficient


class Attention(NamedTuple):
    """Attention by the first of these kernels of the catalog that takes it. `cached`: K and V are the cache's."""

    kernels: tuple[str, ...]
    workload: AttentionWorkload
    cached: bool = False

    @property
    def overlap(self) -> bool:
        return False

    @property
    def flops(self) -> int:
        """Nominal."""
        return self.workload.nominal_flops


Operation = Product | Pass | Attention
Counted = tuple[int, Operation]  # how often, what


class Shape(NamedTuple):
    """Of one pass: `new` tokens of each of `batch` sequences, behind `cached` ones."""

    model: Model
    lane: Lane
    dtype: DType
    batch: int
    cached: int
    new: int

    @property
    def tokens(self) -> int:
        return self.cached + self.new

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return ITEMSIZE[self.dtype]

    @property
    def steps(self) -> bool:
        """Whether it is a token of each sequence behind what a cache holds."""
        return self.lane.cache != "none" and self.new == 1


def ours(shape: Shape, spec: DeviceSpec) -> Iterator[Counted]:
    """By engine/models on a GPU with our kernels."""
    if shape.steps:
        yield from _step(shape, spec)
        return
    for some, times in Counter(groups(shape.batch, shape.tokens)).items():
        for often, operation in _prompt(shape._replace(batch=some), spec):
            yield times * often, operation
    yield from _choose(shape)


def _step(shape: Shape, spec: DeviceSpec) -> Iterator[Counted]:
    m, b, layers = shape.model, shape.batch, shape.model.layers
    width, kv = m.heads * m.head_dim, shape.lane.kv_heads * m.head_dim
    yield 2, Pass(b, 8)  # the last tokens
    yield from _embed(shape, b)
    for operation in _linear(shape, spec, b, m.hidden, qkv_rows(m, shape.lane.kv_heads), norm=True):
        yield layers, operation
    if m.qk_norm:
        for elements in (b * width, b * kv):
            yield 3 * layers, Pass(elements, shape.size)  # its rows copied, normalised, copied back
    turned = width if m.positions == "rotary" else 0
    yield layers, Pass(b * (2 * kv + turned), shape.size, vector_flops=3)
    seen = AttentionWorkload(batch=b, heads=m.heads, kv_heads=shape.lane.kv_heads, seq=1, seq_kv=shape.tokens,
                             head_dim=m.head_dim, dtype=shape.dtype, causal=False)
    yield layers, Attention((CACHE_KERNELS[shape.lane.cache],), seen, cached=True)
    yield from _rest(shape, spec, b)
    yield 1, Pass(2 * b, 4)  # the lengths
    for operation in _linear(shape, spec, b, m.hidden, m.vocab, norm=True):
        yield 1, operation
    yield from _choose(shape)


def _prompt(shape: Shape, spec: DeviceSpec) -> Iterator[Counted]:
    """`Decoder._prompt` of sequences that are computed at once."""
    m, layers, size = shape.model, shape.model.layers, shape.size
    rows, kv_heads = shape.batch * shape.tokens, shape.lane.kv_heads
    width, kv, qkv = m.heads * m.head_dim, kv_heads * m.head_dim, qkv_rows(m, kv_heads)
    yield from _embed(shape, rows)
    for times, some in _chunks(rows):
        for operation in _linear(shape, spec, some, m.hidden, qkv, norm=True):
            yield times * layers, operation
        for heads in (m.heads, kv_heads):
            if m.qk_norm:
                yield 3 * times * layers, Pass(some * heads * m.head_dim, size)
            if m.positions == "rotary":
                yield from _turned(times * layers, some * heads * m.head_dim, size)
        yield times * layers, Pass(some * qkv, size)
    if shape.lane.cache != "none":
        eight = shape.lane.cache in ("int8", "fp8")
        yield 2 * layers, Pass(rows * kv, size)
        yield (8 if eight else 0) * layers, Pass(rows * kv, 4)  # scales, and what is divided by them, in float32
    if kv_heads < m.heads:
        yield 2 * layers, Pass(rows * width, size)
    yield layers, Attention(SDPA, AttentionWorkload(
        batch=shape.batch, heads=m.heads, kv_heads=m.heads, seq=shape.tokens, head_dim=m.head_dim, dtype=shape.dtype))
    for times, some in _chunks(rows):
        for often, operation in _rest(shape, spec, some):
            yield times * often, operation
        yield times * layers, Pass(some * m.hidden, size)
    for operation in _linear(shape, spec, shape.batch, m.hidden, m.vocab, norm=True):
        yield 1, operation


def _turned(times: int, elements: int, size: int) -> Iterator[Counted]:
    """`_rotate`: widened, four products and two sums of halves, two copies back."""
    yield (times if size < 4 else 0), Pass(elements, 4)
    yield 6 * times, Pass(elements // 2, 4, reads=2)
    yield 2 * times, Pass(elements // 2, size)


def _chunks(rows: int) -> list[tuple[int, int]]:
    whole, rest = divmod(rows, ROWS)
    return [(times, some) for times, some in ((whole, ROWS), (1, rest)) if times and some]


def _embed(shape: Shape, rows: int) -> Iterator[Counted]:
    yield 1, Pass(rows * shape.model.hidden, shape.size)
    if shape.model.positions == "learned":
        yield 1, Pass(rows * shape.model.hidden, shape.size)
        yield 1, Pass(rows * shape.model.hidden, shape.size, reads=2)


def _rest(shape: Shape, spec: DeviceSpec, rows: int) -> Iterator[Counted]:
    """`Decoder._rest`, of all layers."""
    m = shape.model
    for operations in (_linear(shape, spec, rows, m.heads * m.head_dim, m.hidden, residual=True),
                       _linear(shape, spec, rows, m.hidden, up_rows(m), norm=True, activated=True),
                       _linear(shape, spec, rows, m.mlp, m.hidden, residual=True)):
        for operation in operations:
            yield m.layers, operation


def _linear(
    shape: Shape, spec: DeviceSpec, rows: int, d_in: int, d_out: int, *, norm: bool = False, activated: bool = False,
    residual: bool = False,
) -> Iterator[Operation]:
    """`Ops.linear`: fused up to FUSED_ROWS, else torch's kernels one after the other."""
    m, size, is_fused = shape.model, shape.size, rows <= FUSED_ROWS
    if norm and (rows > 1 or not is_fused):
        yield Pass(rows * d_in, size, vector_flops=8, sums=2)
    yield Product(
        rows, d_in, d_out, shape.dtype, fused=is_fused, overlap=is_fused and rows == 1 and spec.capability >= HOPPER,
        gated=is_fused and activated and m.activation == "swiglu", norm=norm and rows == 1)
    if is_fused:
        return
    if activated and m.activation == "swiglu":
        yield Pass(rows * m.mlp, size, vector_flops=4, exps=1)
        yield Pass(rows * m.mlp, size, reads=2)
    elif activated:
        yield Pass(rows * m.mlp, size, vector_flops=10, exps=1)
    if residual:
        yield Pass(rows * d_out, size, reads=2)


def _choose(shape: Shape) -> Iterator[Counted]:
    """`Generation._choose`, greedy."""
    yield 1, Pass(shape.batch * shape.model.vocab, shape.size, writes=0, sums=1)
    yield 2, Pass(shape.batch, 8)


def eager(shape: Shape, spec: DeviceSpec) -> Iterator[Counted]:  # noqa: ARG001  # alike on all
    """By an eager decoder of transformers, the logits of all rows included."""
    m, layers, size, cached = shape.model, shape.model.layers, shape.size, shape.lane.cache != "none"
    new = shape.new if cached else shape.tokens
    rows, width, kv = shape.batch * new, m.heads * m.head_dim, shape.lane.kv_heads * m.head_dim
    scores, planes = shape.batch * m.heads * new * shape.tokens, shape.batch * m.heads
    norm = 1 if m.norm == "layer" else 6  # an RMSNorm is widened, squared, averaged, its root multiplied, narrowed, scaled
    yield from _embed(shape, rows)
    yield 3, Pass(shape.batch * shape.tokens, 8)  # the mask and the positions
    yield (2 * layers + 1) * norm, Pass(rows * m.hidden, size, vector_flops=8 // norm, sums=2 // norm)
    yield layers, Product(rows, m.hidden, qkv_rows(m, shape.lane.kv_heads), shape.dtype)
    if m.positions == "rotary":
        for elements in (rows * width, rows * kv):
            yield 3 * layers, Pass(elements, size)
            yield 2 * layers, Pass(elements, size, reads=2)
    if cached:
        yield 2 * layers, Pass(shape.batch * shape.tokens * kv, size)
    if shape.lane.kv_heads < m.heads:
        yield 2 * layers, Pass(shape.batch * shape.tokens * width, size)
    made: Kept = "cache" if cached and new == 1 else "made"
    yield layers, Product(new, m.head_dim, shape.tokens, shape.dtype, planes=planes, kept=made)
    yield 3 * layers, Pass(scores, size)  # over the root of D; causal; the mask of paddings
    yield layers, Pass(scores, size, vector_flops=4, exps=1, sums=2)
    yield layers, Product(new, shape.tokens, m.head_dim, shape.dtype, planes=planes, kept=made)
    yield layers, Pass(rows * width, size)  # heads beside each other
    yield layers, Product(rows, width, m.hidden, shape.dtype)
    yield 2 * layers, Pass(rows * m.hidden, size, reads=2)
    yield layers, Product(rows, m.hidden, up_rows(m), shape.dtype)
    if m.activation == "swiglu":
        yield layers, Pass(rows * m.mlp, size, vector_flops=4, exps=1)
        yield layers, Pass(rows * m.mlp, size, reads=2)
    else:
        yield 6 * layers, Pass(rows * m.mlp, size)  # of which two are a power and a tanh
        yield 2 * layers, Pass(rows * m.mlp, size, reads=2)
    yield layers, Product(rows, m.mlp, m.hidden, shape.dtype)
    yield 1, Product(rows, m.hidden, m.vocab, shape.dtype)
    yield from _choose(shape)
