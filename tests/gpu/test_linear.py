"""Linear layers on a GPU: those of a decoding model at GPT-2's and Llama's sizes, and the catalog's kernels."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from msgspec.structs import replace

from kernels.catalog import catalog
from kernels.contract import Device, KernelSpec, LinearWorkload
from kernels.linear.fused import Activation, bind, reference
from tests.kernels.layers import TOLERANCE, check, layer
from tests.kernels.shapes import error, tensors_for
from tests.kernels.test_linear import name

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


KERNELS = [spec for spec in catalog().values() if spec.info.family == "linear"]
LAYERS = [LinearWorkload(batch=b, d_in=i, d_out=o, repeat=r) for b, i, o, r in (
    (1, 4096, 4096, 1), (8, 4096, 6144, 1), (16, 8192, 8192, 1), (17, 4096, 4096, 1), (33, 1000, 333, 1), (64, 14336, 4096, 1),
    (100, 4096, 4096, 1), (256, 4096, 4096, 1), (1000, 2048, 3000, 1), (4096, 1024, 1024, 1), (3, 1, 1, 1), (8, 768, 50257, 1),
    (8, 4096, 4096, 16), (100, 1000, 1000, 3), (1, 64, 64, 256))]


@pytest.mark.parametrize("spec", KERNELS, ids=name)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("workload", LAYERS, ids=name)
def test_launch_agrees_with_reference(spec: KernelSpec, dtype: str, workload: LinearWorkload, device: Device) -> None:
    w = replace(workload, dtype=dtype)
    config = spec.configure(w, device)
    assert not spec.constraints(w, config, device)
    tensors = tensors_for(spec, w, "cuda")
    got = spec.launch(w, config, tensors)()
    assert error(got["Y"], spec.reference(w, tensors, None)["Y"]) <= spec.tolerance(w)


@pytest.mark.parametrize("spec", [spec for spec in KERNELS if not spec.info.opaque], ids=name)
@pytest.mark.parametrize("batch", [1, 100])
def test_strides_as_given_and_nan_between_them(spec: KernelSpec, batch: int, device: Device) -> None:
    w = LinearWorkload(batch=batch, d_in=1000, d_out=520)
    tensors = tensors_for(spec, w, "cuda")
    plain = dict(tensors)
    for operand, tensor in plain.items():
        if operand == "Y_part":  # the kernel's own, contiguous
            continue
        wide = tensor.new_full((tensor.shape[0], tensor.shape[1] + 8), float("nan"))
        wide[:, : tensor.shape[1]] = tensor
        tensors[operand] = wide[:, : tensor.shape[1]]
    got = spec.launch(w, spec.configure(w, device), tensors)()
    assert error(got["Y"], spec.reference(w, plain, None)["Y"]) <= spec.tolerance(w)


@pytest.mark.parametrize("splits", [1, 2, 3])
@pytest.mark.parametrize("batch", [8, 100, 256])
def test_steps_in_a_graph_see_what_the_launches_before_them_wrote(batch: int, splits: int, device: Device) -> None:
    """By TMA and by pointers, each launch overlapping the one before it: none may read too early, nor a sum of old splits."""
    spec, w = catalog()["batched_linear"], LinearWorkload(batch=batch, d_in=2048, d_out=2048, repeat=6)
    flags = [0, 1] if (device.capability or (0, 0)) >= (9, 0) else [0]
    tensors = tensors_for(spec, w, "cuda")
    wanted = spec.reference(w, tensors, None)["Y"]
    for tma, dependent in product(flags, flags):
        config = spec.configure(w, device)
        config = replace(config, params=config.params | {"splits": splits, "tma": tma, "dependent": dependent})
        call = spec.launch(w, config, tensors)
        call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        for _ in range(20):
            for operand in {"Y", "H", "Y_part"} & tensors.keys():
                tensors[operand].fill_(float("nan"))
            graph.replay()
            assert error(tensors["Y"], wanted) <= spec.tolerance(w)
