"""Hardware bytes: what ncu prints is read whatever lies around it and set beside the cost; what it refuses is a sentence."""

from __future__ import annotations

import csv
import io
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import planner
from engine.__main__ import main
from engine.bench import counters, tool_commands, watch
from engine.bench.cases import Done, Order
from engine.bench.counters import HITS, METRICS, READ, SECTORS, WRITTEN, parse
from engine.bench.grid import Row
from engine.bench.hardware_bytes import Result, brief, table
from engine.options import BadInput
from engine.results import Check
from engine.simulator import spec
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, KernelSpec
from kernels.contract.walk import totals
from tests.engine.fake_tools import put_on_path
from tests.engine.fakes import CPU
from tests.kernels.shapes import H200

HEADING = ("ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream", "Block Size", "Grid Size",
           "Device", "CC", "Section Name", "Metric Name", "Metric Unit", "Metric Value")
BEFORE = """==PROF== Connected to process 4711 (/usr/bin/python3.12)
==PROF== Profiling "_scores" - 0: 0%....50%....100% - 2 passes
==PROF== Disconnected from process 4711
"""
TINY = AttentionWorkload(batch=1, heads=2, kv_heads=2, seq=64, head_dim=32, dtype="float32", causal=False)
TINY_ROW = Row("forward tiny full", TINY, False)
RIGHT = Check(ok=True, max_error=1e-7, tolerance=1e-5)


