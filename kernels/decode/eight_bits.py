"""Numbers in 8 bits: how a cache is quantised, and how a kernel makes float16 of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kernels.jit import jit, tl

if TYPE_CHECKING:
    import torch

Code = Literal["int8", "fp8"]


class Coding(NamedTuple):
    """`most`: the largest number. `error`: of attention on normal data against the cache before it was quantised, as
    max |O8 - O| / max |O|. Source: tests/kernels/test_decode.py."""

    title: str
    dtype: Literal["int8", "float8_e4m3fn"]
    most: float
    error: float


CODES: dict[Code, Coding] = {
    "int8": Coding("int8 KV", "int8", 127.0, 0.02),
    "fp8": Coding("fp8 KV", "float8_e4m3fn", 448.0, 0.08),
}


LEAST_SCALE = 2.0**-126  # the smallest normal float32: of a row of zeros


def quantised(x: torch.Tensor, code: Code) -> tuple[torch.Tensor, torch.Tensor]:
    """x [..., D] in 8 bits, and the scale [...] float32 by which it is multiplied: max |x| / most, LEAST_SCALE at least.

    The scale is divided in float64, for torch on a GPU multiplies float32 by the reciprocal of a number: so a host, a GPU and
    the kernel of append.py make the same bits.
    """
    import torch

    coding, x = CODES[code], x.float()
    scale = x.abs().amax(-1).double().div_(coding.most).float().clamp_(min=LEAST_SCALE)
    x = (x / scale[..., None]).clamp_(-coding.most, coding.most)
    return (x.round_() if code == "int8" else x).to(getattr(torch, coding.dtype)), scale


@jit
def unpacked(x: tl.tensor, FP8: tl.constexpr, ASM: tl.constexpr) -> Any:
    """The first and the second of each pair of 8-bit numbers in int16, as float16; of fp8 a 256th. ASM: two pairs at once."""
    if ASM:
        if FP8:
            first = tl.inline_asm_elementwise(
                """{ .reg .b32 s, t; shl.b32 s, $1, 8; and.b32 s, s, 0x80008000; shl.b32 t, $1, 7;
                lop3.b32 $0, t, 0x3F803F80, s, 0xEA; }""", "=r,r", [x], dtype=tl.float16, is_pure=True, pack=2)
            second = tl.inline_asm_elementwise(
                """{ .reg .b32 s, t; and.b32 s, $1, 0x80008000; shr.u32 t, $1, 1; lop3.b32 $0, t, 0x3F803F80, s, 0xEA; }""",
                "=r,r", [x], dtype=tl.float16, is_pure=True, pack=2)
        else:
            first = tl.inline_asm_elementwise(
                """{ .reg .b32 c, t; mov.b32 c, 0x64806480; lop3.b32 t, $1, 0x00FF00FF, c, 0x6A; sub.f16x2 $0, t, c; }""",
                "=r,r", [x], dtype=tl.float16, is_pure=True, pack=2)
            second = tl.inline_asm_elementwise(
                """{ .reg .b32 c, t; mov.b32 c, 0x64806480; shr.u32 t, $1, 8; lop3.b32 t, t, 0x00FF00FF, c, 0x6A;
                sub.f16x2 $0, t, c; }""", "=r,r", [x], dtype=tl.float16, is_pure=True, pack=2)
    elif FP8:
        first = ((x << 7) & 0x3F80) | ((x << 8) & -0x8000)
        second = ((x >> 1) & 0x3F80) | (x & -0x8000)
        first = first.to(tl.int16).to(tl.float16, bitcast=True)
        second = second.to(tl.int16).to(tl.float16, bitcast=True)
    else:
        first = ((x << 8) >> 8).to(tl.float16)
        second = (x >> 8).to(tl.float16)
    return first, second


@jit
def _nearest(x: tl.tensor) -> Any:
    """The nearest whole number, ties to even: a float32 of 1.5 * 2^23 has no place for a fraction. |x| < 2^22."""
    return (x + 12582912.0) - 12582912.0


@jit
def encoded_int8(x: tl.tensor) -> Any:
    """x float32 in -127 to 127, as int8."""
    return _nearest(x).to(tl.int8)


@jit
def encoded_fp8(x: tl.tensor) -> Any:
    """x float32 in -448 to 448, as the bits of e4m3, rounded to nearest, ties to even."""
    bits = x.to(tl.int32, bitcast=True)
    sign = (bits >> 24) & 0x80
    bits = bits & 0x7FFFFFFF
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - 960  # 8 (127 - 7): the exponent's new bias
    small = _nearest(tl.abs(x) * 512.0).to(tl.int32)  # below 2^-6 in steps of 2^-9
    return (tl.where(tl.abs(x) < 0.015625, small, normal) | sign).to(tl.int8)
