"""What kernels of libraries share: opaque, timed as they are, forward or through autograd's graph made beforehand.

Compulsory HBM traffic: Q + K + V + O (backward: Q + K + V + O + dO + dQ + dK + dV + lse); what a peer moves beyond it is not
known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kernels import tuned
from kernels.attention import reference
from kernels.contract import AttentionWorkload, Blueprint, Config, Cost, Device, KernelInfo, KernelSpec, Operand, Traffic

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

Attention = Callable[..., "torch.Tensor"]  # (q, k, v) -> O
First = Callable[[Callable[[], "Tensors"]], "Tensors"]


def bind(attention: Attention, workload: AttentionWorkload, tensors: Tensors, first: First) -> Callable[[], Tensors]:
    """The pass of `attention` on these tensors. For a backward pass its graph is made here, outside what is timed.

    Args:
        first: makes the first call of the forward pass, and refuses where that cannot be.
    """
    import torch

    q, k, v = (tensors[name] for name in ("Q", "K", "V"))
    if workload.pass_ == "forward":

        def forward() -> Tensors:
            return {"O": attention(q, k, v)}

        first(forward)
        return forward
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = first(lambda: {"O": attention(*leaves)})["O"]

    def backward() -> Tensors:
        return dict(zip(("dQ", "dK", "dV"), torch.autograd.grad(out, leaves, tensors["dO"], retain_graph=True), strict=True))

    return backward


def cost(workload: AttentionWorkload, config: Config) -> Cost:  # noqa: ARG001
    """The compulsory traffic of the operands."""
    hbm = {o.name: Traffic(o.bytes, 0) if o.role == "input" else Traffic(0, o.bytes) for o in reference.operands(workload)}
    if workload.pass_ == "backward":
        rows = workload.batch * workload.heads * workload.seq
        hbm |= {"O": Traffic(rows * workload.head_dim * workload.itemsize, 0), "lse": Traffic(4 * rows, 0)}
    return Cost(nominal_flops=workload.nominal_flops, flops=workload.nominal_flops, hbm=hbm)


def configure(workload: AttentionWorkload, device: Device) -> Config:  # noqa: ARG001
    """Nothing to choose: the library chooses."""
    return Config()


def keyless(workload: AttentionWorkload, fails: str) -> list[str]:
    """A sentence where some query sees no key; `fails` says what the library then does."""
    seen = not workload.causal or workload.seq <= workload.keys
    return [] if seen else [f"{fails} a query that sees no key: make the KV length at least the sequence"]


def first_line(error: Exception) -> str:
    """What a library's error says first, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def on_gpu_alone(device: Device, what: str) -> list[str]:
    """A sentence where the device is no GPU."""
    return [] if device.kind == "cuda" else [f"{what} is compared on an NVIDIA GPU alone"]


def not_published(
    title: str, workload: AttentionWorkload, config: Config, device: Device,
    capabilities: tuple[tuple[int, int], tuple[int, int]], hardware: str,
) -> list[str]:
    """Sentences where authors published nothing to predict from: another device, one query, elements of 32 bits, tiles that
    do not fit.

    Args:
        capabilities: the first that they have kernels for and the first that they have none for again, called `hardware`.
    """
    if device.kind == "cpu":
        return [f"{title} is predicted on GPUs alone"]
    if device.capability is None or not capabilities[0] <= device.capability < capabilities[1]:
        has = "an unknown one" if device.capability is None else "{}.{}".format(*device.capability)
        return [f"{title} needs {hardware} and this device has {has}"]
    reasons = [] if workload.itemsize == 2 else [f"{title} takes float16 and bfloat16 only"]
    if workload.seq == 1:
        reasons.append(f"{title} shares the keys of one query among programs, which is not predicted: choose more queries")
    need = max((used.sram_bytes for used in config.resources.values()), default=0)
    return reasons + tuned.too_large(title, need, device)


def with_square(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """The operands of a chain that writes S and P: they count for memory, though the library allocates them."""
    shape = (workload.batch, workload.heads, workload.seq, workload.keys)
    squares = (Operand(name=name, shape=shape, itemsize=workload.itemsize, role="scratch") for name in "SP")
    return (*reference.operands(workload), *squares)


def spec(
    info: KernelInfo, launch: Callable[[AttentionWorkload, Config, Tensors], Callable[[], Tensors]],
    constraints: Callable[[AttentionWorkload, Config, Device], list[str]],
    operands: Callable[[AttentionWorkload], tuple[Operand, ...]] = reference.operands, published: Blueprint | None = None,
) -> KernelSpec:
    """A peer: all that is its own is how it is called, what it cannot do, and what its authors published of it."""
    return KernelSpec(
        info=info, operands=operands, inputs=reference.inputs, reference=reference.reference, launch=launch,
        configure=configure, constraints=constraints, cost=cost, schedule=None,
        compilations=lambda workload, config: (),  # noqa: ARG005
        tolerance=reference.tolerance, published=published,
    )


def info(id: str, title: str, summary: str, source: str) -> KernelInfo:
    """What travels of a peer."""
    return KernelInfo(id=id, title=title, summary=summary, source=source, family="attention", role="peer",
                      passes=("forward", "backward"), opaque=True)
