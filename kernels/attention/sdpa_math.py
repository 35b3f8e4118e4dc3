"""SDPA's math back end as PyTorch launches it, to be predicted: in float32 whatever the dtype, a launch a step.

Q, K and V of 16 bits are copied to float32 first, O and the gradients back last. Q and K are each multiplied by D^-1/4. A
softmax that is safe for rows without keys is four launches: softmax, which elements are -inf, of which rows all are, a choice.
In 16 bits P is copied back too, as a second result that nobody reads. A causal mask is a float32 matrix that is added.
Passes over N_q N_kv forward, in bytes: S 4; the mask 8; softmax 8, flags 5, rows 1, choice 8; in 16 bits the copy 6; P V 4.
Backward: dV 4; dP 4; softmax 12; dK 4; dQ 4.
The mask, one for all heads, is made beforehand. Heads of a group share K and V without the copies that PyTorch makes.
Source: aten/src/ATen/native/transformers/attention.cpp, _scaled_dot_product_attention_math and _safe_softmax, PyTorch 2.5 and
newer; the operators that PyTorch 2.13 dispatches, forward and backward.
A guess: cuBLAS's tiles and 72 registers a thread of what multiplies nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kernels.attention import reference
from kernels.attention.chain import Step, cost_of, products_config, schedule_of, with_resources
from kernels.attention.chain_products import Form, product
from kernels.attention.chain_steps import all_of_rows, elementwise, softmax, softmax_backward
from kernels.contract import AttentionWorkload, Blueprint, Config, Cost, Device, Operand, Schedule

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

KERNEL = "sdpa_math"


def _copied(workload: AttentionWorkload) -> bool:
    """Whether operands are copied to float32 and back."""
    return workload.itemsize == 2


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Beside those of the pass: what it makes of them, in float32 but for flags of a byte. For the backward pass P is saved,
    and Q, K and V as they were multiplied.
    """
    w, backward = workload, workload.pass_ == "backward"
    query, key = (w.batch, w.heads, w.seq, w.head_dim), (w.batch, w.kv_heads, w.keys, w.head_dim)
    square = (w.batch, w.heads, w.seq, w.keys)

    def some(names: str, shape: tuple[int, ...], role: Any = "scratch", **more: Any) -> list[Operand]:
        kind: dict[str, Any] = {"itemsize": 4, "dtype": "float32"} | more
        return [Operand(name=name, shape=shape, role=role, **kind) for name in names.split(", ")]

    if backward:
        found = some("P", square, "saved") + some("Q scaled", query, "saved") + some("K scaled", key, "saved")
        found += some("dP, dS", square) + some("dQ scaled", query) + some("dK scaled", key)
        if _copied(w):
            found += some("V32", key, "saved") + some("dO32, dQ32", query) + some("dK32, dV32", key)
        return (*reference.operands(w), *found)
    found = some("Q scaled", query) + some("K scaled", key) + some("S, P raw, P", square)
    found += some("hidden", square, itemsize=1, dtype="int8") + some("rows hidden", square[:3], itemsize=1, dtype="int8")
    if w.causal:
        found += some("S masked", square) + some("mask", square[2:], "saved")
    if _copied(w):
        found += some("Q32, O32", query) + some("K32, V32", key) + some("P16", square, itemsize=w.itemsize, dtype="")
    return (*reference.operands(w), *found)


def save(workload: AttentionWorkload, tensors: Tensors) -> None:
    """Fills the mask, or what the forward pass leaves."""
    import torch

    w, root = workload, workload.head_dim**-0.25
    seen = reference.visible(w, torch.arange(w.seq, device=tensors["Q"].device))
    if w.pass_ == "forward":
        if w.causal:
            tensors["mask"].zero_().masked_fill_(~seen, -torch.inf)
        return
    for name in "QK":
        tensors[f"{name} scaled"].copy_(tensors[name].float() * root)
    s = tensors["Q scaled"] @ tensors["K scaled"].repeat_interleave(w.group, 1).mT
    tensors["P"].copy_(s.masked_fill_(~seen, -torch.inf).softmax(-1).nan_to_num_())
    if _copied(w):
        tensors["V32"].copy_(tensors["V"])


