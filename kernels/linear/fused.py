"""The linear layers of a decoding model, y = residual + activation(norm(x) W^T + bias), for few rows of x. No KERNELS.

x [M, d_in], y [M, d_out], W [d_out, d_in] as torch.nn.Linear stores it, each with any row stride and a contiguous last
dimension; float16, bfloat16 or float32, accumulated in float32. HBM traffic: W, and rows of x and y.

One row is a stream of W: a program owns BLOCK_N outputs and asks for the first BLOCK_K columns of all their rows at once,
before it looks at x, then multiplies and sums in registers. With `overlap` (programmatic dependent launch, Hopper and newer)
it asks for them while the launch before it still runs. The row is normalised by each program, in registers.
Several rows are a product by the matrix units, W the tall operand and x the narrow one; their norm is a launch before it.
Source: GELU, Hendrycks 2016; SwiGLU, Shazeer 2020; RMSNorm, Zhang 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kernels.contract import ITEMSIZE, Compilation
from kernels.jit import POINTER, arg_names, cdiv, next_power_of_2
from kernels.linear.fused_launches import normalise, one_row, several_rows

if TYPE_CHECKING:
    import torch

Activation = Literal["none", "gelu", "gelu_tanh", "swiglu"]
ELEMENTS = 1 << 14  # of W that a program of one row asks for at once: 16 loads of 16 bytes a thread
WHOLE = 4096        # inputs up to which a program of one row holds whole rows of W
WIDEST = 1 << 14    # inputs that a program can normalise: it holds the row


class Norm(NamedTuple):
    """A normalisation of rows by weight [d_in] and, where it is a LayerNorm, bias [d_in]. Without a bias: RMSNorm, unless
    `centred`."""

    weight: torch.Tensor
    eps: float
    bias: torch.Tensor | None = None
    centred: bool = False


class Tiles(NamedTuple):
    """How a layer is cut. `block_m` 0: one row, in registers."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int = 1


