"""The modelled timeline of every kernel, against its prediction, its schedule and plain sums."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.simulator import placing
from engine.simulator import spec as specs
from engine.simulator.prediction import predict
from engine.simulator.timeline import timeline
from engine.timeline import Timeline
from engine.timeline_file import load
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, KernelSpec, LinearWorkload, Schedule, Workload
from kernels.contract.walk import ops_of, program_steps, totals

H200 = next(spec for spec in specs.load() if spec.id == "h200-sxm")
PREDICTED = [spec for spec in catalog().values() if spec.blueprint]


def schedule_of(kernel: KernelSpec, batch: int, seq: int, causal: bool) -> Schedule:
    decode = kernel.info.family == "decode"
    w: Workload = AttentionWorkload(
        batch=batch, heads=4, kv_heads=2, seq=1 if decode else seq, seq_kv=seq, head_dim=64, dtype="float16",
        causal=causal and not decode)
    if kernel.info.family == "linear":
        w = LinearWorkload(batch=seq, d_in=256, d_out=256, dtype="float16", repeat=batch)
    assert kernel.blueprint is not None
    return kernel.blueprint.schedule(w, kernel.blueprint.configure(w, specs.device_of(H200)))


def steps_of(line: Timeline) -> int:
    """Of all programs, from the pieces alone."""
    done = np.concatenate(([0], np.cumsum(line.steps.count)))
    each = done[line.steps.begins[1:]] - done[line.steps.begins[:-1]]
    return int(each[line.pattern].sum())


def follows(line: Timeline, seconds: float, launches: list[float]) -> None:
    """It is sound, and as long as it was predicted to be, launch by launch."""
    assert line.validate() == []
    assert line.provenance == "modelled"
    assert line.duration_ns == pytest.approx(seconds * 1e9, rel=1e-9)
    at, program = 0.0, 0
    for span, long in zip(line.launches, launches, strict=True):
        assert span.end_ns - span.start_ns == pytest.approx(long * 1e9, rel=1e-9)
        assert span.start_ns - at == pytest.approx(H200.graph_launch_s * 1e9, rel=1e-6)
        at, program = span.end_ns, program + span.programs
        assert line.end_ns[program - span.programs : program].max() == pytest.approx(at, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(kernel=st.sampled_from(PREDICTED), batch=st.sampled_from([1, 3, 40]), seq=st.sampled_from([128, 300, 1000]),
       causal=st.booleans(), sms=st.sampled_from([1, 7, 132]), data=st.data())
def test_it_is_the_prediction_told_program_by_program(
    kernel: KernelSpec, batch: int, seq: int, causal: bool, sms: int, data: st.DataObject
) -> None:
    schedule, spec = schedule_of(kernel, batch, seq, causal), replace(H200, sms=sms)
    line, prediction = timeline(schedule, spec)
    assert prediction == predict(schedule, spec)
    follows(line, prediction.seconds, [one.seconds for one in prediction.launches])
    assert steps_of(line) == totals(schedule).steps
    assert line.sms == sms
    number = data.draw(st.integers(0, len(schedule.launches) - 1))
    launch, before = schedule.launches[number], sum(one.programs for one in schedule.launches[:number])
    program = data.draw(st.integers(0, launch.programs - 1))
    ops = [op for op, _ in ops_of(launch.body)]
    *_, found, shares = line.steps.expanded(line.pattern[[before + program]].astype(np.int64))
    wanted = program_steps(schedule, launch, program)
    assert sorted(ops[op].title for op in found) == sorted(step.op.title for step in wanted)
    if not any(op.ahead for op in ops):  # a load that runs ahead ends where it is used
        assert [ops[op].title for op in found] == [step.op.title for step in wanted]
    assert shares[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(("kernel", "pass_"), [
    ("flash", "forward"), ("flash", "backward"), ("flash_hopper", "forward"), ("flash_hopper", "backward"),
    ("naive", "forward"), ("split_kv", "forward"), ("flash_attn_1", "forward"), ("flash_attn_1", "backward"),
    ("flash_attn_3", "forward"),
])
def test_many_programs_are_told_too(
    kernel: str, pass_: Literal["forward", "backward"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are taken to fill all SMs, and those after them."""
    monkeypatch.setattr(placing, "SIMULATED", 500)
    spec = catalog()[kernel]
    assert spec.blueprint is not None
    w = AttentionWorkload(batch=8, heads=32, kv_heads=32, seq=1100, head_dim=64, dtype="float16", pass_=pass_)
    if spec.info.family == "decode":
        w = replace(w, batch=64, seq=1, seq_kv=700, causal=False)
    schedule = spec.blueprint.schedule(w, spec.blueprint.configure(w, specs.device_of(H200)))
    line, prediction = timeline(schedule, H200)
    follows(line, prediction.seconds, [one.seconds for one in prediction.launches])
    assert steps_of(line) == totals(schedule).steps
    assert line.busy_share > 0.5
    assert len(line.steps.op) < 40 * line.programs


