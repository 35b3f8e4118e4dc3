"""FlashAttention-2, -3 and -4, the libraries of FlashAttention's authors, where they are installed.

All take q [B, N_q, H_q, D], k and v [B, N_kv, H_kv, D] with strides, so they are handed transposed views; grouped heads as
they are; causal aligned at the end, and a window (left, right) of keys on each side of a query's own. A query that sees no key
gives 0. FlashAttention-2 and -3 copy an operand whose rows are not contiguous, FlashAttention-4 also one whose rows do not
start at multiples of 16 bytes: both are refused, for the copy would be in their time. CuTe DSL compiles FlashAttention-4 when
it is first called, which is here.
Source: flash_attn/flash_attn_interface.py and hopper/flash_attn_interface.py of Dao-AILab/flash-attention;
flash_attn/cute/interface.py of flash-attn-4 4.0.0b36.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kernels.attention import flash_attn_2, flash_attn_3, peer
from kernels.contract import AttentionWorkload, Blueprint, Config, Device, Refusal

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

ALIGNMENT_BYTES = 16  # of a row's first element, for TMA


@dataclass(frozen=True, slots=True)
class Library:
    """One of the three.

    Attributes:
        module: where its flash_attn_func is.
        remedy: how it is installed.
        majors: the major compute capabilities that it has kernels for, called `hardware`.
        gaps: by major compute capability, the head dims that it lacks.
        published: what it is predicted from.
    """

    title: str
    summary: str
    module: str
    remedy: str
    hardware: str
    majors: tuple[int, ...]
    gaps: Mapping[int, range] = field(default_factory=dict)
    published: Blueprint | None = None


LIBRARIES = {
    "flash_attn_2": Library(
        "FlashAttention-2", "its authors' CUTLASS kernels for Ampere and newer", "flash_attn.flash_attn_interface",
        "install it with pip install flash-attn", "compute capability 8.0 or newer", (8, 9, 10, 12),
        published=flash_attn_2.blueprint("flash_attn_2")),
    "flash_attn_3": Library(
        "FlashAttention-3", "its authors' CUTLASS kernels for Hopper", "flash_attn_interface",
        "build it from the folder hopper of Dao-AILab's flash-attention", "compute capability 9.x", (9,),
        published=flash_attn_3.blueprint("flash_attn_3")),
    "flash_attn_4": Library(
        "FlashAttention-4", "its authors' CuTe DSL kernels for Hopper and Blackwell", "flash_attn.cute",
        "install it with pip install flash-attn-4", "compute capability 9.0 or newer", (9, 10, 11, 12),
        {10: range(129, 256), 11: range(129, 256)}),
}


def launch(library: Library, workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:  # noqa: ARG001
    """The library's function on views of these tensors, called once here.

    Raises:
        Refusal: it is not installed, cannot be imported, would copy an operand, or does not take this workload.
    """
    for name in ("Q", "K", "V", *(("dO",) if workload.pass_ == "backward" else ())):
        if not _taken_as_it_lies(tensors[name]):
            raise Refusal(f"{library.title} would copy {name} before each launch: its rows must be contiguous and start at "
                          f"multiples of {ALIGNMENT_BYTES} bytes")
    function = _function(library)
    options: dict[str, Any] = {"causal": workload.causal}
    if workload.window:
        options["window_size"] = (workload.window - 1, 0)

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        found = function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **options)
        out: torch.Tensor = found[0] if isinstance(found, tuple) else found  # some versions return lse beside it
        return out.transpose(1, 2)

    run = peer.bind(attention, workload, tensors, partial(_refused_unless_it_runs, library))
    if workload.pass_ == "backward":
        _refused_unless_it_runs(library, run)
    return run


def _taken_as_it_lies(x: torch.Tensor) -> bool:
    """Whether no library copies x [B, H, N, D]."""
    outer = (stride * x.element_size() for stride in x.stride()[:-1])
    return x.stride(-1) == 1 and not any(at % ALIGNMENT_BYTES for at in (x.data_ptr(), *outer))


def _function(library: Library) -> Callable[..., Any]:
    """Its flash_attn_func. Raises: Refusal where it is missing or broken."""
    if missing := _missing(library):
        raise Refusal(missing[0])
    try:
        with _warnings_ignored():
            function: Callable[..., Any] = importlib.import_module(library.module).flash_attn_func
    except Exception as error:
        raise Refusal(f"{library.title} is installed and cannot be imported: {peer.first_line(error)}") from error
    return function


@contextmanager
def _warnings_ignored() -> Iterator[None]:
    """What a library warns of while it is imported and compiled is for its authors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _missing(library: Library) -> list[str]:
    """A sentence where its module cannot be found; nothing is imported to find it."""
    name, path = "", None
    for part in () if library.module in sys.modules else library.module.split("."):
        name = f"{name}.{part}" if name else part
        specs = (finder.find_spec(name, path) for finder in sys.meta_path)
        spec = next((found for found in specs if found), None)
        if spec is None:
            return [f"{library.title} is not installed: {library.remedy}"]
        path = spec.submodule_search_locations
    return []


def _refused_unless_it_runs(library: Library, call: Callable[[], Tensors]) -> Tensors:
    """The result of `call`. Raises: Refusal with the library's reason where it does not take the workload."""
    import torch

    try:
        with _warnings_ignored():
            return call()
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        raise Refusal(f"{library.title} refuses this shape here: {peer.first_line(error)}") from error


def constraints(library: Library, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:  # noqa: ARG001
    """What it does not do, known without importing it."""
    if elsewhere := peer.on_gpu_alone(device, library.title):
        return elsewhere
    reasons = _missing(library)
    if workload.itemsize != 2:
        reasons.append(f"{library.title} takes float16 and bfloat16 only")
    major = device.capability[0] if device.capability else 0
    if device.kind != "cpu" and major not in library.majors:
        has = "an unknown one" if device.capability is None else "{}.{}".format(*device.capability)
        reasons.append(f"{library.title} needs {library.hardware} and this device has {has}")
    if workload.head_dim in library.gaps.get(major, ()):
        reasons.append(f"{library.title} has no head dim {workload.head_dim} for this device: choose one up to 128, or 256")
    return reasons


KERNELS = tuple(
    peer.spec(
        peer.info(name, library.title, library.summary, f"{library.module}.flash_attn_func"),
        partial(launch, library), partial(constraints, library), published=library.published,
    )
    for name, library in LIBRARIES.items()
)
