"""The attention bench on small rows of this CPU: what it measures, what it refuses, how it is cut and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.__main__ import main
from engine.bench import grid
from engine.bench.attention import brief, refusals, run, table
from engine.bench.grid import Row
from engine.options import BadInput
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload
from tests.engine.fakes import CPU, fake

TINY = AttentionWorkload(batch=1, heads=2, kv_heads=1, seq=40, head_dim=32, dtype="float32")
ROWS = [Row("forward tiny", TINY, True), Row("forward tiny full", AttentionWorkload(
    batch=1, heads=2, kv_heads=2, seq=33, head_dim=32, dtype="float32", causal=False), True)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "_all", lambda: ROWS)


def bench(*arguments: str) -> Result:
    command = ["bench", "attention", "--seconds", "0.01", "--device", "cpu", *arguments]
    return CliRunner().invoke(main, command, standalone_mode=False)


def read(done: Result) -> list[dict[str, Any]]:
    assert done.exception is None, done.exception
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_grid_has_24_rows_a_pass_of_16k_tokens_and_names_that_are_its_own() -> None:
    rows = grid.rows()
    main_rows = [row.workload for row in rows if row.main]
    assert len(main_rows) == 48
    assert len({row.id for row in rows}) == len(rows)
    assert {(w.batch * w.seq, w.heads * w.head_dim) for w in main_rows} == {(16384, 2048)}
    assert {w.pass_ for w in main_rows} == {"forward", "backward"}


def test_rows_are_found_by_their_words() -> None:
    found = [row.id for row in grid.rows(("forward D128 causal N4096", "backward MQA"))]
    assert found == ["forward D128 causal N4096", "forward GQA 32:8 D128 causal N4096", "forward MQA 32:1 D128 causal N4096",
                     "backward MQA 32:1 D128 causal N4096"]


@pytest.mark.usefixtures("small")
def test_each_row_is_timed_checked_and_set_beside_the_best_peer() -> None:
    results = read(bench("--kernel", "flash", "--peers", "--json"))
    assert [result["row"] for result in results] == ["forward tiny", "forward tiny full"]
    for result in results:
        entries = {entry["kernel"]: entry for entry in result["entries"]}
        peers = [entry for entry in entries.values() if entry["role"] == "peer" and entry["tflops"]]
        assert max(entry["of_best_peer"] for entry in peers) == 1.0
        flash = entries["flash"]
        assert flash["of_best_peer"] == pytest.approx(flash["tflops"] / max(entry["tflops"] for entry in peers))
        assert flash["of_ceiling"] == pytest.approx(flash["tflops"] / result["ceiling_tflops"])
        assert flash["check"]["ok"]
        assert flash["time_us"]["n"] >= 1
        assert entries["sdpa_cudnn"]["refused"] == "SDPA cuDNN needs an NVIDIA GPU"
        assert result["l2_policy"] == "warm"


def test_a_wrong_kernel_has_no_speed_and_a_refusal_no_numbers() -> None:
    bad = fake("bad", error=0.5)
    (result,) = run([ROWS[0]], [bad, fake("good"), catalog()["sdpa_cudnn"]], CPU, 0.01, {})
    wrong, good, refused = result.entries
    assert (wrong.tflops, wrong.refused) == (None, "its output is wrong")
    assert good.tflops
    assert refused.refused == "SDPA cuDNN needs an NVIDIA GPU"
    assert brief(result).startswith("bad WRONG, good ")
    assert "| n/a |" in table([result])
    assert refusals([result, result]) == [
        "bad: its output is wrong (2 of 2 rows)", "sdpa_cudnn: SDPA cuDNN needs an NVIDIA GPU (2 of 2 rows)"]


def test_one_wrong_row_anywhere_is_found() -> None:
    (result,) = run([ROWS[0]], [fake("bad", rows=39)], CPU, 0.01, {})
    assert not result.entries[0].check or not result.entries[0].check.ok


@pytest.mark.usefixtures("small")
def test_a_bench_that_was_cut_goes_on(tmp_path: Path) -> None:
    record = tmp_path / "bench.jsonl"
    first = read(bench("--kernel", "flash", "--only", "full", "--record", str(record), "--json"))
    done = bench("--kernel", "flash", "--record", str(record), "--json")
    assert [result["row"] for result in read(done)] == ["forward tiny full", "forward tiny"]
    assert read(done)[0] == first[0]
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "on a CPU a kernel takes minutes for a large row", "forward tiny"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("other", [("--kernel", "naive"), ("--kernel", "flash", "--set", "block_m=64")])
def test_a_record_of_other_kernels_or_parameters_is_refused(tmp_path: Path, other: tuple[str, ...]) -> None:
    record = tmp_path / "bench.jsonl"
    bench("--kernel", "flash", "--set", "block_m=32", "--only", "full", "--record", str(record))
    before = record.read_bytes()
    assert "has rows of other kernels" in str(bench(*other, "--record", str(record)).exception)
    assert record.read_bytes() == before


@pytest.mark.usefixtures("small")
def test_a_file_that_is_no_record_is_one_sentence_and_stays(tmp_path: Path) -> None:
    record = tmp_path / "notes.txt"
    record.write_text("my notes\n")
    done = bench("--record", str(record))
    assert "is no record of this bench" in str(done.exception)
    assert record.read_text() == "my notes\n"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("arguments", "said"), [
    (("--only", "D127"), "no row holds 'D127'"), (("--kernel", "flush"), "there is no kernel 'flush'"),
    (("--set", "block_z=3"), "no such field or kernel parameter"), (("--device", "cuda:9"), "there is no device 'cuda:9'"),
    (("--kernel", "flash", "--set", "block_m=7"), "block_m of flash cannot be 7: choose 16, 32, 64 or 128"),
])
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = bench(*arguments)
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.usefixtures("small")
def test_the_table_has_the_means() -> None:
    done = bench("--kernel", "flash", "--peers")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| row | flash | ")
    assert any(line.startswith("forward: best of ours over sdpa_math: geometric mean") for line in lines)
