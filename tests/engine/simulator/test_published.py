"""Tables of published and measured figures: the shipped ones are sane, a wrong file is one sentence with its field."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.bench import published
from engine.bench.published import Row, TableError
from engine.bench.whole_models import Generation
from engine.simulator import spec
from kernels.contract import AttentionWorkload
from tests.engine.simulator.test_spec import toml

ROOT = Path(__file__).parents[3]
TABLES = {table.id: table for table in published.load()}
SMALL: dict[str, Any] = {
    "title": "Made up", "origin": "published", "source": "nobody", "device": "h200-sxm", "unit": "us", "date": "2026-11",
    "common": {"kernel": "split_kv", "seq": 1, "heads": 32, "kv_heads": 8, "head_dim": 128},
    "rows": [{"batch": 1, "seq_kv": [4096, 65536], "value": [7.4, "out of memory"]}],
}
WHOLE: dict[str, Any] = {"common": {"family": "decoding", "kernel": "ours"}, "rows": [{"value": 1, "model": "gpt2"}]}
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(folder: Path, changes: Mapping[str, Any], without: str = "") -> Path:
    """A file like the made-up table but for some fields."""
    path = folder / "mine.toml"
    values = {key: value for key, value in (SMALL | dict(changes)).items() if key != without}
    path.write_text("".join(f"{toml(key)} = {toml(value)}\n" for key, value in values.items()), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(TableError) as error:
        published.read(path)
    said = str(error.value)
    assert said.startswith("mine.toml: ")
    assert said.isprintable()
    return said.removeprefix("mine.toml: ")


# --- the tables -----------------------------------------------------------------------------------------------------


def test_every_file_is_a_table_and_those_of_others_come_first() -> None:
    there = [path.name for path in (files("assets") / "published").iterdir()]
    assert {f"{name}.toml" for name in TABLES} == set(there) - {"head.md"}
    assert [table.origin for table in TABLES.values()] == sorted((table.origin for table in TABLES.values()), reverse=True)


def test_every_row_stands_once_and_no_constant_was_chosen_from_any_but_a_host_from_its_own() -> None:
    for table in TABLES.values():
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names)
        assert [row.name for row in table.rows if row.chosen_from] == (
            ["transformers gpt2 dense float32 B1 6+1000"] if table.id == "t4-generate" else [])


def test_rows_of_one_hidden_size_have_16k_tokens() -> None:
    for name in ("fa3-h100", "fa2-h100", "fa2-a100-d64", "fa2-a100-d128", "h200-forward", "h200-backward"):
        for row in TABLES[name].rows:
            w = row.workload
            assert isinstance(w, AttentionWorkload)
            assert (w.batch * w.seq, w.heads * w.head_dim, w.kv_heads) == (16384, 2048, w.heads)


def test_no_published_speed_is_above_the_peak() -> None:
    for table in TABLES.values():
        device = spec.resolve(table.device)
        for row in table.rows:
            if table.unit == "tflops" and isinstance(row.value, float):
                assert row.value < (device.peak_tflops(row.workload.dtype) or 0)


def test_the_fit_is_what_its_formula_gives() -> None:
    for row in TABLES["decode-fit-h200"].rows:
        assert isinstance(row.workload, AttentionWorkload)
        cache = row.workload.kv_cache_bytes()
        assert cache > 134e6
        assert row.value == pytest.approx(12 + cache / 4.5e6, abs=0.06)


def documented(start: str, end: str) -> list[list[str]]:
    """Cells of the tables in a part of docs/performance.md."""
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    part = text[text.index(start):text.index(end, text.index(start))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]


def measured(id: str) -> dict[tuple[str, str], float | str]:
    """Of a table the values by kernel and the name that docs/performance.md gives the row."""
    found: dict[tuple[str, str], float | str] = {}
    for row in TABLES[id].rows:
        w = row.workload
        if isinstance(w, Generation):
            name = w.name
        elif not isinstance(w, AttentionWorkload):
            name = f"{w.batch} {w.d_in}"
        elif w.seq == 1:
            name = f"{w.sharing} B{w.batch} N{w.keys}"
        elif id.startswith("h200-bytes"):
            heads = f"{w.heads}" if w.group == 1 else f"{w.heads}:{w.kv_heads}"
            name = f"B{w.batch} H{heads} D{w.head_dim} {'causal' if w.causal else 'full'} N{w.seq}"
            name = f"backward {name}" if row.passes == "backward" else name
        else:
            name = f"D{w.head_dim} {'causal' if w.causal else 'full'} N{w.seq}"
            name = f"{row.passes} {name}" if id == "h200-single" else name
        found[row.kernel, name] = row.value
    return found


def number(cell: str) -> float | str:
    return float(cell) if re.fullmatch(r"[\d.]+", cell) else cell


def in_grid(start: str, end: str, kernels: int) -> dict[tuple[str, str], float | str]:
    header, *lines = documented(start, end)
    return {(kernel, line[0]): number(cell) for line in lines if re.match(r"D\d+ (full|causal) N\d+$", line[0])
            for kernel, cell in zip(header[1: 1 + kernels], line[1:], strict=False)}


def test_measured_tables_are_those_of_the_document() -> None:
    assert measured("h200-forward") == in_grid("### Forward", "### Backward", 4)
    assert measured("h200-backward") == in_grid("### Backward", "\n## ", 2)
    header, _, *lines = documented("## Decode attention", "\n## Whole")
    assert measured("h200-decode") == {
        (kernel, line[0]): float(re.findall(r"\(([\d.]+) µs\)", cell)[0])
        for line in lines for kernel, cell in zip(header[1:5], line[1:], strict=False)}
    _, _, *lines = documented("## Batches", "The knee")
    assert measured("h200-linear") == {
        ("batched_linear", f"{line[0]} {width}"): float(line[column])
        for line in lines for width, column in ((4096, 1), (8192, 3))}
    _, _, *lines = documented("## Whole models", "Without a cache")
    assert list(measured("h200-generate").values()) == [float(line[3].replace(",", "")) for line in lines]
    _, _, *lines = documented("Steps of several", "The fused layers")
    fused = {line[0]: int(line[0]) <= 32 for line in lines}  # beyond them torch's
    assert measured("h200-steps") == {
        ("ours", f"{model} dense {dtype} B{line[0]} 512+1"): float(line[column + (not fused[line[0]])])
        for line in lines for column, model, dtype in ((1, "llama-3-8b", "bfloat16"), (3, "gpt2", "float16"))}
    _, _, *lines = documented("## Bytes, counted", "\n## Programs that drift")
    assert measured("h200-bytes") | measured("h200-bytes-more") == {(line[1], line[0]): float(line[2]) for line in lines}
    header, _, *lines = documented("## Single launches", "\nHeld for a second")
    assert measured("h200-single") == {
        (kernel, line[0]): float(cell.split()[0]) for line in lines for kernel, cell in zip(header[1:], line[1:], strict=True)}
    assert [row.clock_mhz for row in TABLES["h200-single"].rows if row.kernel == "flash"] == [
        float(line[1].split()[1].strip("()")) for line in lines]


# --- wrong files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "says"), [
    ({"device": "h300"}, "device: there is no simulated GPU 'h300': choose from "),
    ({"unit": "flops"}, "unit: invalid enum value 'flops'"),
    ({"origin": "measured"}, "command: what was measured needs it"),
    ({"date": "July"}, "date: 'July' is none: write "),
    ({"clock_mhz": math.nan}, "clock_mhz: nan is out of range: choose from 100 to 20,000"),
    ({"colour": "red"}, "colour: there is no such field"),
    ({"rows": []}, "rows: there must be 1 to 4,096"),
    ({"rows": [{"value": 1}, {"value": 0}]}, "rows[1].value: 0 is out of range: choose a number above 0"),
    ({"rows": [{"value": math.inf}]}, "rows[0].value: inf is out of range"),
    ({"rows": [{"value": " "}]}, "rows[0].value: a text must be one line"),
    ({"rows": [{"value": [1, 2], "seq_kv": [1, 2, 3]}]}, "rows[0]: lists must be of one length: value has 2, seq_kv has 3"),
    ({"rows": [{"value": 1, "seq_kv": [1, 2]}]}, "rows[0].value: give one for each of seq_kv"),
    ({"rows": [{"seq_kv": 1}]}, "rows[0].value: it is missing"),
    ({"rows": [{"value": 1, "heads": 3}]}, "rows[0].workload: heads 3 is not a multiple of kv-heads 8"),
    ({"rows": [{"value": 1, "head": 3}]}, "rows[0].head: there is no such field"),
    ({"rows": [{"value": 1, "pass": "backward"}]}, "rows[0].pass: there is no such field"),
    ({"rows": [{"value": 1, "passes": "sideways"}]}, "rows[0].passes: invalid enum value 'sideways'"),
    ({"rows": [{"value": 1, "family": "recurrent"}]}, "rows[0].family: choose from attention, linear, decoding"),
    (WHOLE, "unit: us is none of a whole model"),
    (WHOLE | {"unit": "s", "rows": [{"value": 1, "model": "gpt3"}]}, "rows[0].workload: there is no model 'gpt3': choose "),
    (WHOLE | {"unit": "s", "rows": [{"value": 1, "model": "gpt2", "new": 2000}]}, "rows[0].workload: 16 tokens of prompt and "),
    (WHOLE | {"unit": "s", "rows": [{"value": 1, "model": "gpt2", "host_ms": -1}]}, "rows[0].workload.host_ms: expected "),
    (WHOLE | {"unit": "s", "rows": [{"value": 1, "model": "gpt2", "passes": "backward"}]},
     "rows[0].passes: decoding has a forward pass alone"),
    ({"unit": "tokens_per_s"}, "unit: tokens_per_s is none of a kernel"),
    ({"common": {"family": "linear", "kernel": "k"}, "rows": [{"value": 1, "passes": "backward"}]},
     "rows[0].passes: a linear layer has a forward pass alone"),
    ({"aims": {"flash": 8}}, "aims: no row is of 'flash'"),
    ({"aims": {"split_kv": -8}}, "aims: -8 is out of range: choose from 0 to 1,000"),
])
def test_a_wrong_file_is_one_sentence_with_its_field(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert refusal(write(tmp_path, changes)).startswith(says)


@pytest.mark.parametrize("name", ["title", "origin", "source", "device", "unit", "rows"])
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    assert refusal(write(tmp_path, {}, without=name)) == f"{name}: it is missing"


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for data in (b"rows = [", b"\xff", b"a = " + b"[" * 5000):
        path.write_bytes(data)
        assert refusal(path)
    path.unlink()
    assert refusal(path) == "cannot be read: No such file or directory"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(datetime.date(2026, 11, 1)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4), max_leaves=8)
NAMES = st.sampled_from([*SMALL, "clock_mhz", "cold", "causal_flops", "aims", "note", "command"])
ROW_NAMES = st.sampled_from([
    "kernel", "passes", "params", "value", "chosen_from", "family", "batch", "seq", "heads", "dtype", "causal", "model", "new"])


def writable(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {key: writable(item) for key, item in value.items()}
    return [writable(item) for item in value] if isinstance(value, list) else "none" if value is None else value


def taken(path: Path) -> str:
    """The sentence with which a file is refused; empty where it is taken, and then it has rows."""
    try:
        found = published.read(path)
    except TableError as error:
        return str(error) if str(error).isprintable() else f"no sentence: {error!r}"
    return "" if found.rows and all(isinstance(row, Row) for row in found.rows) else "no rows"


@in_one_folder
@given(name=NAMES, value=VALUES)
def test_any_value_of_any_field_is_taken_or_refused_in_a_sentence(tmp_path: Path, name: str, value: Any) -> None:
    said = taken(write(tmp_path, {name: writable(value)}))
    assert said == "" or said.startswith("mine.toml: ")


@in_one_folder
@given(row=st.dictionaries(ROW_NAMES | st.text(max_size=9), VALUES, max_size=4))
def test_any_row_is_taken_or_refused_in_a_sentence(tmp_path: Path, row: dict[str, Any]) -> None:
    said = taken(write(tmp_path, {"rows": [{"value": 1} | writable(row)]}))
    assert said == "" or said.startswith("mine.toml: rows")
