"""The one import of Triton, and the device functions that kernels share.

Where Triton is missing the names below still exist, so that costs and schedules answer; only launching refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kernels.contract import Refusal

try:
    import triton
    import triton.language as tl

    MISSING = ""
except ImportError as error:
    triton = tl = None
    MISSING = f"Triton cannot be imported ({error}): install triton, which exists for Linux, or choose a PyTorch kernel"

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> Any:
    """`triton.jit`, typed; without Triton the function itself."""
    return function if triton is None else triton.jit(function)


def require_triton() -> None:
    """Raises: Refusal where Triton is missing."""
    if MISSING:
        raise Refusal(MISSING)


def cdiv(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


POINTER = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32", "int32": "*i32"}
