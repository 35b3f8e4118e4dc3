"""Compute Sanitizer around our kernels: what is launched under which tool, and what is made of what it says."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from engine.__main__ import main
from engine.bench import sanitize, tool_commands, watch
from engine.bench.cases import Case, Done, Order
from engine.bench.sanitize import Finding, asynchronous, cases_of, judged, told
from engine.results import Check
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload
from tests.engine.fake_tools import put_on_path
from tests.engine.fakes import CPU, PATIENCE_S
from tests.kernels.shapes import H200

CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
OUT_OF_BOUNDS = """========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 16 bytes
=========     at _scores+0x1b0 in products.py:48
=========     by thread (96,0,0) in block (2,2,0)
=========
========= ERROR SUMMARY: 12 errors
"""
RACE = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at _flash_v1+0x9a0 and Read access at _flash_v1+0xc10 [4096 hazards]
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
RACE_FREE = "========= COMPUTE-SANITIZER\n========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
UNSUPPORTED = "========= COMPUTE-SANITIZER\n========= Error: Device not supported. Please refer to the documentation\n"
CASE = Case(kernel="flash", workload=AttentionWorkload(batch=1, heads=1, kv_heads=1, seq=33, head_dim=32, dtype="float32"))
DONE = Done(kernel="flash", check=Check(ok=True, max_error=1e-7, tolerance=1e-5))


def judge(log: str, *done: Done, tool: sanitize.Tool = "memcheck", cases: int = 1, **more: str) -> Finding:
    seen = watch.Watched(done=done or (DONE,), log=log, code=0, **more)
    return judged("flash", tool, seen, [CASE] * cases)


def test_what_a_tool_says_is_a_line() -> None:
    assert told(judge(CLEAN)) == "flash memcheck: clean (1 launches)"
    assert told(judge(RACE_FREE, tool="racecheck")) == "flash racecheck: clean (1 launches)"
    assert told(judge(OUT_OF_BOUNDS)) == (
        "flash memcheck: errors (1 launches): 12 errors; Invalid __global__ read of size 16 bytes")
    assert told(judge(RACE, tool="racecheck")).startswith(
        "flash racecheck: errors (1 launches): 1 error; Error: Race reported between Write access at _flash_v1")


def test_where_the_tool_cannot_follow_it_is_said_in_its_words() -> None:
    assert told(judge(UNSUPPORTED)) == (
        "flash memcheck: not followed (1 launches): Error: Device not supported. Please refer to the documentation")
    assert told(judge(CLEAN, cases=2, complaints="Traceback\nRuntimeError: no such thing\n")) == (
        "flash memcheck: not followed (1 launches): RuntimeError: no such thing")
    late = "it had not ended after 240 s"
    assert told(judge("", late=late)) == f"flash memcheck: not followed (1 launches): {late}"
    warned = CLEAN.replace("========= ERROR", "========= Warning: 2 instructions are not tracked\n========= ERROR")
    assert told(judge(warned)) == "flash memcheck: clean (1 launches): Warning: 2 instructions are not tracked"


def test_a_wrong_output_and_a_refusal_are_not_clean() -> None:
    wrong = replace(DONE, check=Check(ok=False, max_error=0.5, tolerance=1e-5))
    assert told(judge(CLEAN, DONE, wrong, cases=2)).endswith("its output is wrong in 1 of 2 launches, by 0.5 at most")
    refused = Done(kernel="flash", refused="it needs more")
    assert told(judge(CLEAN, refused)) == "flash memcheck: not run: it needs more"
    assert told(judge(CLEAN, DONE, refused, cases=2)) == "flash memcheck: clean (1 launches): 1 refused: it needs more"


def test_what_is_asynchronous_follows_from_the_configuration() -> None:
    wide, plain = AttentionWorkload(dtype="bfloat16"), AttentionWorkload(dtype="float32")
    ampere = replace(H200, capability=(8, 0))
    assert asynchronous(catalog()["flash_hopper"], wide, H200)
    for name in ("naive", "fused_softmax", "flash_v1", "flash"):
        assert asynchronous(catalog()[name], wide, H200)
        assert not asynchronous(catalog()[name], plain, H200)
        assert not asynchronous(catalog()[name], wide, ampere)


def test_every_pass_and_stride_is_launched_and_races_are_looked_for_where_all_is_synchronous() -> None:
    memory = cases_of(catalog()["flash"], "memcheck", H200)
    launched = {(c.workload.pass_, c.workload.dtype, c.strided) for c in memory}
    assert launched == set(product(("forward", "backward"), ("bfloat16", "float32"), (True, False)))
    assert {c.workload.dtype for c in cases_of(catalog()["flash"], "racecheck", H200)} == {"float32"}
    assert cases_of(catalog()["flash_hopper"], "racecheck", H200) == ()
    assert {c.workload.pass_ for c in cases_of(catalog()["naive"], "memcheck", H200)} == {"forward"}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small shape, on this processor."""
    monkeypatch.setattr(tool_commands, "_gpu", lambda device, command: CPU)  # noqa: ARG005
    monkeypatch.setattr(sanitize, "SHAPES", {"attention": (CASE.workload,), "decode": (), "linear": ()})
    monkeypatch.setattr(sanitize, "DTYPES", ("float32",))


@pytest.mark.usefixtures("few")
def test_the_command_runs_each_kernel_under_each_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = put_on_path(monkeypatch, tmp_path, "compute-sanitizer", OUT_OF_BOUNDS)
    command = ["bench", "sanitize", "--kernel", "flash,naive", "--tool", "memcheck"]
    done = CliRunner().invoke(main, command, standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.return_value == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["flash memcheck", "naive memcheck"]
    assert "(4 launches): 12 errors" in done.stdout, "two passes, each with and without strides"
    assert all("--tool memcheck" in line and "--report-api-errors no" in line for line in asked.read_text().splitlines())


@pytest.mark.usefixtures("few")
def test_clean_kernels_end_with_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_on_path(monkeypatch, tmp_path, "compute-sanitizer", RACE_FREE)
    done = CliRunner().invoke(main, ["bench", "sanitize", "--kernel", "flash_v1", "--tool", "racecheck", "--json"],
                              standalone_mode=False)
    found, = json.loads(done.stdout)
    assert (done.return_value, found["state"], found["launched"]) == (0, "clean", 2)


def test_what_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = tmp_path / "hangs"
    script.write_text(f"#!{sys.executable}\nimport subprocess, sys\n"
                      f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
                      f"print(child.pid, flush=True, file=open({str(tmp_path / 'pid')!r}, 'w'))\nchild.wait()\n")
    script.chmod(0o755)
    seen = watch.watch([str(script)], Order(device="cpu", cases=(), exact=True), 3.0)
    assert seen.late == "it had not ended after 3 s"
    assert seen.code == -signal.SIGKILL
    with suppress(ProcessLookupError):  # it may be gone altogether
        left = os.pidfd_open(int((tmp_path / "pid").read_text()))
        assert select.select([left], [], [], PATIENCE_S)[0], "it still runs"
        os.close(left)
