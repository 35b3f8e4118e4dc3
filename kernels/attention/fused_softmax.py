"""Attention in three launches: scale, mask and softmax fused into one kernel between the two products. What fusion alone buys.

    S = Q K^T;  P = softmax(mask(S / sqrt(D)));  O = P V
HBM traffic, elements a head: Q + K + V + O + 4 N_q N_kv (S written and read, P written and read), with or without a mask;
naive with its separate mask kernel has 6. S and P are still written: only FlashAttention's order keeps them on the SM.
Like naive it computes the whole square, causal or not, with the same products (products.py, the scale 1) and the same softmax
(rows.py, with scale and mask in it): hidden tiles are not skipped, so that what it gains over naive is fusion and nothing else.
S is kept raw in the dtype of Q, sqrt(D) times as large as naive's.
Source: Dao, FlashAttention (2022), section 2.2, kernel fusion of elementwise operations; Megatron-LM's scaled masked softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kernels import tuned
from kernels.attention import products, reference, rows
from kernels.contract import AttentionWorkload, Compilation, Config, Cost, Device, KernelInfo, KernelSpec, Schedule, Traffic
from kernels.jit import require_triton

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The three kernels; Q, K, V and O of any strides with a contiguous last dimension, S and P contiguous.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    scores, pv = products.bind(workload, config, tensors, scale=1.0)
    softmax, o = rows.bind(workload, tensors, fused=True), tensors["O"]

    def run() -> Tensors:
        scores()
        softmax()
        pv()
        return {"O": o}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """One per launch; the products compile as naive's."""
    scores, pv = products.compilations(workload, config)
    return (scores, rows.compilation(workload, fused=True), pv)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table."""
    config = tuned.nearest("fused_softmax", workload, device)
    return tuned.with_resources(config, compilations(workload, config), device)


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched."""
    return products.constraints("fused softmax", workload, config, device)


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form: the whole square, four passes over it."""
    square = products.square_bytes(workload)
    vector_flops, exps = rows.work(workload, fused=True)
    reads = 1 if rows.whole_rows(workload) else 2
    return products.cost(
        workload, config, vector_flops=vector_flops, exps=exps,
        hbm_s=Traffic(square, square), tile_s=Traffic(reads * square, square))


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """Three launches."""
    return Schedule(kernel="fused_softmax", operands=products.operands(workload), launches=(
        products.scores_launch(workload, config, "S = Q Kᵗ", 1.0),
        rows.softmax_launch(workload, config, fused=True), products.pv_launch(workload, config)))


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="fused_softmax", title="fused softmax", place=1,
            summary="scale, mask and softmax in one kernel: S and P go through HBM",
            family="attention", role="ours", source="Dao 2022, FlashAttention, section 2.2", params=tuned.PARAMS,
        ),
        operands=products.operands, inputs=reference.inputs, reference=reference.reference, launch=launch,
        configure=configure, constraints=constraints, cost=cost, schedule=schedule, compilations=compilations,
        tolerance=products.tolerance,
    ),
)
