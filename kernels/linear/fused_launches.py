"""The launches of fused.py: one row in registers, several rows by the matrix units, and a norm by itself."""

from __future__ import annotations

from typing import Any

from kernels.jit import gdc_launch_dependents, gdc_wait, jit, tl


@jit
def _sigmoid(v: tl.tensor) -> Any:
    return 1.0 / (1.0 + tl.exp(-v))


@jit
def _activated(v: tl.tensor, up: tl.tensor, ACTIVATION: tl.constexpr) -> Any:
    """activation(v); `up` is what SwiGLU multiplies by."""
    if ACTIVATION == "gelu_tanh":  # v (1 + tanh z) / 2 = v sigmoid(2 z)
        v = v * _sigmoid(1.5957691216057308 * (v + 0.044715 * v * v * v))
    elif ACTIVATION == "gelu":
        v = 0.5 * v * (1.0 + tl.erf(v * 0.7071067811865476))
    elif ACTIVATION == "swiglu":
        v = v * _sigmoid(v) * up
    return v


@jit
def _moments(x: tl.tensor, inside: tl.tensor, eps: float, D: tl.constexpr, CENTRED: tl.constexpr) -> Any:
    """(mean, 1 / standard deviation) of a row held whole; without CENTRED (0, 1 / root of the mean square)."""
    mean = tl.sum(x, 0) / D if CENTRED else 0.0
    apart = tl.where(inside, x - mean, 0.0)
    return mean, 1.0 / tl.sqrt(tl.sum(apart * apart, 0) / D + eps)


@jit
def _columns(at: tl.tensor, cols: tl.tensor, D: tl.constexpr, EVEN: tl.constexpr) -> Any:
    """Some columns of a vector; 0 beyond D."""
    return tl.load(at + cols) if EVEN else tl.load(at + cols, mask=cols < D, other=0.0)


@jit
def one_row(
    x_ptr: tl.tensor, w_ptr: tl.tensor, up_ptr: tl.tensor, y_ptr: tl.tensor, bias_ptr: tl.tensor, gain_ptr: tl.tensor,
    shift_ptr: tl.tensor, residual_ptr: tl.tensor, stride_w: int, stride_up: int, n_out: int, eps: float, D: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WIDTH: tl.constexpr, NORM: tl.constexpr, CENTRED: tl.constexpr,
    SHIFT: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, OVERLAP: tl.constexpr,
) -> None:
    """BLOCK_N outputs a program. Rows of W beyond the last are the last again, and not stored."""
    GATED: tl.constexpr = ACTIVATION == "swiglu"
    EVEN: tl.constexpr = D % BLOCK_K == 0
    outs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    cols = tl.arange(0, BLOCK_K)
    rows = tl.minimum(outs, n_out - 1)
    w_at = w_ptr + rows.to(tl.int64)[:, None] * stride_w + cols[None, :]
    inside = None if EVEN else cols[None, :] < D
    none = None if EVEN else 0.0
    w = tl.load(w_at, mask=inside, other=none, eviction_policy="evict_first")
    if GATED:
        up_at = up_ptr + rows.to(tl.int64)[:, None] * stride_up + cols[None, :]
        u = tl.load(up_at, mask=inside, other=none, eviction_policy="evict_first")
    if BIAS:
        bias = tl.load(bias_ptr + rows).to(tl.float32)
    if NORM:
        gain = _columns(gain_ptr, cols, D, EVEN)
        shift = _columns(shift_ptr, cols, D, EVEN) if SHIFT else gain
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    x = _columns(x_ptr, cols, D, EVEN).to(tl.float32)
    if RESIDUAL:
        residual = tl.load(residual_ptr + rows).to(tl.float32)
    if NORM:
        if D > BLOCK_K:
            wide = tl.arange(0, WIDTH)
            row = _columns(x_ptr, wide, D, WIDTH == D).to(tl.float32)
            mean, scale = _moments(row, wide < D, eps, D, CENTRED)
        else:
            mean, scale = _moments(x, cols < D, eps, D, CENTRED)
        x = (x - mean) * scale * gain.to(tl.float32)
        if SHIFT:
            x += shift.to(tl.float32)
    sums = w.to(tl.float32) * x[None, :]
    if GATED:
        ups = u.to(tl.float32) * x[None, :]
    if D > BLOCK_K:
        for k in tl.range(BLOCK_K, D, BLOCK_K):
            more = None if EVEN else k + cols[None, :] < D
            w = tl.load(w_at + k, mask=more, other=none, eviction_policy="evict_first")
            if GATED:
                u = tl.load(up_at + k, mask=more, other=none, eviction_policy="evict_first")
            x = _columns(x_ptr, k + cols, D, EVEN).to(tl.float32)
            if NORM:
                x = (x - mean) * scale * _columns(gain_ptr, k + cols, D, EVEN).to(tl.float32)
                if SHIFT:
                    x += _columns(shift_ptr, k + cols, D, EVEN).to(tl.float32)
            sums += w.to(tl.float32) * x[None, :]
            if GATED:
                ups += u.to(tl.float32) * x[None, :]
    v = tl.sum(sums, 1)
    if BIAS:
        v += bias
    v = _activated(v, tl.sum(ups, 1) if GATED else v, ACTIVATION)
    if RESIDUAL:
        v += residual
    tl.store(y_ptr + outs, v.to(y_ptr.dtype.element_ty), mask=outs < n_out)


