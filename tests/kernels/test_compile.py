"""The compile law: every kernel with every tuned row compiles for its capability without a GPU, within its limits."""

from __future__ import annotations

import os
import re
from functools import partial

import pytest

from kernels.contract import Compilation
from kernels.jit import compile_for, triton
from kernels.tuned import CPU, recorded, tables
from kernels.tuned.__main__ import variants

SRAM_LIMIT = {"sm_80": 163 * 1024, "sm_86": 99 * 1024, "sm_90": 227 * 1024}  # a block's most. Source: CUDA C guide, table 24
MEASURED = "sm_90"
MATRIX = {"sm_80": "HMMA", "sm_86": "HMMA", "sm_90": "HGMMA"}

CASES = [(name, c) for name in sorted(tables()) if name != CPU for c in variants(name)]


def hardest(cases: list[tuple[str, Compilation]]) -> list[tuple[str, Compilation]]:
    """Of each row's tiles on sm_90, which is measured, the variant with the widest head and most flags, and of each launch the
    plainest; on the others the one of each launch that takes most.

    `make compile` compiles all: some hundreds, of head dims, masks and ragged ends.
    """
    if os.environ.get("TILESCOPE_COMPILE") == "all":
        return cases
    launches: dict[tuple[str, str, str], list[Compilation]] = {}
    for table, c in cases:
        launches.setdefault((table, c.launch, c.key.split()[1]), []).append(c)
    chosen: list[tuple[str, Compilation]] = []
    for (table, _, _), found in launches.items():
        if table != MEASURED:
            chosen.append((table, max(found, key=partial(taken, table))))
            continue
        rows: dict[tuple[object, ...], list[Compilation]] = {}
        for c in found:
            tiles = (value for name, value in c.constants.items() if not (isinstance(value, bool) or name in ("D", "BLOCK_D")))
            rows.setdefault((*tiles, c.warps, c.stages), []).append(c)
        few = {c.key: c for c in (min(found, key=flags), *(max(alike, key=flags) for alike in rows.values()))}
        chosen += [(table, c) for c in few.values()]
    return chosen


def taken(table: str, compilation: Compilation) -> tuple[int, int]:
    """Of shared memory and registers, as it was recorded."""
    found = recorded(table).resources[compilation.key]
    return found.sram_bytes, found.registers


def flags(compilation: Compilation) -> tuple[int, int]:
    """Its head dim, and how many of its flags are set."""
    constants = compilation.constants
    return constants.get("D", 0), sum(value is True for value in constants.values())


@pytest.mark.parametrize(("table", "compilation"), hardest(CASES), ids=lambda v: v if isinstance(v, str) else v.key)
def test_compiles_within_its_limits(table: str, compilation: Compilation) -> None:
    capability = tables()[table].covers[0]
    found, sass = compile_for(compilation, capability)
    assert found.sram_bytes <= SRAM_LIMIT[table]
    assert found.registers <= 255
    if "dot" in compilation.kernel.src and "16-bit" in compilation.key:
        assert matrix(table, compilation) in sass
    if compilation.constants.get("TMA"):
        assert ("UTMALDG.2D" if compilation.launch == "linear" else "UTMALDG.4D") in sass
    if compilation.constants.get("TMA") and compilation.launch == "linear" and "HGMMA" in sass:
        assert "WARPGROUP.DEPBAR.LE gsb0, 0x1" in sass, "a product does not run while the next tiles are asked for"
    if compilation.constants.get("TMA") and compilation.launch == "scores":
        assert "UTMASTG.4D" in sass
    if compilation.kernel.is_gluon():  # the copy engine fetches and wgmma multiplies, P from registers, V or dO as it lies
        assert "UTMALDG.4D" in sass
        assert "UTMASTG.4D" in sass or compilation.constants.get("SHARED")
        backward = "sum_desc" in compilation.signature
        assert ("UTMAREDG.4D.ADD" in sass) == backward
        assert re.search(r"HGMMA\.64x\d+x16\.F32\.BF16 R\d+, R\d+, gdesc\[UR\d+\]\.tnspB", sass)
        assert backward or _softmax_comes_before_the_wait_for_its_product(sass)
    if triton.__version__ == recorded(table).triton:
        assert recorded(table).resources[compilation.key] == found


def _softmax_comes_before_the_wait_for_its_product(sass: str) -> bool:
    """In every loop: products issued, S awaited (one group may be left), exponentials, then P V awaited (none left)."""
    events = re.findall(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x[01]|MUFU\.EX2", sass)
    starts = [i for i, event in enumerate(events) if event.endswith("0x1")]
    return bool(starts) and all(
        sum(event == "MUFU.EX2" for event in events[i : events.index("WARPGROUP.DEPBAR.LE gsb0, 0x0", i)]) >= 32 for i in starts
    )


def matrix(table: str, compilation: Compilation) -> str:
    """The product's instruction: wgmma wants 64 rows of its tall operand, which is W in a layer."""
    tall = compilation.constants.get("BLOCK_N" if compilation.launch == "linear" else "BLOCK_M", 64)
    return MATRIX[table] if tall >= 64 else "HMMA"


def crowded(compilation: Compilation) -> bool:
    """flash_v1 above D 128 holds O as the matrix unit wants it and as it lies in HBM; a windowed backward pass of flash_hopper
    holds both edges of its mask beside S, dP, dK and dV: registers cannot."""
    constants = compilation.constants
    return (compilation.launch == "flash_v1" and constants["BLOCK_D"] > 128) or (
        compilation.launch == "flash_hopper_backward" and constants["WINDOW"])


def test_every_row_is_recorded_and_the_measured_ones_hardly_spill() -> None:
    for table, compilation in CASES:
        found = recorded(table).resources[compilation.key]
        exact = compilation.constants.get("PRECISION") == "ieee"  # float32, beside a cache that is read in pairs of 16 bits
        if table == "sm_90" and "16-bit" in compilation.key and not exact:
            most = 256 if crowded(compilation) else 128
            assert found.spill_bytes <= most, f"{compilation.key} spills {found.spill_bytes} bytes"
