"""What every linear kernel shares: its operands, its inputs, its cost in HBM, and the plain reference in float64.

Y = X W^T with X [B, d_in], W [d_out, d_in] as torch.nn.Linear stores it, Y [B, d_out]. With `repeat` R > 1 the step of a
recurrent network, h_t = tanh(h_{t-1} W^T / sqrt(d_in)), R times from h_0 = X to Y = h_R; what lies between is H, two of
them in turns. HBM traffic of each of the R launches: its rows read, W, its rows written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kernels.contract import LinearWorkload, Operand, Traffic

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

WEIGHTS = 1 << 23  # elements of W that are float64 at once: 64 MiB


def scale(workload: LinearWorkload) -> float:
    """What a product is multiplied by before the tanh."""
    return float(workload.d_in**-0.5)


def operands(workload: LinearWorkload) -> tuple[Operand, ...]:
    """X, W, Y, and H [1 or 2, B, d] where steps follow one another."""
    w = workload

    def operand(name: str, shape: tuple[int, ...], role: str) -> Operand:
        return Operand(name=name, shape=shape, itemsize=w.itemsize, role=role)  # type: ignore[arg-type]

    ends = (operand("X", (w.batch, w.d_in), "input"), operand("W", (w.d_out, w.d_in), "input"),
            operand("Y", (w.batch, w.d_out), "output"))
    return ends if w.repeat == 1 else (*ends, operand("H", (min(2, w.repeat - 1), w.batch, w.d_out), "scratch"))


def inputs(workload: LinearWorkload, device: str, generator: Any) -> Tensors:
    """Standard normal inputs, drawn in the workload's dtype on `device`."""
    import torch

    dtype = getattr(torch, workload.dtype)
    return {
        o.name: torch.randn(o.shape, dtype=torch.float32, device=device, generator=generator).to(dtype)
        for o in operands(workload) if o.role == "input"
    }


def tolerance(workload: LinearWorkload) -> float:
    """The largest allowed max |out - ref| / max |ref|: a rounding of Y, and one of each h before it, which a random W neither
    damps nor amplifies while h itself fades as 1 / sqrt(t). Source: tests/kernels/test_linear.py."""
    return {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}[workload.dtype] * float(workload.repeat**0.5)


def hbm(workload: LinearWorkload) -> dict[str, Traffic]:
    """By operand, over all launches, each distinct element once a launch."""
    w = workload
    rows, between = w.batch * w.itemsize, w.batch * w.d_out * w.itemsize * (w.repeat - 1)
    found = {"X": Traffic(rows * w.d_in, 0), "W": Traffic(w.repeat * w.d_out * w.d_in * w.itemsize, 0),
             "Y": Traffic(0, rows * w.d_out)}
    return found if w.repeat == 1 else found | {"H": Traffic(between, between)}


def reference(workload: LinearWorkload, tensors: Mapping[str, torch.Tensor], rows: torch.Tensor | None = None) -> Tensors:
    """The layer, or the steps, in float64, by the definition.

    Args:
        tensors: X, W.
        rows: int64 [R], the rows of Y wanted; None for all.
    """
    import torch

    w, step = workload, max(1, WEIGHTS // workload.d_in)
    h = (tensors["X"] if rows is None else tensors["X"][rows]).double()
    for _ in range(w.repeat):
        parts = (tensors["W"][first : first + step] for first in range(0, w.d_out, step))
        h = torch.cat([h @ part.double().mT for part in parts], dim=1)
        if w.repeat > 1:
            h = torch.tanh(h * scale(w))
    return {"Y": h}
