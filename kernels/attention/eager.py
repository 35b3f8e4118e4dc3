"""The eager chain in PyTorch as FlashAttention's authors benchmarked it, to be predicted: a launch a step, S and P through HBM.

    S = Q K^T / sqrt(D);  S = S + mask;  P = softmax(S);  P = dropout(P);  O = P V
`eager` adds a mask where the workload has one and drops nothing; `eager_masked` always does both, as the first paper's figure
of HBM bytes has it. The backward pass multiplies twice each by P and dS, and goes back through dropout and softmax; through the
sum with the mask it passes without a launch. The scale is part of the products, for Q K^T is a baddbmm.
Passes over N_q N_kv of `eager_masked`, in elements of the dtype:
    forward   S written 1; + mask 2; softmax 2; dropout 2, and a byte for what is kept; P V 1
    backward  dV 1; dP written 1; dropout 2, and the byte; softmax 3; dQ 1; dK 1
In 16 bits that is 18; beside it operands of the size N D move 12 times. For GPT-2 medium (B 64, H 16, N 1024, D 64) 40.3 GB, as
Dao et al. (2022), figure 2, counts for standard attention.
The mask itself, one for all heads, is made beforehand. Heads of a group share K and V without the copies a user would make.
`eager` copies as the benchmark does, whose Q, K and V lie in one array in the order of tokens: each into the order of heads
before it is multiplied, dO too, and the gradients back; `eager_masked` does not, for the paper's figure does not count it.
Source: attention_pytorch in benchmarks/benchmark_flash_attention.py of Dao-AILab/flash-attention.
A guess: cuBLAS's tiles, 72 registers a thread of what multiplies nothing, 20 operations an element for dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace as replace_operand

from kernels.attention import peer, products, reference
from kernels.attention.chain import Step, cost_of, products_config, schedule_of, with_resources
from kernels.attention.chain_products import product
from kernels.attention.chain_steps import elementwise, softmax, softmax_backward
from kernels.contract import AttentionWorkload, Blueprint, Config, Cost, Device, KernelSpec, Operand, Refusal, Schedule

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

DROPOUT_FLOPS = 20  # of an element: ten rounds of Philox give four random numbers; a comparison and a product


@dataclass(frozen=True, slots=True)
class Chain:
    """One of the two. `full`: with mask and dropout whatever the workload."""

    id: str
    title: str
    summary: str
    full: bool

    def masked(self, workload: AttentionWorkload) -> bool:
        """Whether a mask is added to S."""
        return self.full or workload.causal


CHAINS = (
    Chain("eager", "eager chain", "matmul, mask, softmax, matmul in PyTorch, a launch each", full=False),
    Chain("eager_masked", "eager chain with dropout", "the eager chain with mask and dropout, a launch each", full=True),
)


def operands(chain: Chain, workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Beside those of the pass: S, P and what is made of them in the dtype of Q, of dropout a byte an element, and the mask.

    The mask [N_q, N_kv] is made beforehand. For the backward pass P, what dropout left of it and the bytes are saved.
    """
    w, backward = workload, workload.pass_ == "backward"
    square: dict[str, Any] = {"shape": (w.batch, w.heads, w.seq, w.keys), "itemsize": w.itemsize}
    left: Any = "saved" if backward else "scratch"
    made = ["dP", "dS"] if backward else ["S"]
    given = reference.operands(w)
    if backward and chain.full:
        made.append("dP dropped")
    if not backward and chain.masked(w):
        made.append("S masked")
    found = [Operand(name=name, role="scratch", **square) for name in made]
    found += [Operand(name=name, role=left, **square) for name in (("P", "P dropped") if chain.full else ("P",))]
    if chain.full:
        found.append(Operand(name="keep", role=left, dtype="int8", **square | {"itemsize": 1}))
    if chain.masked(w) and not backward:
        found.append(Operand(name="mask", shape=(w.seq, w.keys), itemsize=w.itemsize, role="saved"))
    copied = ("dO", "dQ", "dK", "dV") if backward else ("Q", "K", "V")
    if not chain.full:
        found += [replace_operand(operand, name=f"{operand.name} by heads", role="scratch") for operand in given
                  if operand.name in copied]
    return (*given, *found)


def save(chain: Chain, workload: AttentionWorkload, tensors: Tensors) -> None:
    """Fills the mask, or what a forward pass that drops nothing leaves: P twice, and that all is kept."""
    import torch

    w = workload
    seen = reference.visible(w, torch.arange(w.seq, device=tensors["Q"].device))
    if w.pass_ == "forward":
        if chain.masked(w):
            tensors["mask"].zero_().masked_fill_(~seen, -torch.inf)
        return
    q, k = (tensors[name].float() for name in "QK")
    s = (q @ k.repeat_interleave(w.group, 1).mT * w.head_dim**-0.5).masked_fill(~seen, -torch.inf)
    tensors["P"].copy_(s.softmax(-1).nan_to_num_())
    if chain.full:
        tensors["P dropped"].copy_(tensors["P"])
        tensors["keep"].fill_(1)


