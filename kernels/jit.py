"""The one import of Triton, and the device functions that kernels share.

Where Triton is missing the names below still exist, so that costs and schedules answer; only launching refuses.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kernels.contract import Compilation, Refusal, Resources

try:
    import triton
    import triton.language as tl

    MISSING = ""
except ImportError as error:
    triton = tl = None
    MISSING = f"Triton cannot be imported ({error}): install triton, which exists for Linux, or choose a PyTorch kernel"

__all__ = [
    "MISSING", "POINTER", "block_d", "cdiv", "compile_for", "jit", "next_power_of_2", "require_triton", "seen", "tl", "triton",
]

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


def block_d(head_dim: int) -> int:
    """Columns of a tile that holds a head: a power of two, 16 at least, as the matrix units take them."""
    return max(16, next_power_of_2(head_dim))


@jit
def seen(rows: tl.tensor, cols: tl.tensor, shift: int, window: int, WINDOW: tl.constexpr) -> Any:
    """Which keys `cols` [C] the queries `rows` [R] see under a causal mask: [R, C]. shift = N_kv - N_q."""
    visible = cols[None, :] <= rows[:, None] + shift
    if WINDOW:
        visible = visible & (cols[None, :] > rows[:, None] + shift - window)
    return visible


POINTER = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32", "int32": "*i32"}


def compile_for(compilation: Compilation, capability: tuple[int, int]) -> tuple[Resources, str]:
    """Compiles one launch for a capability without a GPU; its resources and its machine code (SASS).

    Pointers, strides and lengths are taken as multiples of 16, as Triton specialises them for whole tensors.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    require_triton()
    names = compilation.kernel.arg_names
    even = [n for n, t in compilation.signature.items() if t.startswith("*") or n.startswith(("stride_", "n_"))]
    source = ASTSource(
        fn=compilation.kernel, signature=compilation.signature | dict.fromkeys(compilation.constants, "constexpr"),
        constexprs={(names.index(name),): value for name, value in compilation.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in even},
    )
    options = {"num_warps": compilation.warps, "num_stages": compilation.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability[0] * 10 + capability[1], 32), options=options)
    usage, sass = _cuobjdump(compiled.asm["cubin"], "--dump-resource-usage"), _cuobjdump(compiled.asm["cubin"], "--dump-sass")
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump reported no registers: {usage}")
    return Resources(int(found[1]), int(compiled.metadata.shared), int(found[2])), sass


def _cuobjdump(cubin: bytes, flag: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, flag, file.name], check=True, capture_output=True, text=True).stdout
