"""The tensors of a run: one pool of random inputs that all kernels share, and each kernel's outputs and scratch."""

from __future__ import annotations

import torch

from engine import memory
from kernels.contract import Operand, Workload

Tensors = dict[str, torch.Tensor]

ALIGNMENT = 256          # elements between starts of inputs: vector loads and Triton's divisibility hold
SLACK_BYTES = 64 * memory.MIB  # a pool is kept while it is larger than needed by no more


class Pool:
    """A flat buffer of standard normal numbers on one device, filled once: a new shape is a new view of it."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._flat: torch.Tensor | None = None

    @property
    def bytes(self) -> int:
        return 0 if self._flat is None else self._flat.nbytes

    def clear(self) -> None:
        """Lets the buffer go; views given before must be gone."""
        self._flat = None

    def views(self, workload: Workload, operands: list[Operand]) -> Tensors:
        """A view for each input, contiguous, none overlapping another. The buffer is filled anew where it is too small, or
        larger than needed by more than SLACK_BYTES; views given before must be gone.

        Raises:
            torch.OutOfMemoryError: the device is full.
        """
        flat = self._fit(getattr(torch, workload.dtype), sum(_padded(operand) for operand in operands))
        tensors, start = {}, 0
        for operand in operands:
            tensors[operand.name] = flat[start : start + operand.bytes // operand.itemsize].view(operand.shape)
            start += _padded(operand)
        return tensors

    def _fit(self, dtype: torch.dtype, count: int) -> torch.Tensor:
        flat = self._flat
        if flat is not None and flat.dtype == dtype and 0 <= flat.nbytes - count * dtype.itemsize <= SLACK_BYTES:
            return flat
        self._flat = flat = None  # before its successor is allocated
        flat = torch.empty(count, dtype=dtype, device=self._place)
        self._flat = flat.normal_(generator=torch.Generator(self._place).manual_seed(0))
        return self._flat


def _padded(operand: Operand) -> int:
    return -(-(operand.bytes // operand.itemsize) // ALIGNMENT) * ALIGNMENT


def allocate(workload: Workload, operands: list[Operand], place: str) -> Tensors:
    """Outputs, scratch and what is saved for one kernel, contiguous, uninitialised. Raises: torch.OutOfMemoryError."""
    dtypes = {2: workload.dtype, 4: "float32", 8: "float64"}
    named = {operand.name: operand.dtype or dtypes[operand.itemsize] for operand in operands}
    return {o.name: torch.empty(o.shape, dtype=getattr(torch, named[o.name]), device=place) for o in operands}
