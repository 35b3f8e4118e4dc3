"""A device as data: what a kernel's configuration and the window need to know of it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Device(Struct, frozen=True, kw_only=True):
    """One place where kernels run.

    `id` is what the command line takes: `cuda:0`, `cpu`. Missing figures are None and shown as n/a.
    """

    id: str
    kind: Literal["cuda", "cpu", "sim"]
    name: str
    uuid: str = ""
    capability: tuple[int, int] | None = None
    sms: int | None = None                      # streaming multiprocessors; cores of a CPU
    sram_bytes_per_block: int | None = None     # the most shared memory that one block may ask for
    l2_bytes: int | None = None
    memory_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    bandwidth_provenance: Literal["measured", "spec"] = "spec"
    driver: str = ""

    @property
    def memory_name(self) -> str:
        """What the large memory is called: HBM on a GPU, RAM on a CPU."""
        return "RAM" if self.kind == "cpu" else "HBM"

    @property
    def sram_name(self) -> str:
        """What the small memory is called: SRAM on a GPU, cache on a CPU."""
        return "cache" if self.kind == "cpu" else "SRAM"
