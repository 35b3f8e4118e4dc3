"""The linear layers of a decoding model on a GPU: GPT-2's and Llama's sizes, odd ones, rows few and many, in a CUDA graph."""

from __future__ import annotations

import pytest
import torch

from kernels.linear.fused import Activation, bind, reference
from tests.kernels.layers import TOLERANCE, check, layer

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SHAPES: list[tuple[int, int, str, Activation, bool, bool]] = [
    (768, 2304, "layernorm", "none", True, False), (768, 768, "none", "none", True, True),
    (768, 3072, "layernorm", "gelu_tanh", True, False), (3072, 768, "none", "none", True, True),
    (768, 50257, "layernorm", "none", False, False), (4096, 6144, "rmsnorm", "none", False, False),
    (4096, 4096, "none", "none", False, True), (4096, 14336, "rmsnorm", "swiglu", False, False),
    (14336, 4096, "none", "none", False, True), (1000, 333, "layernorm without bias", "gelu", True, True),
    (16384, 48, "rmsnorm", "none", False, False), (77, 1, "layernorm", "swiglu", True, True),
]


def overlaps() -> list[bool]:
    """Programmatic dependent launch is Hopper's and newer."""
    return [False, True] if torch.cuda.get_device_capability() >= (9, 0) else [False]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 8, 16, 33, 200])
@pytest.mark.parametrize(("d_in", "d_out", "norm", "activation", "bias", "residual"), SHAPES)
def test_a_layer(
    rows: int, d_in: int, d_out: int, norm: str, activation: Activation, bias: bool, residual: bool, dtype: torch.dtype
) -> None:
    given = layer(rows, d_in, d_out, dtype, norm=norm, activation=activation, bias=bias, residual=residual, device="cuda")
    for overlap in overlaps():
        check(given, overlap=overlap)


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_chain_in_a_graph_sees_what_the_launch_before_it_wrote(rows: int, dtype: torch.dtype) -> None:
    """Ten layers, each of the one before and added to one stream, overlapping: none may read too early."""
    up = [layer(rows, 768, 3072, dtype, norm="layernorm", activation="gelu_tanh", bias=True, device="cuda") for _ in range(5)]
    down = [layer(rows, 3072, 768, dtype, bias=True, residual=True, device="cuda") for _ in range(5)]
    for i, given in enumerate([*up, *down]):
        given["w"] = given["w"] * (1 + 0.1 * i)
    start = up[0]["x"].clone()
    for overlap in overlaps():
        stream, inner = start.clone(), start.new_empty(rows, 3072)
        calls = []
        for first, second in zip(up, down, strict=True):
            calls += [
                bind(stream, first["w"], inner, bias=first["bias"], norm=first["norm"], activation="gelu_tanh",
                     overlap=overlap),
                bind(inner, second["w"], stream, bias=second["bias"], residual=stream, overlap=overlap),
            ]
        for call in calls:
            call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        wanted = start.double()
        for first, second in zip(up, down, strict=True):
            wide = reference(wanted, first["w"], bias=first["bias"], norm=first["norm"], activation="gelu_tanh")
            wanted = reference(wide, second["w"], bias=second["bias"], residual=wanted)
        for _ in range(20):
            stream.copy_(start)
            inner.fill_(float("nan"))
            graph.replay()
            error = (stream.double() - wanted).abs().max() / wanted.abs().max()
            assert error <= 5 * TOLERANCE[dtype]