def printed(*launches: tuple[str, dict[str, str]], before: str = BEFORE) -> str:
    """As ncu writes launches (function, metric -> value)."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(HEADING)
    for number, (function, metrics) in enumerate(launches):
        for metric, value in metrics.items():
            unit = "sector" if "sectors" in metric else "byte"
            writer.writerow((number, 4711, "python3.12", "127.0.0.1", function, 1, 13, "(128, 1, 1)", "(32, 32, 128)", 0, "9.0",
                             "Command line profiler metrics", metric, unit, value))
    return before + out.getvalue()


def metrics(read: str, written: str, sectors: str = "1,000", hits: str = "750") -> dict[str, str]:
    return dict(zip(METRICS, (read, written, sectors, hits), strict=True))


def watched(monkeypatch: pytest.MonkeyPatch, log: str, done: tuple[Done, ...], **more: Any) -> list[list[str]]:
    """ncu that says `log`; the commands it was run with."""
    commands: list[list[str]] = []

    def watch_(command: list[str], order: Order, seconds: float) -> watch.Watched:  # noqa: ARG001
        commands.append(command)
        return watch.Watched(done=done, log=log, **({"code": 0} | more))

    monkeypatch.setattr(watch, "tool", lambda name: name)
    monkeypatch.setattr(watch, "version", lambda path: f"{path} 1")
    monkeypatch.setattr(watch, "watch", watch_)
    return commands


def ran(spec: KernelSpec, check: Check = RIGHT) -> Done:
    return Done(kernel=spec.id, config=spec.configure(TINY, CPU).params, check=check)


NAIVE, FLASH = catalog()["naive"], catalog()["flash"]
CHAIN = (("_scores", metrics("1,000", "20,000")), ("_softmax", metrics("20,000", "19,000")), ("_pv", metrics("21,000", "900")))
ONE = (("_flash_forward", metrics("3,000", "1,000", "2,000", "500")),)
BOTH = (*CHAIN * counters.TIMES, *ONE * counters.TIMES)  # as often as each is executed


def count(monkeypatch: pytest.MonkeyPatch, log: str, *done: Done, **more: Any) -> Result:
    watched(monkeypatch, log, done, **more)
    found, = counters.run([TINY_ROW], [catalog()[one.kernel] for one in done], CPU, "all")
    return found


def test_launches_are_read_in_order_with_their_separators() -> None:
    found = parse(printed(("_scores", metrics("8,390,656", "4,273,741,824")), ("_pv", metrics("1.0", "n/a"))))
    assert [launch.function for launch in found] == ["_scores", "_pv"]
    assert found[0].metrics == {READ: 8390656, WRITTEN: 4273741824, SECTORS: 1000, HITS: 750}
    assert found[1].metrics == {READ: 1, SECTORS: 1000, HITS: 750}


def test_what_lies_around_the_table_is_passed_over() -> None:
    noisy = printed(*BOTH, before=f'some "library" said,\n"ID","none of ours"\n{BEFORE}')
    lines = noisy.splitlines()
    lines[6:6] = ["==WARNING== a word in between", '"unclosed', "", '"7"', '"x","y"']
    assert parse("\n".join(lines)) == parse(printed(*BOTH))
    assert parse("") == parse(BEFORE) == []


@given(st.text() | st.lists(st.lists(st.text(max_size=6) | st.sampled_from([*HEADING, *METRICS]), max_size=16)).map(
    lambda rows: ",".join(f'"{name}"' for name in HEADING) + "\n" + "\n".join(",".join(row) for row in rows)))
def test_anything_is_read_or_passed_over(log: str) -> None:
    for launch in parse(log):
        assert all(value >= 0 for value in launch.metrics.values())


def test_each_launch_is_set_beside_its_tiles_and_the_kernel_beside_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    result = count(monkeypatch, printed(*BOTH), ran(NAIVE), ran(FLASH))
    naive, flash = result.kernels
    assert [launch.launch for launch in naive.launches] == ["scores", "softmax", "pv"]
    assert (naive.dram_read_bytes, naive.dram_write_bytes) == (42_000, 39_900)
    cost = FLASH.cost(TINY, FLASH.configure(TINY, CPU))
    assert (flash.hbm_read_bytes, flash.hbm_write_bytes) == (cost.hbm_read_bytes, cost.hbm_write_bytes)
    assert FLASH.schedule
    assert flash.launches[0].tile_bytes == totals(FLASH.schedule(TINY, FLASH.configure(TINY, CPU))).tile_bytes
    assert flash.launches[0].l2_bytes == 2000 * 32
    assert flash.launches[0].l2_hit_rate == 0.25
    lines = table([result]).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:7]] == ["scores", "softmax", "pv", "all", "flash"]
    assert "caches flushed before each launch" in lines[-1]
    assert len({line.count("|") for line in lines[:7]}) == 1
    assert brief(result).startswith("forward tiny full: naive 0.000 GB, ")


def test_a_refused_kernel_takes_no_launch_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Done(kernel="naive", refused="it needs 128 GiB and 70.0 GiB are free")
    result = count(monkeypatch, printed(*ONE * counters.TIMES), refused, ran(FLASH))
    assert result.kernels[0].refused == refused.refused
    assert result.kernels[1].dram_read_bytes == 3000
    assert "refused: it needs 128 GiB" in table([result])


def test_a_wrong_output_and_a_missing_metric_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    result = count(monkeypatch, printed(*(("_flash_forward", {READ: "5", WRITTEN: "5"}),) * counters.TIMES),
                   ran(FLASH, Check(ok=False, max_error=1.0, tolerance=1e-5)))
    assert result.kernels[0].wrong
    assert "flash (WRONG)" in table([result])
    assert result.kernels[0].launches[0].l2_bytes is None
    for log in (printed(*(("_flash_forward", {READ: "5"}),) * counters.TIMES), printed(*ONE * (counters.TIMES - 1))):
        result = count(monkeypatch, log, ran(FLASH))
        assert result.kernels[0].refused == "ncu has not counted the bytes of all its launches"


def test_of_executions_that_differ_the_median_is_told_and_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = ("28,000,000,000", "13,000,000,000", "24,000,000,000", "43,000,000,000", "16,000,000,000")
    result = count(monkeypatch, printed(*(("_flash_forward", metrics(read, "900")) for read in reads)), ran(FLASH))
    assert (result.kernels[0].dram_read_bytes, result.kernels[0].dram_read_range) == (24 * 10**9, (13 * 10**9, 43 * 10**9))
    assert "| flash | flash | 24.000 (13.000 to 43.000) |" in table([result])
    assert "medians of 5 executions, caches flushed before each launch" in table([result])
    alike = count(monkeypatch, printed(*ONE * counters.TIMES), ran(FLASH))
    assert "to" not in table([alike]).splitlines()[2]


def test_ncu_is_told_what_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = watched(monkeypatch, printed(*ONE * counters.TIMES), (ran(FLASH),))
    list(counters.run([TINY_ROW], [FLASH], CPU, "none"))
    said = " ".join(commands[0])
    for option in ("--clock-control none", "--cache-control none", "--profile-from-start off", "--print-units base"):
        assert option in said


def test_a_metric_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    log = f"==ERROR== Failed to find metric regex:^{SECTORS}(\\..*)?$\n"
    commands = watched(monkeypatch, log, (ran(FLASH),))
    told = watch.watch

    def second(command: Any, order: Any, seconds: Any) -> watch.Watched:
        seen = told(command, order, seconds)
        return seen if SECTORS in command[-1] else watch.Watched(done=seen.done, log=printed(*ONE * counters.TIMES), code=0)

    monkeypatch.setattr(watch, "watch", second)
    found, = counters.run([TINY_ROW], [FLASH], CPU, "all")
    assert len(commands) == 2
    assert found.kernels[0].dram_read_bytes == 3000


@pytest.mark.parametrize(("log", "more", "said"), [
    ("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters\n", {},
     "ncu may not read this GPU's counters: run as root"),
    ("==WARNING== No kernels were profiled.\n", {}, "ncu has counted nothing (exit 0)"),
    ("==ERROR== Failed to initialize the profiler: LibraryNotLoaded\n", {"code": 1},
     "ncu has counted nothing (Failed to initialize the profiler: LibraryNotLoaded)"),
])
def test_what_ncu_refuses_is_one_sentence(log: str, more: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for done in ((ran(FLASH),), ()):
        watched(monkeypatch, log, done, **more)
        with pytest.raises(BadInput) as error:
            list(counters.run([TINY_ROW], [FLASH], CPU, "all"))
        assert "\n" not in str(error.value)
        assert said in str(error.value) or (not done and "WARNING" in log)


def test_a_child_that_ends_early_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    watched(monkeypatch, "", (ran(NAIVE),), complaints="Traceback\nRuntimeError: an illegal memory access\n", code=1)
    with pytest.raises(BadInput, match=r"flash did not come to its end under ncu \(RuntimeError: an illegal memory access\)"):
        list(counters.run([TINY_ROW], [NAIVE, FLASH], CPU, "all"))


def test_the_shapes_are_found_by_their_words() -> None:
    assert [row.id.split()[0] for row in counters.rows()] == ["forward"] * 7 + ["backward"] * 2 + ["decode"] * 6
    assert [row.id for row in counters.rows(("D128 N65536",))] == ["forward B1 H8 D128 full N65536"]


def test_k_and_v_of_a_head_are_a_quarter_all_and_four_times_of_the_l2_and_every_decode_kernel_plans_them() -> None:
    l2_bytes = spec.resolve("h200-sxm").l2_bytes
    for one in ("forward H1", "decode H8:1"):
        found = [row.workload for row in counters.rows((one,))]
        assert [workload.kv_cache_bytes() / workload.batch / l2_bytes for workload in found] == [0.25, 1, 4]
        assert {workload.kv_heads for workload in found} == {1}
    rows = counters.rows(("decode",))
    kernels = counters.suited(rows[0].workload, list(catalog().values()))
    assert {"dense", "split_kv", "paged", "int8", "fp8"} == {kernel.id for kernel in kernels}
    for kernel, row in product(kernels, rows):
        assert not planner.reasons(kernel, row.workload, kernel.configure(row.workload, H200), H200)


def test_a_row_is_counted_for_the_kernels_that_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    log = printed(*(("_flash_forward", metrics("3,000", "1,000")),) * counters.TIMES)
    commands = watched(monkeypatch, log, (ran(FLASH),))
    decoding = Row("decode tiny", replace(TINY, seq=1, seq_kv=64), False)
    found, = counters.run([decoding, TINY_ROW], [FLASH], CPU, "all")
    assert (found.row, [one.kernel for one in found.kernels]) == (TINY_ROW.id, ["flash"])
    assert len(commands) == 1


def test_the_child_launches_under_the_tool_and_the_command_keeps_what_was_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = put_on_path(monkeypatch, tmp_path, "ncu", printed(*BOTH))
    monkeypatch.setattr(tool_commands, "_gpu", lambda device, command: CPU)  # noqa: ARG005
    monkeypatch.setattr(counters, "rows", lambda only: [TINY_ROW])  # noqa: ARG005
    command = ["bench", "bytes", "--kernel", "naive,flash", "--record", str(tmp_path / "bytes.jsonl"), "--json"]
    for _ in range(2):
        done = CliRunner().invoke(main, command, standalone_mode=False)
        assert done.exception is None, done.exception
        found, = json.loads(done.stdout)
    assert found["tool"] == "Version 1.2.3.0 (build 4)"
    assert [one["check"]["ok"] for one in found["kernels"]] == [True, True]
    assert found["kernels"][1]["launches"][0]["dram_read_bytes"] == 3000
    assert asked.read_text().count("\n") == 1, "the record serves the second time"


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "watches launches on an NVIDIA GPU and cpu is none"), (("--device", "cuda:9"), "there is no device 'cuda:9'"),
])
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(main, ["bench", "bytes", "--device", "cpu", *arguments], standalone_mode=False)
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)


@pytest.mark.parametrize(("arguments", "said"), [
    (("--only", "D127"), "no row holds 'D127'"), (("--kernel", "sdpa_math"), "the launches of sdpa_math are a library's own"),
    (("--kernel", "flash", "--only", "decode"), "none of these rows is for these kernels"),
    (("--kernel", "flush"), "there is no kernel 'flush'"), ((), "ncu is not here: install Nsight Compute"),
])
def test_bad_input_on_a_gpu_too(arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tool_commands, "_gpu", lambda device, command: H200)  # noqa: ARG005
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(watch, "PLACES", {"ncu": (str(tmp_path / "ncu*"),)})
    done = CliRunner().invoke(main, ["bench", "bytes", *arguments], standalone_mode=False)
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)
