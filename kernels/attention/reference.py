"""What every attention kernel shares: its operands, its inputs, and the plain reference in float64.

Q [B, H_q, N_q, D], K and V [B, H_kv, N_kv, D], O as Q. Query head h reads KV head h // (H_q / H_kv). Causal is aligned at
the end: query i sees keys up to i + N_kv - N_q, with a window w only the last w of those. A query that sees no key gives
O = 0 and lse = -inf.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kernels.contract import AttentionWorkload, Operand

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Q, K, V and what the pass gives: O, or dQ, dK, dV from dO."""
    w = workload
    query, key = (w.batch, w.heads, w.seq, w.head_dim), (w.batch, w.kv_heads, w.keys, w.head_dim)

    def operand(name: str, shape: tuple[int, ...], role: str) -> Operand:
        return Operand(name=name, shape=shape, itemsize=w.itemsize, role=role)  # type: ignore[arg-type]

    inputs = (operand("Q", query, "input"), operand("K", key, "input"), operand("V", key, "input"))
    if w.pass_ == "forward":
        return (*inputs, operand("O", query, "output"))
    return (
        *inputs, operand("dO", query, "input"),
        operand("dQ", query, "output"), operand("dK", key, "output"), operand("dV", key, "output"),
    )


def inputs(workload: AttentionWorkload, device: str, generator: Any) -> Tensors:
    """Standard normal inputs, drawn in the workload's dtype on `device`."""
    import torch

    dtype = getattr(torch, workload.dtype)
    return {
        o.name: torch.randn(o.shape, dtype=torch.float32, device=device, generator=generator).to(dtype)
        for o in operands(workload) if o.role == "input"
    }


def tolerance(workload: AttentionWorkload) -> float:
    """The largest allowed max |out - ref| / max |ref|: some roundings of S, P and O in the dtype. Source: tests/gpu."""
    return {"float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}[workload.dtype]


def visible(workload: AttentionWorkload, rows: torch.Tensor) -> torch.Tensor:
    """Which keys each query row sees: bool [rows, N_kv]."""
    import torch

    w = workload
    last = rows[:, None] + (w.keys - w.seq)
    keys = torch.arange(w.keys, device=rows.device)[None, :]
    if not w.causal:
        return torch.ones(len(rows), w.keys, dtype=torch.bool, device=rows.device)
    return (keys <= last) & (keys > last - w.window) if w.window else keys <= last


def reference(workload: AttentionWorkload, tensors: Mapping[str, torch.Tensor], rows: torch.Tensor | None = None) -> Tensors:
    """Attention in float64, by the definition.

    Args:
        tensors: Q, K, V; for the backward pass dO too.
        rows: int64 [R], the query rows wanted; None for all. Backward gives dQ of those rows alone.

    Returns:
        forward: O [B, H_q, R, D] and lse [B, H_q, R]; backward: dQ and, for all rows, dK and dV.
    """
    import torch

    w = workload
    rows = torch.arange(w.seq, device=tensors["Q"].device) if rows is None else rows
    q, k, v = (tensors[name].double() for name in ("Q", "K", "V"))
    k, v = (x.repeat_interleave(w.group, dim=1) for x in (k, v))
    scale = w.head_dim**-0.5
    scores = (q[:, :, rows] @ k.mT * scale).masked_fill(~visible(w, rows), -torch.inf)
    lse = scores.logsumexp(-1)
    p = (scores - lse.nan_to_num(neginf=0.0)[..., None]).exp()
    o = p @ v
    if w.pass_ == "forward":
        return {"O": o, "lse": lse}
    do = tensors["dO"].double()[:, :, rows]
    ds = p * (do @ v.mT - (do * o).sum(-1, keepdim=True))
    gradients = {"dQ": ds @ k * scale}
    if len(rows) == w.seq:
        shared = (w.batch, w.kv_heads, w.group, w.keys, w.head_dim)
        gradients["dK"] = (ds.mT @ q * scale).view(shared).sum(2)
        gradients["dV"] = (p.mT @ do).view(shared).sum(2)
    return gradients
