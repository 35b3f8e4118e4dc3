"""The layers of a decoding model agree with plain torch in float64: odd sizes, strides, NaN between rows and in outputs."""

from __future__ import annotations

import os
from itertools import product
from typing import Any

import pytest
import torch

from kernels.linear.fused import Activation, Norm, Tiles, bind
from tests.kernels.layers import check, layer

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1 (make test)")

ROW = Tiles(0, 4, 64, 4)
SEVERAL = Tiles(16, 16, 32, 4, 2)
SIZES = [(64, 8), (100, 7), (33, 20), (160, 33)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("d_in", "d_out"), SIZES)
@pytest.mark.parametrize("rows", [1, 2, 5, 18])
def test_a_product(rows: int, d_in: int, d_out: int, dtype: torch.dtype) -> None:
    check(layer(rows, d_in, d_out, dtype), tiles=SEVERAL if rows > 1 else ROW)


@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh", "swiglu"])
@pytest.mark.parametrize("norm", ["none", "layernorm", "layernorm without bias", "rmsnorm"])
@pytest.mark.parametrize("rows", [1, 3])
def test_what_is_done_before_and_after(rows: int, norm: str, activation: Activation) -> None:
    for bias, residual in product((False, True), repeat=2):
        given = layer(rows, 100, 19, torch.float32, norm=norm, activation=activation, bias=bias, residual=residual)
        check(given, tiles=SEVERAL if rows > 1 else ROW)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_tiles_that_are_chosen(rows: int) -> None:
    check(layer(rows, 96, 40, torch.float32, norm="layernorm", activation="gelu_tanh", bias=True, residual=True))


@pytest.mark.parametrize("rows", [1, 4])
def test_gate_and_up_apart_or_stacked(rows: int) -> None:
    given = layer(rows, 64, 24, torch.float32, norm="rmsnorm", activation="swiglu")
    gate, up = given.pop("w").chunk(2)
    check({**given, "w": (gate.clone(), up.clone())}, tiles=SEVERAL if rows > 1 else ROW)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_output_may_be_the_residual_and_a_call_may_be_repeated(rows: int) -> None:
    given = layer(rows, 64, 24, torch.float32, residual=True)
    stream = given["residual"].clone()
    run = bind(given["x"], given["w"], stream, residual=stream, tiles=SEVERAL if rows > 1 else ROW)
    run(), run()
    wanted = given["residual"].double() + 2 * (given["x"].double() @ given["w"].double().mT)
    torch.testing.assert_close(stream.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_row_far_from_zero_is_normalised_exactly(rows: int) -> None:
    """A mean of a thousand deviations: the sum of squares less the square of the mean would have lost all digits."""
    given = layer(rows, 128, 8, torch.float32, norm="layernorm")
    check({**given, "x": given["x"] + 1000.0}, tiles=SEVERAL if rows > 1 else ROW, tolerance=1e-3)


WRONG: dict[str, dict[str, Any]] = {
    "W's second half is": {"w": (torch.zeros(8, 64), torch.zeros(9, 64)), "activation": "swiglu"},
    "bias is": {"bias": torch.zeros(9)},
    "norm weight is": {"norm": Norm(torch.zeros(63), 1e-5)},
    "residual must be torch.float32": {"residual": torch.zeros(1, 8, dtype=torch.float16)},
    "W must be torch.float32": {"w": torch.zeros(64, 8).mT},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_does_not_fit_is_refused(sentence: str) -> None:
    given: dict[str, Any] = {"w": torch.zeros(8, 64), **WRONG[sentence]}
    with pytest.raises(ValueError, match=sentence):
        bind(torch.zeros(1, 64), given.pop("w"), torch.zeros(1, 8), **given)


def test_a_row_too_wide_to_be_normalised_is_refused() -> None:
    x, w = torch.zeros(1, 16385), torch.zeros(2, 16385)
    with pytest.raises(ValueError, match="16385 cannot be normalised"):
        bind(x, w, torch.zeros(1, 2), norm=Norm(torch.zeros(16385), 1e-5))
