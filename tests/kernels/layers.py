"""Layers to try kernels/linear/fused.py on: random tensors with NaN between their rows."""

from __future__ import annotations

from typing import Any

import torch

from kernels.linear.fused import Activation, Norm, Tiles, bind, reference

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}  # of the largest output; half: two roundings


def spread(rows: int, cols: int, dtype: torch.dtype, device: str, scale: float = 1.0) -> torch.Tensor:
    """Random [rows, cols] whose rows lie apart, NaN between them; the step is odd where `cols` is."""
    wide = torch.full((rows, cols + 16), float("nan"), dtype=dtype, device=device)
    wide[:, :cols] = scale * torch.randn(rows, cols, device=device)
    return wide[:, :cols]


def layer(
    rows: int, d_in: int, d_out: int, dtype: torch.dtype, *, norm: str = "none", activation: Activation = "none",
    bias: bool = False, residual: bool = False, device: str = "cpu",
) -> dict[str, Any]:
    """The arguments of `bind` and `reference`, but for y."""
    torch.manual_seed(rows + d_in + d_out)
    gain, shift = (1 + 0.1 * torch.randn(2, d_in, device=device)).to(dtype)
    eps = 1e-5
    norms = {"none": None, "layernorm": Norm(gain, eps, shift), "layernorm without bias": Norm(gain, eps, centred=True),
             "rmsnorm": Norm(gain, eps)}
    return {
        "x": spread(rows, d_in, dtype, device),
        "w": spread(d_out * (2 if activation == "swiglu" else 1), d_in, dtype, device, d_in**-0.5),
        "norm": norms[norm], "activation": activation,
        "bias": torch.randn(d_out, device=device).to(dtype) if bias else None,
        "residual": spread(rows, d_out, dtype, device) if residual else None,
    }


def check(given: dict[str, Any], tiles: Tiles | None = None, tolerance: float | None = None, **more: Any) -> None:
    """bind agrees with the reference, and nothing but y is written."""
    x, w = given["x"], given["w"]
    d_out = w[0].shape[0] if isinstance(w, tuple) else w.shape[0] // (2 if given["activation"] == "swiglu" else 1)
    wide = x.new_full((x.shape[0], d_out + 16), float("nan"))
    y = wide[:, :d_out]
    rest = {name: value for name, value in given.items() if name not in ("x", "w")}
    bind(x, w, y, tiles=tiles, **rest, **more)()
    wanted = reference(x, w, **rest)
    assert torch.isfinite(y).all()
    assert torch.isnan(wide[:, d_out:]).all()
    error = (y.double() - wanted).abs().max() / wanted.abs().max()
    assert error <= (tolerance or TOLERANCE[x.dtype]), f"off by {error:.2e}"
