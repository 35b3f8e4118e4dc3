"""Linear kernels agree with the reference in Triton's interpreter: odd sizes, steps, strides with NaN between rows."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from kernels.catalog import catalog
from kernels.contract import Config, KernelSpec, LinearWorkload
from tests.kernels.shapes import SMALL, error, tensors_for
from tests.kernels.test_linear import LAYERS, name

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1 (make test)")

OURS = [spec for spec in catalog().values() if spec.info.family == "linear" and not spec.info.opaque]
WIDE = Config(params={"block_m": 32, "block_n": 64, "block_k": 64, "warps": 4, "stages": 2})
TALL_X = Config(params={"block_m": 64, "block_n": 128, "block_k": 32, "warps": 4, "stages": 2, "splits": 2})
CONFIGS = [replace(config, params=config.params | {"tma": tma}) for config in (SMALL, WIDE, TALL_X) for tma in (0, 1)]


@pytest.mark.parametrize("spec", OURS, ids=name)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("workload", LAYERS, ids=name)
def test_launch_agrees_with_reference(spec: KernelSpec, workload: LinearWorkload, dtype: str) -> None:
    w = replace(workload, dtype=dtype)
    for config in CONFIGS:
        tensors = tensors_for(spec, w)
        got = spec.launch(w, config, tensors)()
        assert error(got["Y"], spec.reference(w, tensors, None)["Y"]) <= spec.tolerance(w)


@pytest.mark.parametrize("spec", OURS, ids=name)
def test_launch_takes_strides_as_given(spec: KernelSpec) -> None:
    """What lies between rows is NaN and stays out, and is not written."""
    w = LinearWorkload(batch=20, d_in=40, d_out=33, dtype="float32")
    tensors = tensors_for(spec, w)
    plain = dict(tensors)
    wides = {}
    for operand, tensor in plain.items():
        if operand == "Y_part":  # the kernel's own, contiguous
            continue
        wide = wides[operand] = tensor.new_full((tensor.shape[0], tensor.shape[1] + 8), float("nan"))
        wide[:, : tensor.shape[1]] = tensor
        tensors[operand] = wide[:, : tensor.shape[1]]
    got = spec.launch(w, SMALL, tensors)()
    assert error(got["Y"], spec.reference(w, plain, None)["Y"]) <= spec.tolerance(w)
    assert wides["Y"][:, w.d_out :].isnan().all()