@jit
def normalise(
    x_ptr: tl.tensor, y_ptr: tl.tensor, gain_ptr: tl.tensor, shift_ptr: tl.tensor, stride_x: int, stride_y: int, eps: float,
    D: tl.constexpr, WIDTH: tl.constexpr, CENTRED: tl.constexpr, SHIFT: tl.constexpr, OVERLAP: tl.constexpr,
) -> None:
    """A row a program."""
    cols = tl.arange(0, WIDTH)
    inside = cols < D
    at = tl.program_id(0).to(tl.int64)
    gain = tl.load(gain_ptr + cols, mask=inside, other=0.0).to(tl.float32)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(x_ptr + at * stride_x + cols, mask=inside, other=0.0).to(tl.float32)
    mean, scale = _moments(x, inside, eps, D, CENTRED)
    x = (x - mean) * scale * gain
    if SHIFT:
        x += tl.load(shift_ptr + cols, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + at * stride_y + cols, x.to(y_ptr.dtype.element_ty), mask=inside)


@jit
def several_rows(
    x_ptr: tl.tensor, w_ptr: tl.tensor, up_ptr: tl.tensor, y_ptr: tl.tensor, bias_ptr: tl.tensor, residual_ptr: tl.tensor,
    stride_x: int, stride_w: int, stride_up: int, stride_y: int, stride_r: int, n_rows: int, n_out: int, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr, OVERLAP: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """y^T = W x^T, BLOCK_N outputs of BLOCK_M rows a program. Outputs beyond the last are the last again, and not stored."""
    GATED: tl.constexpr = ACTIVATION == "swiglu"
    EVEN: tl.constexpr = D % BLOCK_K == 0
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    outs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    cols = tl.arange(0, BLOCK_K)
    row, out = tl.minimum(rows, n_rows - 1).to(tl.int64), tl.minimum(outs, n_out - 1).to(tl.int64)
    x_at = x_ptr + row[None, :] * stride_x + cols[:, None]
    w_at = w_ptr + out[:, None] * stride_w + cols[None, :]
    up_at = up_ptr + out[:, None] * stride_up + cols[None, :]
    acc = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.float32)
    ups = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.float32)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    for k in range(0, D, BLOCK_K):
        x = tl.load(x_at + k, mask=(rows[None, :] < n_rows) & (k + cols[:, None] < D), other=0.0)
        w = tl.load(w_at + k) if EVEN else tl.load(w_at + k, mask=k + cols[None, :] < D, other=0.0)
        acc = tl.dot(w, x, acc, input_precision=PRECISION)
        if GATED:
            u = tl.load(up_at + k) if EVEN else tl.load(up_at + k, mask=k + cols[None, :] < D, other=0.0)
            ups = tl.dot(u, x, ups, input_precision=PRECISION)
    stored = (outs[:, None] < n_out) & (rows[None, :] < n_rows)
    if BIAS:
        acc += tl.load(bias_ptr + out).to(tl.float32)[:, None]
    acc = _activated(acc, ups, ACTIVATION)
    if RESIDUAL:
        acc += tl.load(residual_ptr + row[None, :] * stride_r + out[:, None]).to(tl.float32)
    tl.store(y_ptr + row[None, :] * stride_y + outs[:, None], acc.to(y_ptr.dtype.element_ty), mask=stored)