def test_a_loop_of_a_program_is_a_few_numbers() -> None:
    w = AttentionWorkload(batch=1, heads=16, kv_heads=16, seq=65536, head_dim=64, dtype="float16", causal=False)
    kernel = catalog()["flash"]
    schedule = kernel.schedule(w, kernel.configure(w, specs.device_of(H200)))  # type: ignore[misc]
    line, _ = timeline(schedule, H200)
    assert steps_of(line) > 10**7
    assert len(line.steps.op) < 20
    program = line.programs // 2
    ends = line.step_ends_ns(program)
    assert len(ends) == len(program_steps(schedule, schedule.launches[0], program))
    assert line.start_ns[program] <= ends[0] <= ends[-1] == pytest.approx(line.end_ns[program])
    _, number, _, found = line.steps_in(ends[100], ends[200])
    mine = found[(ends[100] - 1e-3 <= found) & (found <= ends[200])]
    assert len(mine) >= 100
    assert number.max() < len(ends)


def run(*arguments: str) -> tuple[int, str, str]:
    found = subprocess.run([sys.executable, "-m", "engine", "trace", *arguments], capture_output=True, text=True, timeout=120)
    return found.returncode, found.stdout, found.stderr


def test_the_command_writes_what_it_says(tmp_path: Path) -> None:
    out = tmp_path / "line.npz"
    code, said, err = run("--kernel", "naive", "--device", "sim:a100-sxm-80gb", "--seq", "512", "--clock-mhz", "1200", "--out",
                          str(out))
    line = load(out)
    assert (code, err) == (0, "")
    assert f"{line.programs:,} programs of naive in {len(line.launches)} launches" in said
    assert f"{line.duration_ns / 1e3:,.4g} µs on a simulated A100" in said
    assert f"SMs busy {line.busy_share:.1%}" in said
    assert said.count("\n") == 1
    assert line.clock_hz == 1.2e9
    assert line.sms == 108


@pytest.mark.parametrize(("arguments", "said"), [
    (("--device", "cuda:0"), "what runs on cuda:0 is not measured yet: trace a simulated GPU"),
    (("--device", "cpu"), "what runs on cpu is not measured yet"),
    (("--device", "sim:nothing"), "there is no simulated GPU 'nothing'"),
    (("--out", "line.pftrace"), "written as .npz, not as .pftrace: give --out line.npz"),
    (("--kernel", "flex"), "has no schedule that was published"), (("--kernel", "flahs"), "no kernel 'flahs'"),
    (("--set", "block_m=7"), "block_m"), (("--kernel", "naive", "--seq", "500000"), "choose a smaller shape"),
    (("--out", "nowhere/line.npz"), "cannot be written: No such file"), (("--clock-mhz", "1"), "clock-mhz"),
])
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, out, err = run("--out", str(tmp_path / "line.npz"), *arguments)
    assert code == 2
    assert not out
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
