"""torch.nn.functional.linear, on a GPU cuBLAS; for steps of a recurrent network the product scaled by addmm, then a tanh.

Compulsory HBM traffic: X + W + Y a launch; the tanh is a launch of its own, which reads and writes the rows once more.
Source: torch.nn.functional.linear, torch.addmm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kernels.contract import Config, Cost, Device, KernelInfo, KernelSpec, LinearWorkload
from kernels.linear import reference

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def launch(workload: LinearWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:  # noqa: ARG001
    """The layer, or all steps, on these tensors; the output is the library's own."""
    import torch

    x, weights, scale = tensors["X"], tensors["W"], reference.scale(workload)

    def layer() -> Tensors:
        return {"Y": torch.nn.functional.linear(x, weights)}

    def steps() -> Tensors:
        h = x
        for _ in range(workload.repeat):
            h = torch.addmm(h, h, weights.mT, beta=0, alpha=scale).tanh_()  # beta 0: what is added is not read
        return {"Y": h}

    return layer if workload.repeat == 1 else steps


def configure(workload: LinearWorkload, device: Device) -> Config:  # noqa: ARG001
    """Nothing to choose: the library chooses."""
    return Config()


def cost(workload: LinearWorkload, config: Config) -> Cost:  # noqa: ARG001
    """The compulsory traffic of the operands."""
    return Cost(nominal_flops=workload.nominal_flops, flops=workload.nominal_flops, hbm=reference.hbm(workload))


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="torch_linear", title="torch linear", summary="torch.nn.functional.linear: on a GPU cuBLAS", family="linear",
            role="peer", opaque=True, source="torch.nn.functional.linear"),
        operands=reference.operands, inputs=reference.inputs, reference=reference.reference, launch=launch, configure=configure,
        constraints=lambda workload, config, device: [],  # noqa: ARG005
        cost=cost, schedule=None,
        compilations=lambda workload, config: (),  # noqa: ARG005
        tolerance=reference.tolerance,
    ),
)
