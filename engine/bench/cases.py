"""What a child process is told to launch under a tool, and what it answers. Without torch."""

from __future__ import annotations

from msgspec import Struct

from engine.results import Check
from kernels.contract import Workload


class Case(Struct, frozen=True, kw_only=True):
    """One kernel at one workload. `strided`: its tensors are views with NaN between rows and heads."""

    kernel: str
    workload: Workload
    strided: bool = False


class Order(Struct, frozen=True, kw_only=True):
    """`exact`: tensors are made on the host, and compared there whole: no other kernel than ours runs on the device. Else they
    are made on the device and some rows compared, and each kernel is executed `times` more where a profiler looks.
    """

    device: str
    cases: tuple[Case, ...]
    exact: bool
    times: int = 1


class Done(Struct, frozen=True, kw_only=True):
    """A case that was launched, or `refused` says why not; `failed` where that was no refusal but an error."""

    kernel: str
    config: dict[str, int] = {}
    check: Check | None = None
    refused: str = ""
    failed: bool = False
