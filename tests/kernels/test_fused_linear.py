"""The layers of a decoding model compile for Hopper without a GPU: wide loads, all of a program's first before x, no spills."""

from __future__ import annotations

import re

import pytest

from kernels.jit import compile_for
from kernels.linear.fused import Layer, compilations, configure

LAYERS = [
    Layer(1, 768, 768, "float16", bias=True, residual=True, overlap=True),
    Layer(1, 768, 3072, "float16", "gelu_tanh", "centred", shift=True, bias=True),
    Layer(1, 4096, 6144, "bfloat16", norm="root mean square", overlap=True),
    Layer(1, 4096, 14336, "bfloat16", "swiglu", "root mean square"),
    Layer(1, 14336, 4096, "bfloat16", residual=True, overlap=True),
    Layer(8, 4096, 14336, "bfloat16", "swiglu", "root mean square", overlap=True),
    Layer(16, 768, 768, "float16", bias=True, residual=True),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_compiles_as_it_is_meant(layer: Layer) -> None:
    for compilation in compilations(layer):
        found, sass = compile_for(compilation, (9, 0))
        assert found.spill_bytes == 0
        assert found.sram_bytes <= 227 * 1024
        if compilation.launch == "several_rows":
            assert "LDGSTS.E.BYPASS" in sass
            assert re.search(r"HGMMA|HMMA", sass)
        if compilation.launch == "one_row":
            tiles = configure(1, layer.d_in, layer.d_out, 2, layer.gated)
            loads = tiles.block_n * min(tiles.block_k, layer.d_in) * (2 if layer.gated else 1) // (8 * 32 * tiles.warps)
            asked = sass.split("ACQBULK")[0] if layer.overlap else sass
            assert len(re.findall(r"LDG\.E\.EF\S*\.128", asked)) >= loads >= 1


def test_tiles_fit_the_device() -> None:
    assert configure(8, 4096, 14336, 2, gated=True, sms=82, sram_bytes=99 << 10).stages == 2
    assert configure(1, 768, 768, 2).block_n * 132 < 768
    assert configure(1, 4096, 128256, 2).block_n == 4