def steps(chain: Chain, workload: AttentionWorkload, config: Config) -> Iterator[Step]:
    """The launches of a pass in order."""
    arrays = {operand.name: operand for operand in operands(chain, workload)}
    multiply, each = partial(product, arrays, config), partial(elementwise, arrays, config)
    scale, p = workload.head_dim**-0.5, "P dropped" if chain.full else "P"
    own = "" if chain.full else " by heads"

    def copy(read: str, write: str) -> Step:
        return each(f"copy_{read[:2].strip()}", f"{write} = {read}", (read,), (write,), "scaled", scale=1.0)

    if workload.pass_ == "forward":
        masked = chain.masked(workload)
        if own:
            yield from (copy(name, name + own) for name in "QK")
        yield multiply("scores", "S = Q Kᵗ / √D", "nt", (f"Q{own}", f"K{own}"), "S", alpha=scale)
        if masked:
            yield each("mask", "S = S + mask", ("S", "mask"), ("S masked",), "added", vector_flops=1)
        yield softmax(arrays, config, "S masked" if masked else "S", "P")
        if chain.full:
            yield each("dropout", "P = dropout(P)", ("P",), ("P dropped", "keep"), "dropped", vector_flops=DROPOUT_FLOPS)
        if own:
            yield copy("V", "V" + own)
        yield multiply("pv", "O = P V", "nn", (p, f"V{own}"), "O")
        return
    if own:
        yield copy("dO", "dO" + own)
    yield multiply("dV", "dV = Pᵗ dO", "tn", (p, f"dO{own}"), f"dV{own}")
    yield multiply("dP", "dP = dO Vᵗ", "nt", (f"dO{own}", "V"), "dP dropped" if chain.full else "dP")
    if chain.full:
        yield each("dropout_backward", "dP where P was kept", ("dP dropped", "keep"), ("dP",), "kept", vector_flops=2)
    yield softmax_backward(arrays, config, "dP", "P", "dS")
    yield multiply("dQ", "dQ = dS K / √D", "nn", ("dS", "K"), f"dQ{own}", alpha=scale)
    yield multiply("dK", "dK = dSᵗ Q / √D", "tn", ("dS", "Q"), f"dK{own}", alpha=scale)
    if own:
        yield from (copy(name + own, name) for name in ("dQ", "dK", "dV"))


def configure(chain: Chain, workload: AttentionWorkload, device: Device) -> Config:
    """The tiles that are guessed."""
    config = products_config(workload.itemsize, device)
    return with_resources(config, steps(chain, workload, config))


def constraints(chain: Chain, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:  # noqa: ARG001
    """A sentence where the device is no GPU, or where the chain gives no number."""
    found = [f"the {chain.title} is predicted on GPUs alone"] if device.kind == "cpu" else []
    if device.capability is None and not found:
        found = [f"the {chain.title} has tiles by compute capability and this device has an unknown one"]
    return found + peer.keyless(workload, "the eager chain gives NaN to")


def cost(chain: Chain, workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form: the whole square, causal or not, in the passes above."""
    return cost_of(workload, steps(chain, workload, config))


def schedule(chain: Chain, workload: AttentionWorkload, config: Config) -> Schedule:
    """A launch a step."""
    return schedule_of(chain.id, operands(chain, workload), steps(chain, workload, config))


def _blueprint(chain: Chain) -> Blueprint:
    return Blueprint(
        operands=partial(operands, chain), configure=partial(configure, chain), constraints=partial(constraints, chain),
        cost=partial(cost, chain), schedule=partial(schedule, chain), tolerance=products.tolerance, save=partial(save, chain),
        source="Dao-AILab/flash-attention, benchmarks/benchmark_flash_attention.py; cuBLAS's tiles are a guess")


def _spec(chain: Chain) -> KernelSpec:
    """One that is predicted, never run."""
    said = f"the {chain.title} is predicted, never run: choose SDPA math or naive, which write S and P to HBM too"

    def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:  # noqa: ARG001
        raise Refusal(said)

    info = msgspec.structs.replace(peer.info(chain.id, chain.title, chain.summary, "torch.baddbmm, torch.softmax, torch.bmm"),
                                   role="published")
    found = _blueprint(chain)
    return replace(peer.spec(info, launch, lambda *_: [said]), published=found, configure=found.configure)


KERNELS = tuple(map(_spec, CHAINS))
