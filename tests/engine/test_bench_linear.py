"""The linear bench on small rows of this CPU, and the knee: predicted from two roofs, fitted to times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.__main__ import main
from engine.batching.work import fitted
from engine.bench import linear_rows
from engine.bench.knees import knees, predicted
from engine.bench.linear import brief, copies, report, run, table
from engine.bench.linear_rows import Row
from engine.options import BadInput
from kernels.catalog import catalog
from kernels.contract import KernelSpec, LinearWorkload
from tests.engine.fakes import CPU

TINY = LinearWorkload(batch=2, d_in=40, d_out=40, dtype="float32")
ROWS = [Row("linear d40 B2", TINY), Row("linear d40 B3", replace(TINY, batch=3)), Row("rnn d40 B2 R3", replace(TINY, repeat=3))]
H200 = replace(CPU, kind="cuda", l2_bytes=60 << 20)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_rows, "_all", lambda: ROWS)


def bench(*arguments: str) -> Result:
    command = ["bench", "linear", "--seconds", "0.01", "--device", "cpu", *arguments]
    return CliRunner().invoke(main, command, standalone_mode=False)


def read(done: Result) -> dict[str, Any]:
    assert done.exception is None, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_grid_is_batch_1_to_256_at_two_widths_and_steps() -> None:
    rows = linear_rows.rows()
    assert len({row.id for row in rows}) == len(rows) == 21
    layers = [row.workload for row in rows if row.workload.repeat == 1]
    assert {(w.d_in, w.d_out, w.batch) for w in layers} == {(d, d, 1 << n) for d in (4096, 8192) for n in range(9)}
    assert [row.id for row in linear_rows.rows(("d8192 B256",))] == ["linear d8192 B256"]


@pytest.mark.usefixtures("small")
def test_each_row_is_timed_checked_and_set_beside_its_peer() -> None:
    told = read(bench("--peers", "--json"))
    assert [row["row"] for row in told["rows"]] == [row.id for row in ROWS]
    for row, (_, workload) in zip(told["rows"], ROWS, strict=True):
        ours, peer = row["entries"]
        assert (ours["kernel"], peer["kernel"], peer["of_best_peer"]) == ("batched_linear", "torch_linear", 1.0)
        moved = 4 * workload.repeat * (2 * workload.batch * 40 + 40 * 40)
        assert row["intensity"] == pytest.approx(workload.nominal_flops / moved)
        for entry in (ours, peer):
            assert entry["check"]["ok"]
            assert entry["tflops"] / entry["tb_per_s"] == pytest.approx(row["intensity"])
        assert row["ceiling_tflops"] > 0
        assert row["bandwidth_tb_per_s"] > 0
        assert row["l2_policy"] == "warm"
    assert [(knee["kernel"], knee["width"], knee["last_batch"]) for knee in told["knees"]] == [
        ("batched_linear", 40, 3), ("torch_linear", 40, 3)]


@pytest.mark.usefixtures("small")
def test_a_bench_that_was_cut_goes_on_and_its_table_has_roofs_and_knees(tmp_path: Path) -> None:
    record = tmp_path / "bench.jsonl"
    bench("--only", "B3", "--record", str(record))
    done = bench("--record", str(record))
    said = [line.split(":")[0] for line in done.stderr.splitlines()]
    assert said[1:] == ["linear d40 B2", "rnn d40 B2 R3"]
    lines = done.stdout.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| linear d40 B3", "| linear d40 B2", "| rnn d40 B2 R3"]
    assert any("a plain product" in line and "plain reads" in line for line in lines)
    assert any(line.startswith("batched_linear d40: knee predicted at batch ") for line in lines)
    assert "has rows of other kernels" in str(bench("--peers", "--record", str(record)).exception)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("arguments", "said"), [
    (("--only", "d5"), "no row holds 'd5'"),
    (("--kernel", "flash"), "flash computes attention, and these rows are linear: choose from batched_linear, torch_linear"),
])
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = bench(*arguments)
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)


def test_layers_do_not_run_in_the_attention_bench() -> None:
    command = ["bench", "attention", "--device", "cpu", "--kernel", "torch_linear"]
    done = CliRunner().invoke(main, command, standalone_mode=False)
    assert "torch_linear computes linear, and these rows are attention: choose from naive" in str(done.exception)


def broken(spec: KernelSpec) -> KernelSpec:
    """It forgets its last row."""
    import dataclasses

    def launch(workload: Any, config: Any, tensors: Any) -> Any:
        inner = spec.launch(workload, config, tensors)

        def wrong() -> Any:
            found = inner()
            found["Y"][-1] = 0
            return found

        return wrong

    return dataclasses.replace(spec, launch=launch)


def test_a_wrong_kernel_has_no_time() -> None:
    result, = run(ROWS[:1], [broken(catalog()["torch_linear"])], CPU, 0.01, {})
    assert result.entries[0].refused == "its output is wrong"
    assert brief(result) == "torch_linear WRONG"
    assert report([result]).knees == ()
    assert "| its output is wrong |" in table([result])


def test_weights_take_turns_until_they_exceed_the_l2_twice() -> None:
    layer = LinearWorkload(d_in=4096, d_out=4096)
    assert copies(layer, H200) == 4
    assert copies(replace(layer, d_in=8192, d_out=8192), H200) == 1
    assert copies(replace(layer, repeat=16), H200) == 1
    assert copies(layer, CPU) == 1


@given(st.floats(1, 1000), st.floats(0.01, 10), st.integers(8, 1 << 17), st.sampled_from([2, 4]))
def test_at_the_predicted_knee_both_roofs_take_as_long(tflops: float, tb_per_s: float, width: int, itemsize: int) -> None:
    batch = predicted(width, itemsize, tflops, tb_per_s)
    if batch is None:  # and then more rows gain flops no faster than bytes
        assert 2 * width * width / tflops <= itemsize * 2 * width / tb_per_s * (1 + 1e-9)
        return
    moved = itemsize * (width * width + 2 * batch * width)
    assert 2 * batch * width * width / tflops == pytest.approx(moved / tb_per_s, rel=1e-6)


@given(st.floats(0.1, 1e5), st.floats(1.5, 200))
def test_two_lines_are_found_again(flat: float, knee: float) -> None:
    points = [(batch, max(flat, flat * batch / knee)) for batch in linear_rows.BATCHES]
    found = knees("k", 4096, 2, points, 700.0, 4.5)
    if points[-1][1] < 1.25 * flat:
        assert found.measured_batch is None
        return
    assert found.measured_batch == pytest.approx(knee, rel=1e-6)
    assert found.flat_us == pytest.approx(flat, rel=1e-6)
    assert found.predicted_batch == pytest.approx(2 * 4096 * 700 / (2 * 4096 * 4.5 - 4 * 700))


@pytest.mark.parametrize("points", [[(4, 3.0)], [(1, 3.0), (256, 3.1)], [(1, 5.0), (2, 4.0)]])
def test_what_never_rises_has_no_knee(points: list[tuple[int, float]]) -> None:
    assert fitted(points)[1] is None
    assert "measured at beyond" in knees("k", 64, 2, points, 700.0, 4.5).text
