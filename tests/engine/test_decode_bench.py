"""The decode bench on small caches of this CPU: what it measures, what it compares, how it is cut and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from engine.__main__ import main
from engine.bench import ceilings, decode
from engine.bench.grid import Row
from engine.checking import check
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload
from tests.kernels.shapes import tensors_for

TINY = AttentionWorkload(batch=2, heads=4, kv_heads=2, seq=1, seq_kv=60, head_dim=32, dtype="bfloat16", causal=False)
ROWS = [Row("GQA tiny", TINY, True), Row("MHA tiny", replace(TINY, kv_heads=4, seq_kv=33), True)]


all_rows = decode.rows


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "rows", lambda only: [row for row in ROWS if not only or row.id in only])
    monkeypatch.setattr(ceilings, "HOST_BYTES", 1 << 20)


def bench(*arguments: str) -> Result:
    command = ["bench", "decode", "--seconds", "0.01", "--device", "cpu", *arguments]
    return CliRunner().invoke(main, command, standalone_mode=False)


def read(done: Result) -> list[dict[str, Any]]:
    assert done.exception is None, done.exception
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_all_of_ours_are_timed_checked_and_set_beside_the_best_peer() -> None:
    results = read(bench("--peers", "--json"))
    assert [result["row"] for result in results] == ["GQA tiny", "MHA tiny"]
    for result in results:
        entries = {entry["kernel"]: entry for entry in result["entries"]}
        assert {"dense", "split_kv", "paged", "int8", "fp8", "sdpa_flash"} <= set(entries)
        assert "flash" not in entries
        assert "an NVIDIA GPU" in entries["sdpa_cudnn"]["refused"]
        timed = [entry for entry in entries.values() if entry["time_us"]]
        assert all(entry["check"]["ok"] for entry in timed)
        peer = min(entry["time_us"]["p50"] for entry in timed if entry["role"] == "peer")
        for entry in timed:
            assert entry["of_best_peer"] == pytest.approx(peer / entry["time_us"]["p50"])
            assert entry["of_ceiling"] == pytest.approx(entry["tb_per_s"] / result["ceiling_tb_per_s"])
            assert entry["tb_per_s"] == pytest.approx(entry["cache_bytes"] / entry["time_us"]["p50"] / 1e6)


def test_what_is_read_of_a_cache_is_its_own_size() -> None:
    result, _ = read(bench("--json"))
    read_of = {entry["kernel"]: entry["cache_bytes"] for entry in result["entries"]}
    tokens, heads = 2 * 60, 2
    assert read_of["dense"] == read_of["split_kv"] == TINY.kv_cache_bytes() == 2 * tokens * heads * 32 * 2
    assert read_of["paged"] == TINY.kv_cache_bytes() + 4 * 2 * 4
    assert read_of["int8"] == read_of["fp8"] == 2 * tokens * heads * (32 + 4)


def test_the_best_of_ours_has_a_cache_in_full_precision() -> None:
    for result in msgspec.convert(read(bench("--json")), list[decode.Result]):
        ours = decode.best_of(result)
        assert ours is not None
        assert ours.kernel in ("dense", "split_kv", "paged")


def test_a_table_says_what_smaller_caches_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LARGE_BYTES", 1)
    done = bench("--only", "GQA tiny")
    assert done.exception is None
    assert done.stdout.startswith("| cache | dense | ")
    assert "int8 over split_kv, caches of 1 GB or more: " in done.stdout
    assert "L2 warm; a plain kernel reads " in done.stdout


def test_a_bench_that_was_cut_goes_on(tmp_path: Path) -> None:
    record = tmp_path / "rows.jsonl"
    first = read(bench("--record", str(record), "--only", "MHA tiny", "--json"))
    both = read(bench("--record", str(record), "--json"))
    assert both[0] == first[0]
    assert [result["row"] for result in both] == ["MHA tiny", "GQA tiny"]


def test_a_whole_check_of_one_query_holds_no_more_than_that_of_a_live_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long caches are compared some heads at a time, and every head is."""
    w = replace(TINY, heads=64, kv_heads=1, seq_kv=4000, dtype="float32")
    spec = catalog()["sdpa_math"]
    tensors = tensors_for(spec, w)
    monkeypatch.setattr("engine.memory.CHECK_CHUNK_BYTES", 1 << 22)
    seen: list[int] = []
    plain = spec.reference

    def watched(workload: AttentionWorkload, *rest: Any) -> Any:
        seen.append(workload.batch * workload.heads)
        return plain(workload, *rest)

    watching = type(spec)(**{name: getattr(spec, name) for name in spec.__slots__} | {"reference": watched})
    outputs = {"O": plain(w, tensors, None)["O"].float()}
    assert check(watching, w, tensors, outputs, whole=True).ok
    assert sum(seen) == 2 * 64
    assert max(seen) < 64
    outputs["O"][1, 63, 0, 5] += 1
    assert not check(watching, w, tensors, outputs, whole=True).ok


def test_the_rows_are_the_15_caches() -> None:
    found = all_rows()
    assert len({row.id for row in found}) == len(found) == 15
    assert {(w.heads, w.head_dim, w.seq, w.dtype) for _, w, _ in found} == {(32, 128, 1, "bfloat16")}
    assert sum(w.kv_cache_bytes() >= decode.LARGE_BYTES for _, w, _ in found) == 6
    assert [row.workload.sharing for row in all_rows(("GQA B16", "MQA B1 N65536"))] == ["GQA", "GQA", "MQA"]


def test_run_of_one_query_takes_decode_kernels() -> None:
    shape = ["--seq", "1", "--seq-kv", "50", "--heads", "4", "--head-dim", "32"]
    command = ["run", "--device", "cpu", *shape, "--seconds", "0.05", "--json"]
    done = CliRunner().invoke(main, command, standalone_mode=False)
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    assert [one["kernel"] for one in found][:2] == ["dense", "split_kv"]
    assert all(one["check"]["ok"] for one in found)
