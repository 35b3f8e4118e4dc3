"""What each operation of a decoder makes, taken from a heap and given back.

It reads as ops.py, kernel_ops.py and kv_cache.py do, with sizes for tensors. Source: what torch's operations make inside, as of
2.11: rms_norm of layer_norm.cpp, on a GPU of layer_norm_kernel.cu (one kernel, which copies rows that are not contiguous),
attention of flash_api.cpp, and in float32 of attention.cu.
"""

from __future__ import annotations

from typing import Any, Protocol

from engine.decoding import Decoding, Lane
from engine.models.layout import qkv_rows
from kernels.contract import AttentionWorkload
from kernels.contract.workload import PAGE

FUSED_ROWS = 32  # of a fused layer at most. Source: whole models on an H200, docs/performance.md
SMS = 132        # streaming multiprocessors, where a device does not say


class Heap(Protocol):
    """Where tensors live."""

    def take(self, size: int) -> Any:
        """A tensor of so many bytes; none for 0."""

    def give(self, *tensors: Any) -> None:
        """They end, in this order."""


class Operations:
    """Of one lane.

    Args:
        fused: on a GPU with our kernels. Without: plain torch, and what its operations make on a CPU.
        sms: streaming multiprocessors of the GPU.
    """

    def __init__(
        self, decoding: Decoding, lane: Lane, heap: Heap, *, fused: bool = False, sampling: bool = False, sms: int = SMS,
    ) -> None:
        self.decoding, self.lane, self.heap = decoding, lane, heap
        self._fused, self._sampling, self._sms = fused, sampling, sms
        self._began = False
        model = decoding.model
        self._e, self._width, self._qkv = decoding.itemsize, model.heads * model.head_dim, qkv_rows(model, lane.kv_heads)
        self._kv = lane.kv_heads * model.head_dim

    def _angles(self, rows: int) -> tuple[Any, ...]:
        model, take = self.decoding.model, self.heap.take
        if model.positions == "learned":
            return ()
        floats, size = take(4 * rows), rows * model.head_dim // 2 * 4
        turns = take(size)
        self.heap.give(floats)
        found = take(size), take(size)
        self.heap.give(turns)
        return found

    def _linear(
        self, rows: int, d_in: int, d_out: int, *, norm: bool = False, activated: bool = False, residual: bool = False,
    ) -> Any:
        take, give, mlp = self.heap.take, self.heap.give, self.decoding.model.mlp
        if self._fused and rows <= FUSED_ROWS:
            y = take(0 if residual else rows * (mlp if activated else d_out) * self._e)
            give(take(rows * d_in * self._e if norm and rows > 1 else 0))
            return y
        normalised = self._normalised(rows, d_in) if norm else None
        y = take(rows * d_out * self._e)
        give(normalised)
        if activated:
            inner = take(rows * mlp * self._e)
            give(y)
            return inner
        return y

    def _normalised(self, rows: int, width: int, strided: bool = False) -> Any:
        take, give, floats = self.heap.take, self.heap.give, rows * width * 4
        if self.decoding.model.norm == "layer" and not strided:
            y = take(rows * width * self._e)
            give(take(4 * rows), take(4 * rows))
            return y
        if self._fused:
            copied = take(rows * width * self._e if strided else 0)
            y = take(rows * width * self._e)
            give(take(4 * rows), copied)
            return y
        wide = take(floats if self._e < 4 else 0)
        square = take(floats)
        root = take(4 * rows)
        give(square)
        scaled = take(floats)
        gained = take(floats)
        give(scaled, wide, root)
        if self._e == 4:
            return gained
        y = take(rows * width * self._e)
        give(gained)
        return y

    def _head_norms(self, rows: int) -> None:
        model = self.decoding.model
        for heads in (model.heads, self.lane.kv_heads) if model.qk_norm else ():
            self.heap.give(self._normalised(rows * heads, model.head_dim, strided=True))

    def _prepare(self, rows: int) -> None:
        """`prepare`: Q and K of a chunk normalised, then rotated in float32."""
        model, take, give = self.decoding.model, self.heap.take, self.heap.give
        self._head_norms(rows)
        for heads in (model.heads, self.lane.kv_heads) if model.positions == "rotary" else ():
            half = rows * heads * model.head_dim // 2 * 4
            wide = take(2 * half if self._e < 4 else 0)
            turned = []
            for _ in range(2):
                terms = take(half), take(half)
                turned.append(take(half))
                give(*terms)
            give(wide, *turned)

    def _append(self, rows: int) -> None:
        """`Cache.append` of that many K and V."""
        take, give, at = self.heap.take, self.heap.give, self.heap.take(8 * rows)
        eight, scales = [], []
        for _ in range(2) if self.lane.cache in ("int8", "fp8") else ():
            wide = take(4 * rows * self._kv if self._e < 4 else 0)
            whole = take(4 * rows * self._kv)
            most = take(4 * rows * self.lane.kv_heads)
            give(whole)
            double = take(8 * rows * self.lane.kv_heads)
            give(most)
            scales.append(take(4 * rows * self.lane.kv_heads))
            give(double)
            divided = take(4 * rows * self._kv)
            give(wide)
            eight.append(take(rows * self._kv))
            give(divided)
        page = take(4 * rows if self.lane.cache == "paged" else 0)
        give(take(8 * rows if page else 0), page, *eight, *scales, at)

    def _append_one(self) -> None:
        """`Ops.rotate_and_append`. Our kernels keep their tables from the first step on."""
        decoding = self.decoding
        if not self._fused:
            self._prepare(decoding.batch)
            self._append(decoding.batch)
            return
        self._head_norms(decoding.batch)
        if not self._began:
            positions = self.heap.take(8 * decoding.tokens)
            self._angles(decoding.tokens)
            self.heap.give(positions)

    def _attend(self) -> Any:
        """`Ops.attend`: O. Our kernels keep their scratch from the first step on."""
        decoding, take, give = self.decoding, self.heap.take, self.heap.give
        if self._fused:
            for size in () if self._began else _scratch(decoding, self.lane):
                take(size)
            self._began = True
            return take(decoding.batch * self._width * self._e)
        tokens = -(-decoding.tokens // PAGE) * PAGE if self.lane.cache == "paged" else decoding.tokens
        cached, read = decoding.batch * tokens * self._kv, []
        if self.lane.cache == "paged":
            read = [take(cached * self._e) for _ in "KV"]
        elif self.lane.cache != "dense":
            read = [take(2 * cached * 4)]
            if self._e < 4:
                narrow = take(2 * cached * self._e)
                give(*read)
                read = [narrow]
        mask = take(decoding.batch * decoding.tokens)
        added = take(decoding.batch * decoding.tokens * self._e)
        o = take(decoding.batch * self._width * self._e)
        give(take(4 * decoding.batch * decoding.model.heads), added, mask, *read)
        return o

    def _splits(self, sequences: int, tokens: int) -> int:
        """Of the keys, by FlashAttention where rows do not fill a GPU. Source: num_splits_heuristic in flash_api.cpp."""
        model = self.decoding.model
        programs, wave = sequences * model.heads * -(-tokens // 64), 2 * self._sms
        keys = -(-tokens // (256 if model.head_dim <= 64 else 128 if model.head_dim <= 128 else 64))
        if programs >= 0.8 * wave:
            return 1
        busy = {s: programs * s / wave / -(-programs * s // wave) for s in range(1, min(128, wave, keys) + 1)
                if s == 1 or -(-keys // s) != -(-keys // (s - 1))}
        most = max(busy.values())
        return next(s for s, share in busy.items() if share >= 0.85 * most)


def _scratch(decoding: Decoding, lane: Lane) -> list[int]:
    """Bytes that an attention kernel needs for its splits."""
    from kernels.decode import shares

    model = decoding.model
    workload = AttentionWorkload(batch=decoding.batch, heads=model.heads, kv_heads=lane.kv_heads, seq=1,
                                 seq_kv=decoding.tokens, head_dim=model.head_dim, dtype=decoding.dtype)
    return [operand.bytes for operand in shares.scratch(workload)]
