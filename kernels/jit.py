"""The one import of Triton, and the device functions that kernels share.

Where Triton is missing the names below still exist, so that costs and schedules answer; only launching refuses.
"""

from __future__ import annotations

import inspect
import math
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
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

    MISSING = ""
except ImportError as error:
    triton = tl = gdc_launch_dependents = gdc_wait = None
    MISSING = f"Triton cannot be imported ({error}): install triton, which exists for Linux, or choose a PyTorch kernel"

try:
    from triton._C.libtriton.ir import DESCRIPTOR_REDUCE_KIND
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language._core import builtin
    from triton.experimental.gluon.language.nvidia import hopper
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    GLUON_MISSING = ""
except ImportError as error:
    gluon = gl = hopper = TensorDescriptor = builtin = None
    GLUON_MISSING = MISSING or f"this Triton has no Gluon ({error}): install triton 3.6 or 3.7, or choose flash"

__all__ = [
    "GLUON_MISSING", "LOG2E", "MISSING", "POINTER", "TensorDescriptor", "add_shared_to_global", "arg_names", "block_d", "cdiv",
    "compile_for", "describable", "described", "descriptor", "gdc_launch_dependents", "gdc_wait", "gl", "gluon", "gluon_jit",
    "hopper", "jit", "next_power_of_2", "partition_barrier", "require_gluon", "require_triton", "seen", "tl", "triton",
]

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> Any:
    """`triton.jit`, typed; without Triton the function itself."""
    return function if triton is None else triton.jit(function)


def gluon_jit(function: F, **options: Any) -> Any:
    """`gluon.jit`, typed; without Gluon the function itself."""
    return function if gluon is None else gluon.jit(function, **options)


def _builtin(function: F) -> Any:
    """A function that a Gluon kernel may call while it is compiled."""
    return function if builtin is None else builtin(function)


@_builtin
def add_shared_to_global(desc: Any, coord: Any, source: Any, _semantic: Any = None) -> None:
    """Gluon has no name for it in 3.6 and 3.7: the copy engine adds a tile in shared memory to the block of `desc` at `coord`.

    It is awaited as stores are, by `hopper.tma.store_wait`.
    """
    at = _semantic._convert_to_ir_values(coord, require_i64=False)
    _semantic.builder.create_async_tma_reduce(DESCRIPTOR_REDUCE_KIND.ADD, desc.handle, at, source.handle)


@_builtin
def partition_barrier(_semantic: Any = None) -> Any:
    """All warps of this partition meet: `gl.thread_barrier` of Triton 3.6, `gl.barrier` of 3.7."""
    return _semantic.debug_barrier()


def require_triton() -> None:
    """Raises: Refusal where Triton is missing."""
    if MISSING:
        raise Refusal(MISSING)


def require_gluon() -> None:
    """Raises: Refusal where Triton or its Gluon is missing."""
    if GLUON_MISSING:
        raise Refusal(GLUON_MISSING)


def cdiv(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def arg_names(kernel: Any) -> list[str]:
    """The parameters of a kernel, in order; without Triton it is a plain function."""
    return list(getattr(kernel, "arg_names", None) or inspect.signature(kernel).parameters)


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


LOG2E = math.log2(math.e)  # the kernels exponentiate in base 2, as the hardware does
POINTER = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32", "int32": "*i32"}


def describable(tensor: Any) -> bool:
    """Whether TMA can address a tensor: its base and its strides are multiples of 16 bytes, its last dimension contiguous.

    Source: CUDA's driver API, cuTensorMapEncodeTiled.
    """
    steps = [step * tensor.element_size() for step in tensor.stride()[:-1]]
    return tensor.stride(-1) == 1 and all(address % 16 == 0 for address in (tensor.data_ptr(), *steps))


def descriptor(tensor: Any, block: list[int]) -> Any:
    """A TMA descriptor of a tensor, for blocks of that shape. Made once, on the host."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block)


def described(dtype: str, block: list[int]) -> str:
    """The type of such a descriptor in a signature."""
    return f"tensordesc<{POINTER[dtype].removeprefix('*')}[{', '.join(map(str, block))}]>"


def compile_for(compilation: Compilation, capability: tuple[int, int]) -> tuple[Resources, str]:
    """Compiles one launch for a capability without a GPU; its resources and its machine code (SASS).

    Pointers, strides and lengths are taken as multiples of 16, as Triton specialises them for whole tensors.
    """
    from triton.backends.compiler import GPUTarget

    require_triton()
    constants = dict.fromkeys(compilation.constants, "constexpr")
    names = compilation.kernel.arg_names
    numbers = {(names.index(name),): value for name, value in compilation.constants.items()}
    source = _source_type(compilation)(
        fn=compilation.kernel, signature=compilation.signature | constants, constexprs=numbers,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in _even(compilation)},
    )
    options = {"num_warps": compilation.warps, "num_stages": compilation.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability[0] * 10 + capability[1], 32), options=options)
    usage, sass = _cuobjdump(compiled.asm["cubin"], "--dump-resource-usage"), _cuobjdump(compiled.asm["cubin"], "--dump-sass")
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump reported no registers: {usage}")
    return Resources(int(found[1]), int(compiled.metadata.shared), int(found[2])), sass


def _source_type(compilation: Compilation) -> Any:
    from triton.compiler import ASTSource

    if not compilation.kernel.is_gluon():
        return ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    return GluonASTSource


def _even(compilation: Compilation) -> list[str]:
    """The arguments that Triton specialises as multiples of 16; a Gluon kernel's lengths are as they come."""
    if compilation.kernel.is_gluon():
        return []
    return [n for n, t in compilation.signature.items() if t.startswith("*") or n.startswith(("stride_", "n_"))]


def _cuobjdump(cubin: bytes, flag: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, flag, file.name], check=True, capture_output=True, text=True).stdout
