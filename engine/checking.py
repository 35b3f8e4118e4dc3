"""The check of a live run: some query rows of a kernel's output against the float64 reference, in chunks."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from msgspec.structs import replace

from engine import memory
from kernels.contract import AttentionWorkload, KernelSpec, LinearWorkload, Workload

Tensors = Mapping[str, torch.Tensor]
ZERO = 1e-12  # a reference of no more is zero but for float64's roundings, as dQ where each query sees one key

WHOLE_ROWS = 1024   # query rows of one head's group that are compared at once where all are


@dataclass(frozen=True, slots=True)
class Verdict:
    """max |out - ref| / max |ref| over the checked rows; where the output is not finite, the largest float."""

    ok: bool
    max_error: float
    tolerance: float
    rows: int


def poison(tensors: Tensors) -> None:
    """Fills outputs with NaN, so that what a kernel does not write is seen; what has no NaN stays."""
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(math.nan)


def check(spec: KernelSpec, workload: Workload, inputs: Tensors, outputs: Tensors, *, whole: bool = False) -> Verdict:
    """Compares up to CHECK_ROWS random query rows of all heads with the reference, or all rows.

    Of a backward pass some rows are dQ alone: the reference gives dK and dV for all rows together.
    """
    worst: dict[str, tuple[float, float]] = {}
    chosen = _all_rows(workload) if whole else [_some_rows(workload)]
    for found in _compared(spec, workload, inputs, outputs, chosen, whole):
        for name, (error, scale) in found.items():
            before = worst.get(name, (0.0, 0.0))
            worst[name] = (max(before[0], error), max(before[1], scale))
    relative = max(error / (scale if scale > ZERO else 1.0) for error, scale in worst.values())
    tolerance = spec.tolerance(workload)
    return Verdict(relative <= tolerance, min(relative, sys.float_info.max), tolerance, sum(map(len, chosen)))


Found = dict[str, tuple[float, float]]  # by output: max |out - ref|, infinite where not finite, and max |ref|


def _compared(
    spec: KernelSpec, workload: Workload, inputs: Tensors, outputs: Tensors, chosen: list[torch.Tensor], whole: bool
) -> Iterator[Found]:
    """Part by part."""
    if isinstance(workload, LinearWorkload):
        for rows in chosen:
            some = rows.to(inputs["X"].device)
            yield {name: _apart(outputs[name][some], wanted) for name, wanted in spec.reference(workload, inputs, some).items()}
        return
    for rows, part in product(chosen, _parts(workload, whole)):
        yield _compare(spec, workload, inputs, outputs, rows, part)


def _apart(got: torch.Tensor, wanted: torch.Tensor) -> tuple[float, float]:
    return float((got.double() - wanted).abs().max().nan_to_num(nan=math.inf)), float(wanted.abs().max())


def _rows(workload: Workload) -> int:
    """Query rows of a head, or rows of Y."""
    return workload.batch if isinstance(workload, LinearWorkload) else workload.seq


def _some_rows(workload: Workload) -> torch.Tensor:
    count = _rows(workload)
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(count))[: memory.CHECK_ROWS]
    return rows.sort().values


def _all_rows(workload: Workload) -> list[torch.Tensor]:
    """In blocks that float64 has room for; those of a backward pass together."""
    rows = torch.arange(_rows(workload))
    return list(torch.split(rows, WHOLE_ROWS)) if workload.pass_ == "forward" else [rows]


@dataclass(frozen=True, slots=True)
class _Part:
    """Some sequences, KV heads and query heads."""

    sequences: slice
    kv_heads: slice
    heads: slice

    def of(self, tensor: torch.Tensor, workload: AttentionWorkload) -> torch.Tensor:
        """That part of [B, H, ...], H being query or KV heads."""
        return tensor[self.sequences, self.heads if tensor.shape[1] == workload.heads else self.kv_heads]


def _parts(workload: AttentionWorkload, whole: bool) -> Iterator[_Part]:
    many = whole and workload.seq > memory.CHECK_ROWS
    chunk = memory.Chunk(1, 1, workload.group) if many else memory.check_chunk(workload)
    group = workload.group
    for batch in range(0, workload.batch, chunk.sequences):
        for head in range(0, workload.kv_heads, chunk.kv_heads):
            kv_heads = slice(head, min(head + chunk.kv_heads, workload.kv_heads))
            for first in range(0, group, chunk.group):
                last = kv_heads.stop * group if chunk.group == group else head * group + min(first + chunk.group, group)
                yield _Part(slice(batch, batch + chunk.sequences), kv_heads, slice(head * group + first, last))


def _compare(
    spec: KernelSpec, workload: AttentionWorkload, inputs: Tensors, outputs: Tensors, rows: torch.Tensor, part: _Part
) -> Found:
    """Over a part."""
    rows = rows.to(inputs["Q"].device)
    sliced = {name: part.of(tensor, workload) for name, tensor in inputs.items()}
    batch, heads, kv_heads = *sliced["Q"].shape[:2], sliced["K"].shape[1]
    shape = replace(workload, batch=batch, kv_heads=kv_heads, heads=heads, seq_kv=workload.keys)
    found = {}
    for name, wanted in spec.reference(shape, sliced, rows).items():
        if name not in outputs:
            continue
        got = part.of(outputs[name], workload)
        got = got if got.shape == wanted.shape else got[:, :, rows]
        found[name] = _apart(got, wanted)
    return found
