"""The tables: which row serves, and how a search's findings are put among the rows."""

from __future__ import annotations

import tomllib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Device, KernelSpec
from kernels.tuned import Row, Tuned, serving, tables
from kernels.tuned.edit import Cell, additions, cell_of, edited, path_of, with_cells
from tests.kernels.shapes import CPU, H200

LONGEST = 1 << 20


def parameters(rows: list[Row], head_dim: int, keys: int, causal: bool) -> dict[str, int]:
    row = serving(rows, head_dim, 2, keys, causal)
    return row.params | row.more


def test_a_row_of_one_mask_comes_before_one_of_both() -> None:
    both, own = Row(128, 2, 64, 64), Row(128, 2, 32, 32, causal=True)
    for rows in ([both, own], [own, both]):
        assert serving(rows, 128, 2, 100, True) == own
        assert serving(rows, 128, 2, 100, False) == both


@pytest.mark.parametrize("table", tables())
def test_a_table_without_changes_is_written_as_it_was(table: str) -> None:
    text = path_of(table).read_text()
    assert edited(text, {}) == text
    assert additions(text, text) == ""


def test_a_change_is_one_new_row_and_the_rest_stays_as_written() -> None:
    text = path_of("sm_90").read_text().replace("[[kernels.flash_v1]]", "# a note\n[[kernels.flash_v1]]", 1)
    cell = cell_of("sm_90", "flash_hopper", AttentionWorkload(head_dim=64, seq=512, causal=True))
    after = edited(text, {cell: {"block_m": 64, "block_n": 128, "stages": 2, "pingpong": 0}})
    assert additions(text, after) == (
        "[[kernels.flash_hopper]]\nhead_dim = 64\nitemsize = 2\nblock_m = 64\nblock_n = 128\nstages = 2\n"
        "keys = 2048\ncausal = true\nmore = { pingpong = 0 }")
    assert after.replace(additions(text, after) + "\n\n", "") == text


def test_a_cell_changes_nothing_of_the_bracket_below() -> None:
    rows = list(tables()["sm_90"].kernels["naive"])  # one row for D 64 and 128 alike
    cell = cell_of("sm_90", "naive", AttentionWorkload(head_dim=64, seq=8192))
    placed = with_cells(rows, {cell: {"block_m": 64, "block_n": 32, "warps": 8, "stages": 2}})
    assert parameters(placed, 64, 2048, True) == parameters(rows, 64, 2048, True)
    assert parameters(placed, 64, 2049, True)["block_n"] == 32
    assert parameters(placed, 128, 8192, True) == parameters(rows, 128, 8192, True)


def test_cells_that_agree_stand_in_one_row() -> None:
    rows = list(tables()["sm_90"].kernels["flash"])
    found = {"block_m": 16, "block_n": 16, "warps": 4, "stages": 1}
    cells = {cell_of("sm_90", "flash", AttentionWorkload(head_dim=128, seq=seq, causal=causal)): found
             for seq in (512, 8192) for causal in (True, False)}
    placed = with_cells(rows, cells)
    assert [row for row in placed if row.head_dim == 128 and row.itemsize == 2] == [Row(128, 2, 16, 16, 4, 1)]


head_dims, limits, masks = st.sampled_from([32, 64, 128]), st.sampled_from([0, 512, 2048]), st.sampled_from([None, True, False])
some_rows = st.lists(st.builds(Row, head_dims, st.just(2), st.sampled_from([16, 32]), st.just(16), keys=limits, causal=masks),
                     max_size=6)
changes = st.dictionaries(st.tuples(head_dims, limits, st.booleans()), st.sampled_from([16, 32, 64]), max_size=6)


@given(some_rows, changes)
def test_a_cell_has_what_was_found_and_the_rest_what_it_had(rows: list[Row], found: dict[tuple[int, int, bool], int]) -> None:
    rows = [*rows, Row(128, 2, 128, 16)]
    known = {head_dim: {0, 2048} | {r.keys for r in rows if r.head_dim >= head_dim} for head_dim in (32, 64, 128)}
    cells = {Cell(kernel="k", rows="k", head_dim=d, itemsize=2, causal=causal, keys=keys): {"block_m": value}
             for (d, keys, causal), value in found.items() if keys in known[d]}
    placed = with_cells(rows, cells)
    changed = {(cell.head_dim, cell.keys, cell.causal): params["block_m"] for cell, params in cells.items()}
    for head_dim in {cell.head_dim for cell in cells}:
        for keys in known[head_dim]:
            for causal in (False, True):
                before, now = (parameters(r, head_dim, keys or LONGEST, causal)["block_m"] for r in (rows, placed))
                assert now == changed.get((head_dim, keys, causal), before)


def test_what_is_written_reads_as_rows() -> None:
    text = path_of("sm_90").read_text()
    cell = cell_of("sm_90", "flash", AttentionWorkload(head_dim=64, seq=512, causal=True, pass_="backward"))
    after = msgspec.convert(tomllib.loads(edited(text, {cell: {"block_m": 16, "warps": 8}})), Tuned)
    row = serving(after.kernels["flash_backward"], 64, 2, 512, True)
    assert (row.block_m, row.block_n, row.warps, row.stages) == (16, 64, 8, 2)
    assert after.covers == tables()["sm_90"].covers


@pytest.mark.parametrize("spec", [spec for spec in catalog().values() if spec.info.params], ids=lambda spec: spec.id)
@pytest.mark.parametrize("device", [CPU, H200], ids=lambda device: device.kind)
def test_every_parameter_of_a_pass_is_in_its_configuration(spec: KernelSpec, device: Device) -> None:
    for pass_ in spec.info.passes:
        attention = AttentionWorkload(seq=512, head_dim=64, pass_=pass_)
        config = spec.configure(attention if isinstance(attention, spec.kind) else spec.kind(), device)
        assert {param.name for param in spec.info.params_of(pass_)} <= set(config.params)
