"""What a user has chosen to compare: device, workload, kernels and their parameters. Plain data."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from app.configuration import Configuration
from app.kind import moved
from app.what_if import device_of, simulated
from engine.options import PUBLISHED, default_workload, has_bfloat16, knows_triton
from engine.protocol import AttentionWorkload, Configure, Device, Hello, KernelInfo

FIRST = {"cuda": ("naive", "flash", "sdpa_flash", "sdpa_cudnn"), "cpu": ("naive", "flash", "sdpa_flash")}


class Choice(Struct, frozen=True, kw_only=True):
    """`params`: kernel -> parameter -> value, where the user set one."""

    device: str
    workload: AttentionWorkload
    kernels: tuple[str, ...]
    params: dict[str, dict[str, int]] = field(default_factory=dict)

    def configure(self, generation: int) -> Configure:
        """The command that runs it."""
        params = {kernel: values for kernel, values in self.params.items() if kernel in self.kernels and values}
        return Configure(generation=generation, device=self.device, workload=self.workload, kernels=self.kernels, params=params)

    def lacks(self) -> tuple[str, str] | None:
        """What must be ticked before it can run."""
        return None if self.kernels else ("No kernel is chosen", "Tick at least one")

    def changed_from(self, before: Choice) -> str:
        """The name of the step from another choice to this one."""
        if before.device != self.device:
            return "device"
        if before.kernels != self.kernels:
            return "kernels"
        if before.params != self.params:
            return "kernel parameters"
        old, new = before.values(), self.values()
        changed = [name for name in new if new[name] != old[name]]
        return changed[0].replace("_", " ") if len(changed) == 1 else "shape"

    def values(self) -> dict[str, Any]:
        """The workload's fields by their names on the wire."""
        values = dict(msgspec.to_builtins(self.workload))
        values.pop("type", None)
        return values

    def with_values(self, values: dict[str, Any]) -> Choice:
        """The same with another workload. Raises: msgspec.ValidationError where its fields do not go together."""
        workload = msgspec.convert({"type": "attention", **values}, AttentionWorkload)
        return msgspec.structs.replace(self, workload=workload)


def offered(info: KernelInfo, device: str) -> bool:
    """Whether a kernel can be chosen on a device: one that nothing can launch only where it is simulated."""
    return info.family == "attention" and (info.runs or simulated(device))


def on_device(choice: Choice, device: Device, hello: Hello) -> Choice:
    """The same on another device, as far as that has it; from a processor to a GPU and back all begins anew."""
    before = device_of(choice.device, hello)
    if before is None or "cpu" in (before.kind, device.kind):
        return first_choice(device)
    workload = choice.workload
    if workload.dtype == "bfloat16" and not has_bfloat16(device):
        workload = msgspec.structs.replace(workload, dtype="float16")
    kernels = tuple(info.id for info in hello.kernels if info.id in choice.kernels and offered(info, device.id))
    if not knows_triton(device):
        kernels = tuple(dict.fromkeys((*kernels, *PUBLISHED)))
    kernels = kernels or first_choice(device).kernels
    return msgspec.structs.replace(choice, device=device.id, workload=workload, kernels=kernels)


def first_choice(device: Device, workload: AttentionWorkload | None = None) -> Choice:
    """What a device begins with."""
    kernels = FIRST["cpu" if device.kind == "cpu" else "cuda"]
    kernels = kernels if knows_triton(device) else PUBLISHED
    return Choice(device=device.id, workload=workload or default_workload(device), kernels=kernels)


def restored(shown: Configuration, hello: Hello, instead: str) -> tuple[Choice, str]:
    """The choice that a picture embeds, on this engine, and a sentence on what had to differ (empty where nothing).

    Args:
        instead: the device that serves where the picture's is not here.
    """
    device, sentences = moved(shown, hello, instead)
    known = {info.id for info in hello.kernels if offered(info, device)}
    missing = [kernel for kernel in shown.kernels if kernel not in known]
    if missing:
        sentences.append(f"This engine has no {', '.join(missing)}.")
    kernels = tuple(kernel for kernel in shown.kernels if kernel in known)
    choice = Choice(device=device, workload=shown.workload, kernels=kernels, params=shown.params)
    return choice, " ".join(sentences)


def fitted(choice: Choice, hello: Hello) -> Choice | None:
    """A choice kept from an earlier start, where this engine can still run it."""
    known = {info.id for info in hello.kernels if offered(info, choice.device)}
    kernels = tuple(kernel for kernel in choice.kernels if kernel in known)
    if not kernels or device_of(choice.device, hello) is None:
        return None
    return msgspec.structs.replace(choice, kernels=kernels)
