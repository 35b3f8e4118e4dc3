"""Figures for other programs: CSV as any reader of it takes it, and the same table for the clipboard."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.configuration import Configuration
from app.tables import as_csv, as_tabs, table
from tests.app import feed
from tests.app.test_configuration import configurations, shown

TAKEN = shown(*feed.run(("naive", "flash", "sdpa_math"), seconds=1))
COLUMNS, ROWS = table(TAKEN)
UNITS = ("_ns", "_bytes", "_tokens", "tflops")
PURE = {  # names, words, and counts of things
    "kernel", "title", "samples", "time_provenance", "time_source", "l2_policy", "hbm_is_lower_bound", "bytes_provenance",
    "peak_memory_provenance", "check_ok", "limiter", "predicted_error", "check_max_error", "check_tolerance", "note",
    "device", "device_name", "batch", "heads", "kv_heads", "head_dim", "dtype", "causal", "pass",
}
odd = st.text(max_size=12) | st.text(st.sampled_from(',"\n\r\t;=# é'), max_size=12)


def read(taken: Configuration) -> list[list[str]]:
    """The rows of a CSV file, comment and header first."""
    return list(csv.reader(io.StringIO(as_csv(taken).decode("utf-8-sig"), newline=""), strict=True))


def test_a_row_a_kernel_beneath_a_comment_and_a_header() -> None:
    comment, header, *rows = read(TAKEN)
    assert comment[0].startswith("# Tilescope · attention lab · batch 4 · sequence")
    assert set(comment[1:]) == {""}
    assert [row[header.index("kernel")] for row in rows] == ["naive", "flash", "sdpa_math"]
    assert {len(row) for row in (comment, header, *rows)} == {len(COLUMNS)}


def test_every_column_with_a_dimension_has_its_unit_in_its_name() -> None:
    assert {name for name in COLUMNS if not name.endswith(UNITS)} == PURE
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_figures_are_whole() -> None:
    row = dict(zip(COLUMNS, read(TAKEN)[3], strict=True))
    flash = TAKEN.measured[1]
    assert float(row["time_p50_ns"]) == flash.time_p50_ns
    assert int(row["hbm_read_bytes"]) == flash.hbm_read_bytes
    assert (row["seq_tokens"], row["causal"], row["check_ok"], row["device_name"]) == ("4096", "true", "true", "NVIDIA H200")


def test_a_missing_number_is_an_empty_cell() -> None:
    silent = shown(feed.hello(), feed.planned())
    row = dict(zip(COLUMNS, read(silent)[2], strict=True))
    assert {row[name] for name in ("time_p20_ns", "time_p50_ns", "tflops", "check_ok", "time_provenance")} == {""}
    assert row["samples"] == "0"
    opaque = dict(zip(COLUMNS, read(TAKEN)[4], strict=True))
    assert (opaque["tile_bytes"], opaque["hbm_is_lower_bound"], opaque["bytes_provenance"]) == ("", "true", "modelled")


def test_without_a_kernel_the_columns_remain() -> None:
    assert read(replace(TAKEN, measured=()))[1:] == [COLUMNS]
    assert as_tabs(replace(TAKEN, measured=())) == "\t".join(COLUMNS) + "\n"


def test_lines_end_as_rfc_4180_has_it_and_the_encoding_is_told() -> None:
    raw = as_csv(TAKEN)
    assert raw.startswith(b"\xef\xbb\xbf#")
    assert raw.count(b"\n") == raw.count(b"\r\n") == 5


def renamed(taken: Configuration, name: str) -> Configuration:
    machine = replace(feed.H200, name=name)
    return replace(taken, machine=machine, measured=tuple(replace(row, note=name) for row in taken.measured))


@given(odd)
def test_any_text_comes_back_from_csv(name: str) -> None:
    header, *rows = read(renamed(TAKEN, name))[1:]
    for row in rows:
        assert row[header.index("device_name")] == name
        assert row[header.index("note")] == name


@given(configurations)
def test_every_configuration_makes_one_table(taken: Configuration) -> None:
    assert {len(row) for row in read(taken)} == {len(COLUMNS)}
    assert len(read(taken)) == 2 + len(taken.measured)


@given(odd)
def test_the_clipboard_has_the_same_cells(name: str) -> None:
    header, *rows = [line.split("\t") for line in as_tabs(renamed(TAKEN, name)).removesuffix("\n").split("\n")]
    assert header == COLUMNS
    for row, whole in zip(rows, read(renamed(TAKEN, name))[2:], strict=True):
        assert row == [cell.translate(str.maketrans("\t\r\n", "   ")) for cell in whole]