class Layer(NamedTuple):
    """A layer apart from its tensors: what the compiler must know of it."""

    rows: int
    d_in: int
    d_out: int
    dtype: str
    activation: Activation = "none"
    norm: Literal["none", "centred", "root mean square"] = "none"
    shift: bool = False
    bias: bool = False
    residual: bool = False
    overlap: bool = False

    @property
    def gated(self) -> bool:
        """Whether W holds two matrices."""
        return self.activation == "swiglu"

    @staticmethod
    def of(
        x: torch.Tensor, w: torch.Tensor | tuple[torch.Tensor, torch.Tensor], *, bias: torch.Tensor | None,
        norm: Norm | None, activation: Activation, residual: torch.Tensor | None, overlap: bool,
    ) -> Layer:
        """That of these tensors."""
        d_out = w[0].shape[0] if isinstance(w, tuple) else w.shape[0] // (2 if activation == "swiglu" else 1)
        centred = norm is not None and (norm.centred or norm.bias is not None)
        return Layer(
            x.shape[0], x.shape[1], d_out, str(x.dtype).removeprefix("torch."), activation,
            "none" if norm is None else "centred" if centred else "root mean square",
            norm is not None and norm.bias is not None, bias is not None, residual is not None, overlap)

    @property
    def norm_constants(self) -> dict[str, Any]:
        """Those of the launch that normalises rows."""
        return {"D": self.d_in, "WIDTH": next_power_of_2(self.d_in), "CENTRED": self.norm == "centred", "SHIFT": self.shift,
                "OVERLAP": self.overlap}

    @property
    def norm_warps(self) -> int:
        """Of that launch, so that a row of any width stays in registers."""
        return min(16, max(4, next_power_of_2(self.d_in) // 1024))

    def constants(self, tiles: Tiles) -> dict[str, Any]:
        """Those of the launch that multiplies."""
        common = {"D": self.d_in, "BLOCK_N": tiles.block_n, "BLOCK_K": tiles.block_k, "ACTIVATION": self.activation,
                  "BIAS": self.bias, "RESIDUAL": self.residual, "OVERLAP": self.overlap}
        if tiles.block_m:
            return common | {"BLOCK_M": tiles.block_m, "PRECISION": "ieee" if self.dtype == "float32" else "tf32"}
        return common | self.norm_constants | {"NORM": self.norm != "none"}


def configure(rows: int, d_in: int, d_out: int, itemsize: int, gated: bool = False, sms: int = 132,
              sram_bytes: int = 227 << 10) -> Tiles:
    """The tiles of a layer: one row in registers, as many outputs a program as still give every SM some programs.

    Args:
        gated: the layer is a SwiGLU, whose programs hold two tiles of W; `d_out` counts its outputs.
        sms, sram_bytes: streaming multiprocessors of the device, and the most shared memory that a block of it may ask for.
    """
    if rows == 1:
        block_k = min(next_power_of_2(d_in), WHOLE if d_in <= WHOLE else 2048)
        most = max(1, min(16, ELEMENTS // block_k // (itemsize // 2) // (2 if gated else 1)))
        if d_in > block_k:
            most = max(1, most // 2)  # the next chunk is in flight while one is summed
        fair = 1 << max(0, int(math.log2(max(1, d_out / (2 * sms)))))
        return Tiles(0, min(most, fair), block_k, 4)
    block_m = min(64, max(16, next_power_of_2(rows)))
    block_n = next(n for n in (64, 32, 16) if n == 16 or cdiv(d_out, n) * cdiv(rows, block_m) >= 0.9 * sms)
    block_k = min(max(16, next_power_of_2(d_in)), (256 if block_n <= 32 and block_m <= 32 else 128) // (itemsize // 2))
    stage = block_k * itemsize * (block_n * (2 if gated else 1) + block_m)
    return Tiles(block_m, block_n, block_k, 4, max(1, min(3 if gated or block_m > 32 else 4, sram_bytes // stage)))


def bind(
    x: torch.Tensor, w: torch.Tensor | tuple[torch.Tensor, torch.Tensor], y: torch.Tensor, *, bias: torch.Tensor | None = None,
    norm: Norm | None = None, activation: Activation = "none", residual: torch.Tensor | None = None, tiles: Tiles | None = None,
    overlap: bool = False,
) -> Callable[[], None]:
    """A call that launches the layer on these tensors, allocates nothing and can be captured in a CUDA graph.

    Args:
        x: [M, d_in].
        w: [d_out, d_in]; for SwiGLU [2 d_out, d_in], the gate above what it multiplies, or the two apart.
        y: [M, d_out], written; it may be `residual` itself, never x.
        bias: [d_out].
        residual: [M, d_out], added last.
        tiles: in place of those that `configure` chooses.
        overlap: W is asked for while the launch before still runs; whatever of these tensors but weights changes must be
            written by launches of the same stream.

    Raises:
        ValueError: shapes, dtypes or strides that do not fit.
    """
    layer = Layer.of(x, w, bias=bias, norm=norm, activation=activation, residual=residual, overlap=overlap)
    first, second = w if isinstance(w, tuple) else w.chunk(2) if layer.gated else (w, w)
    _require(x, first, second, y, bias, norm, residual)
    cut = tiles or configure(layer.rows, layer.d_in, layer.d_out, x.element_size(), layer.gated, *_limits(x))
    gain, shift = (norm.weight, norm.bias) if norm else (x, None)
    shift, bias, added = (x if shift is None else shift), (x if bias is None else bias), (y if residual is None else residual)
    eps, steps = norm.eps if norm else 0.0, (first.stride(0), second.stride(0))
    pdl = {"launch_pdl": True} if overlap else {}
    options = layer.constants(cut) | {"num_warps": cut.warps, "num_stages": cut.stages} | pdl
    if cut.block_m == 0:
        grid = (cdiv(layer.d_out, cut.block_n),)
        args = (x, first, second, y, bias, gain, shift, added, *steps, layer.d_out, eps)
        return lambda: one_row[grid](*args, **options)
    rows = x if norm is None else x.new_empty(x.shape)
    tall = (cdiv(layer.rows, cut.block_m), cdiv(layer.d_out, cut.block_n))
    strides = (rows.stride(0), *steps, y.stride(0), added.stride(0))
    tall_args = (rows, first, second, y, bias, added, *strides, layer.rows, layer.d_out)
    if norm is None:
        return lambda: several_rows[tall](*tall_args, **options)
    norm_args = (x, rows, gain, shift, x.stride(0), rows.stride(0), eps)
    norm_options = layer.norm_constants | {"num_warps": layer.norm_warps} | pdl

    def launches() -> None:
        normalise[(layer.rows,)](*norm_args, **norm_options)
        several_rows[tall](*tall_args, **options)

    return launches


def compilations(layer: Layer, tiles: Tiles | None = None) -> tuple[Compilation, ...]:
    """What the compiler is asked for, one per launch."""
    cut = tiles or configure(layer.rows, layer.d_in, layer.d_out, ITEMSIZE[layer.dtype], layer.gated)

    def compilation(kernel: Any, constants: dict[str, Any], warps: int, stages: int) -> Compilation:
        types = {n: POINTER[layer.dtype] if n.endswith("_ptr") else "fp32" if n == "eps" else "i32"
                 for n in arg_names(kernel) if n not in constants}
        return Compilation(
            launch=kernel.__name__, kernel=kernel, signature=types, constants=constants, warps=warps, stages=stages)

    if cut.block_m == 0:
        return (compilation(one_row, layer.constants(cut), cut.warps, 1),)
    product = compilation(several_rows, layer.constants(cut), cut.warps, cut.stages)
    return (compilation(normalise, layer.norm_constants, layer.norm_warps, 1), product) if layer.norm != "none" else (product,)


def _limits(x: torch.Tensor) -> tuple[int, ...]:
    """Multiprocessors and shared memory of the device that holds x; nothing for the interpreter's."""
    import torch

    if not x.is_cuda:
        return ()
    found = torch.cuda.get_device_properties(x.device)
    return found.multi_processor_count, getattr(found, "shared_memory_per_block_optin", 99 << 10)


def _require(
    x: torch.Tensor, first: torch.Tensor, second: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None, norm: Norm | None,
    residual: torch.Tensor | None,
) -> None:
    """Raises: ValueError, one sentence, where the tensors of a layer do not fit each other."""
    (rows, d_in), d_out = x.shape, first.shape[0]
    vectors = {"bias": (bias, d_out), "norm weight": (norm and norm.weight, d_in), "norm bias": (norm and norm.bias, d_in)}
    shapes: dict[str, tuple[torch.Tensor | None, tuple[int, ...]]] = {
        "W": (first, (d_out, d_in)), "W's second half": (second, (d_out, d_in)), "y": (y, (rows, d_out)),
        "residual": (residual, (rows, d_out)), **{name: (v, (length,)) for name, (v, length) in vectors.items()}}
    for name, (tensor, shape) in shapes.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {list(tensor.shape)} and must be {list(shape)} for x {list(x.shape)}")
        if tensor.dtype != x.dtype or tensor.device != x.device or tensor.stride(-1) != 1:
            raise ValueError(f"{name} must be {x.dtype} on {x.device} with a contiguous last dimension, as x is")
    if x.stride(-1) != 1:
        raise ValueError("x must have a contiguous last dimension")
    if norm and d_in > WIDEST:
        raise ValueError(f"a row of {d_in} cannot be normalised in one program: {WIDEST} are the most")


def reference(
    x: torch.Tensor, w: torch.Tensor | tuple[torch.Tensor, torch.Tensor], *, bias: torch.Tensor | None = None,
    norm: Norm | None = None, activation: Activation = "none", residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same layer in float64, plain."""
    import torch
    from torch.nn import functional

    x = x.double()
    if norm:
        if norm.centred or norm.bias is not None:
            x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps) * norm.weight.double()
        x = x if norm.bias is None else x + norm.bias.double()
    y = x @ (torch.cat(w) if isinstance(w, tuple) else w).double().mT
    if activation == "swiglu":
        gate, up = y.chunk(2, dim=-1)
        y = functional.silu(gate if bias is None else gate + bias.double()) * up
    else:
        y = y if bias is None else y + bias.double()
        if activation != "none":
            y = functional.gelu(y, approximate="tanh" if activation == "gelu_tanh" else "none")
    return y if residual is None else residual.double() + y