class _Steps:
    """Makes the launches of one pass."""

    def __init__(self, workload: AttentionWorkload, config: Config) -> None:
        self.copied, self.root = _copied(workload), workload.head_dim**-0.25
        self.arrays, self.config = {operand.name: operand for operand in operands(workload)}, config

    def own(self, name: str) -> str:
        """The operand, or its copy in float32."""
        return f"{name}32" if self.copied else name

    def copies(self, *names: str, back: bool = False) -> Iterator[Step]:
        """Of 16 bits to float32, or `back`."""
        for name in names if self.copied else ():
            read, write = (f"{name}32", name) if back else (name, f"{name}32")
            yield self.each(f"copy of {name}", f"{write} = {read}", (read,), (write,), "unchanged")

    def each(self, name: str, title: str, reads: tuple[str, ...], writes: tuple[str, ...], fn: str, **more: Any) -> Step:
        return elementwise(self.arrays, self.config, name, title, reads, writes, fn, **more)

    def scaled(self, read: str, write: str) -> Step:
        return self.each(write, f"{write} = {read} / √√D", (read,), (write,), "scaled", vector_flops=1, scale=self.root)

    def product(self, name: str, title: str, form: Form, factors: tuple[str, str], result: str) -> Step:
        return product(self.arrays, self.config, name, title, form, factors, result)

    def forward(self, masked: bool) -> Iterator[Step]:
        yield from self.copies("Q", "K", "V")
        yield self.scaled(self.own("Q"), "Q scaled")
        yield self.scaled(self.own("K"), "K scaled")
        yield self.product("scores", "S = Q Kᵗ / √D", "nt", ("Q scaled", "K scaled"), "S")
        if masked:
            yield self.each("mask", "S = S + mask", ("S", "mask"), ("S masked",), "added", vector_flops=1)
        s = "S masked" if masked else "S"
        yield softmax(self.arrays, self.config, s, "P raw")
        yield self.each("hidden", "where S is -∞", (s,), ("hidden",), "is_hidden", vector_flops=1)
        yield all_of_rows(self.arrays, self.config, "rows hidden", "rows all of -∞", "hidden", "rows hidden")
        yield self.each("choice", "P = 0 in such rows", ("P raw", "rows hidden"), ("P",), "zero_where", vector_flops=1)
        if self.copied:
            yield self.each("copy of P", "P in 16 bits, read by no one", ("P",), ("P16",), "unchanged")
        yield self.product("pv", "O = P V", "nn", ("P", self.own("V")), self.own("O"))
        yield from self.copies("O", back=True)

    def backward(self) -> Iterator[Step]:
        yield from self.copies("dO")
        yield self.product("dV", "dV = Pᵗ dO", "tn", ("P", self.own("dO")), self.own("dV"))
        yield self.product("dP", "dP = dO Vᵗ", "nt", (self.own("dO"), self.own("V")), "dP")
        yield softmax_backward(self.arrays, self.config, "dP", "P", "dS")
        yield self.product("dK", "dK = dSᵗ Q", "tn", ("dS", "Q scaled"), "dK scaled")
        yield self.product("dQ", "dQ = dS K", "nn", ("dS", "K scaled"), "dQ scaled")
        yield self.scaled("dK scaled", self.own("dK"))
        yield self.scaled("dQ scaled", self.own("dQ"))
        yield from self.copies("dV", "dK", "dQ", back=True)


def steps(workload: AttentionWorkload, config: Config) -> Iterator[Step]:
    """The launches of a pass in order."""
    found = _Steps(workload, config)
    return found.backward() if workload.pass_ == "backward" else found.forward(workload.causal)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The tiles that are guessed, of float32."""
    config = products_config(4, device)
    return with_resources(config, steps(workload, config))


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:  # noqa: ARG001
    """A sentence where the device is no GPU, or the mask none of SDPA's."""
    found = ["SDPA math is predicted on GPUs alone"] if device.kind == "cpu" else []
    if device.capability is None and not found:
        found = ["SDPA math has tiles by compute capability and this device has an unknown one"]
    return found + (["SDPA has no sliding window: set window to 0"] if workload.window else [])


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form: the whole square, causal or not, in the passes above."""
    return cost_of(workload, steps(workload, config))


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """A launch a step."""
    return schedule_of(KERNEL, operands(workload), steps(workload, config))


BLUEPRINT = Blueprint(
    operands=operands, configure=configure, constraints=constraints, cost=cost, schedule=schedule,
    tolerance=reference.tolerance, save=save,
    source="PyTorch, aten/src/ATen/native/transformers/attention.cpp; cuBLAS's tiles are a guess")
