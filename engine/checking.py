"""The check of a live run: some query rows of a kernel's output against the float64 reference, in chunks."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from msgspec.structs import replace

from engine import memory
from kernels.contract import KernelSpec, Workload

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Verdict:
    """max |out - ref| / max |ref| over the checked rows; where the output is not finite, the largest float."""

    ok: bool
    max_error: float
    tolerance: float
    rows: int


def poison(tensors: Tensors) -> None:
    """Fills outputs with NaN, so that what a kernel does not write is seen."""
    for tensor in tensors.values():
        tensor.fill_(math.nan)


def check(spec: KernelSpec, workload: Workload, inputs: Tensors, outputs: Tensors) -> Verdict:
    """Compares up to CHECK_ROWS random query rows of all heads with the reference.

    Of a backward pass that is dQ: the reference gives dK and dV for all rows alone.
    """
    place = next(iter(inputs.values())).device
    rows = torch.randperm(workload.seq, generator=torch.Generator().manual_seed(workload.seq))[: memory.CHECK_ROWS]
    rows = rows.sort().values.to(place)
    worst: dict[str, tuple[float, float]] = {}
    sequences, heads = memory.check_chunk(workload)
    for batch in range(0, workload.batch, sequences):
        for head in range(0, workload.kv_heads, heads):
            part = (slice(batch, batch + sequences), slice(head, head + heads))
            for name, (error, scale) in _compare(spec, workload, inputs, outputs, rows, part).items():
                before = worst.get(name, (0.0, 0.0))
                worst[name] = (max(before[0], error), max(before[1], scale))
    relative = max(error / (scale or 1.0) for error, scale in worst.values())
    tolerance = spec.tolerance(workload)
    return Verdict(relative <= tolerance, min(relative, sys.float_info.max), tolerance, len(rows))


def _compare(
    spec: KernelSpec, workload: Workload, inputs: Tensors, outputs: Tensors, rows: torch.Tensor, part: tuple[slice, slice]
) -> dict[str, tuple[float, float]]:
    """By output: max |out - ref|, infinite where not finite, and max |ref|, over some sequences and KV heads."""
    sliced = {name: _heads(tensor, workload, part) for name, tensor in inputs.items()}
    batch, kv_heads = sliced["K"].shape[:2]
    shape = replace(workload, batch=batch, kv_heads=kv_heads, heads=kv_heads * workload.group, seq_kv=workload.keys)
    found = {}
    for name, wanted in spec.reference(shape, sliced, rows).items():
        if name not in outputs:
            continue
        got = _heads(outputs[name], workload, part)
        got = got if got.shape == wanted.shape else got[:, :, rows]
        error = (got.double() - wanted).abs().max().nan_to_num(nan=math.inf)
        found[name] = (float(error), float(wanted.abs().max()))
    return found


def _heads(tensor: torch.Tensor, workload: Workload, part: tuple[slice, slice]) -> torch.Tensor:
    """[B, H, ...] cut to some sequences and KV heads, H being query or KV heads."""
    sequences, heads = part
    each = tensor.shape[1] // workload.kv_heads
    return tensor[sequences, heads.start * each : heads.stop * each]
