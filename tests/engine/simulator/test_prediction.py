"""What must hold of any prediction; how near predictions are stands in docs/simulator.md."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.simulator import occupancy, validity, work
from engine.simulator import spec as specs
from engine.simulator.figures import DeviceSpec
from engine.simulator.prediction import Prediction, Unpredictable, play, predict
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, KernelSpec, Loop, Schedule, TileOp
from kernels.contract.walk import ops_of

SPECS = {spec.id: spec for spec in specs.load()}
SAME = 1 + 1e-9
MISSED = 1.005  # a program's latencies are of what its wave misses, and a larger wave may miss more
ASKED_TOGETHER = 1.03  # what a larger wave asks for as it begins comes later
H200 = SPECS["h200-sxm"]
PREDICTED = [spec for spec in catalog().values() if spec.blueprint and spec.info.family != "linear"]


def predicted(kernel: KernelSpec, workload: AttentionWorkload, spec: DeviceSpec, **more: Any) -> Prediction:
    """At the configuration of an H200, so that only the spec differs."""
    blueprint = kernel.blueprint
    assert blueprint is not None
    return predict(blueprint.schedule(workload, blueprint.configure(workload, specs.device_of(H200))), spec, **more)


def shape(kernel: KernelSpec, batch: int = 2, seq: int = 1024, **more: Any) -> AttentionWorkload:
    decode = kernel.info.family == "decode"
    return AttentionWorkload(batch=batch, heads=8, kv_heads=8, seq=1 if decode else seq, seq_kv=seq, head_dim=64,
                             dtype="float16", causal=not decode, **more)


@settings(max_examples=60, deadline=None)
@given(kernel=st.sampled_from(PREDICTED), batch=st.sampled_from([1, 4, 32]), seq=st.sampled_from([128, 1000, 4096]),
       clock=st.floats(1.0, 2.0), bandwidth=st.floats(1.0, 4.0))
def test_more_clock_or_bandwidth_never_slows(
    kernel: KernelSpec, batch: int, seq: int, clock: float, bandwidth: float,
) -> None:
    w, base = shape(kernel, batch, seq), predicted(kernel, shape(kernel, batch, seq), H200)
    assert predicted(kernel, w, specs.what_if(H200, bandwidth=bandwidth)).seconds <= base.seconds * SAME
    assert predicted(kernel, w, specs.what_if(H200, clock=clock)).seconds <= base.seconds * SAME
    assert predicted(kernel, w, H200, clock_hz=clock * H200.clock_hz).seconds <= base.seconds * SAME


@settings(max_examples=60, deadline=None)
@given(kernel=st.sampled_from(PREDICTED), batch=st.sampled_from([1, 4, 32]), seq=st.sampled_from([128, 1000, 4096]),
       sms=st.integers(133, 300))
def test_more_sms_slow_no_launch_of_which_as_many_bytes_come_from_hbm(
    kernel: KernelSpec, batch: int, seq: int, sms: int
) -> None:
    """Programs end no later after the first wave is placed, which takes longer the larger it is. Larger waves may not share the
    same of what they read, which changes what comes from HBM."""
    w, more = shape(kernel, batch, seq), replace(H200, sms=sms)
    blueprint = kernel.blueprint
    assert blueprint is not None
    schedule = blueprint.schedule(w, blueprint.configure(w, specs.device_of(H200)))
    (_, base), (_, found) = play(schedule, H200), play(schedule, more)
    for one, two in zip(base, found, strict=True):
        assert two.end - two.begin <= (one.end - one.begin) * MISSED
        if two.launched.dram_read_bytes + two.launched.dram_write_bytes <= MISSED * (
                one.launched.dram_read_bytes + one.launched.dram_write_bytes):
            assert two.launched.seconds <= one.launched.seconds * ASKED_TOGETHER


@pytest.mark.parametrize("kernel", PREDICTED, ids=lambda kernel: kernel.id)
@pytest.mark.parametrize("seq", [500, 4096])
def test_bytes_never_fall_under_those_of_inputs_and_outputs(kernel: KernelSpec, seq: int) -> None:
    """From a cold L2; where programs read the cache in 8 bits or pages, those are the inputs."""
    blueprint = kernel.blueprint
    assert blueprint is not None
    w = shape(kernel, 4, seq)
    found, cost = predicted(kernel, w, H200, cold=True), blueprint.cost(w, blueprint.configure(w, specs.device_of(H200)))
    assert found.dram_read_bytes + found.dram_write_bytes >= 0.97 * sum(
        o.bytes for o in blueprint.operands(w) if o.role in ("input", "output") and o.name in cost.hbm)
    assert found.tile_bytes == pytest.approx(cost.tile_bytes, rel=1e-6)
    assert found.dram_read_bytes <= found.tile_bytes * 1.001
    assert found.seconds >= max(found.breakdown[name] for name in ("matrix", "exponential", "HBM"))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_gpu_is_predicted(spec: DeviceSpec) -> None:
    kernel, device = catalog()["flash"], specs.device_of(spec)
    w = AttentionWorkload(batch=4, heads=16, kv_heads=16, seq=2048, head_dim=128, dtype="float16")
    config = kernel.configure(w, device)
    if kernel.constraints(w, config, device):  # a T4 has too little shared memory for the tiles of an A100
        config = Config(params=config.params | {"block_m": 64, "block_n": 32, "stages": 2})
    assert not kernel.constraints(w, config, device)
    found = predict(kernel.schedule(w, config), spec)  # type: ignore[misc]
    tflops = w.nominal_flops / found.seconds / 1e12
    peak = spec.peak_tflops("float16") or 0
    assert 0.1 * peak < tflops < 0.95 * peak


def test_a_cold_l2_is_slower_where_all_would_have_fitted() -> None:
    kernel = catalog()["split_kv"]
    w = AttentionWorkload(batch=1, heads=32, kv_heads=8, seq=1, seq_kv=4096, head_dim=128, dtype="bfloat16")
    warm, cold = (predicted(kernel, w, H200, cold=cold) for cold in (False, True))
    assert warm.dram_read_bytes < 0.01 * cold.dram_read_bytes
    assert warm.seconds < cold.seconds


def test_a_program_larger_than_an_sm_is_refused_in_a_sentence() -> None:
    kernel = catalog()["flash_hopper"]
    w = AttentionWorkload(batch=1, heads=4, kv_heads=4, seq=1024, head_dim=128, dtype="float16")
    with pytest.raises(Unpredictable, match=r"more shared memory than an SM of H200 SXM, sram ×0\.25 has: choose"):
        predicted(kernel, w, specs.what_if(H200, sram=0.25))


def test_occupancy_is_cudas() -> None:
    """By hand: 128 threads of 168 registers are 21,504 and 3 fit 65,536; 100 KiB and the system's one fit 228 KiB twice."""
    kernel = catalog()["flash"]
    w = AttentionWorkload(batch=1, heads=4, kv_heads=4, seq=1024, head_dim=64, dtype="float16")
    launch = kernel.schedule(w, kernel.configure(w, specs.device_of(H200))).launches[0]  # type: ignore[misc]
    found = occupancy.limits(replace(launch, warps=4, registers=168, sram_bytes=100 << 10), H200)
    assert found == {"blocks": 32, "warps": 16, "registers": 3, "shared memory": 2}
    assert min(found.values()) == 2


def run(*arguments: str) -> tuple[int, str, str]:
    found = subprocess.run([sys.executable, "-m", "engine", "predict", *arguments], capture_output=True, text=True, timeout=120)
    return found.returncode, found.stdout, found.stderr


def test_what_is_printed_has_the_promised_fields() -> None:
    code, out, _ = run("--kernel", "naive,flash,sdpa_flash", "--device", "sim:a100-sxm-80gb", "--dtype", "float16", "--json")
    assert code == 0
    for found in json.loads(out):
        assert found["device"] == "sim:a100-sxm-80gb"
        assert found["provenance"] == "simulated"
        assert found["limiter"] in found["breakdown_us"]
        for name in ("time_us", "dram_read_bytes", "dram_write_bytes", "tile_bytes", "l2_hit_rate", "peak_memory_bytes"):
            assert found[name] >= 0
        assert any("estimated" in doubt or "were not measured" in doubt for doubt in found["doubts"])


def test_a_locked_clock_is_an_input() -> None:
    slow, fast = (json.loads(run("--kernel", "flash", "--clock-mhz", mhz, "--json")[1])[0] for mhz in ("900", "1800"))
    assert 1.7 < slow["time_us"] / fast["time_us"] < 2.0
    assert slow["clock_mhz"] == 900


@pytest.mark.parametrize(("arguments", "said"), [
    (("--device", "sim:nothing"), "there is no simulated GPU 'nothing'"), (("--device", "cpu"), "a CPU is not predicted"),
    (("--kernel", "flash,batched_linear"), "different things"), (("--kernel", "flahs"), "no kernel 'flahs'"),
    (("--kernel", "flash", "--set", "block_m=7"), "block_m"),
])
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert not out
    assert said in err


def test_what_cannot_be_predicted_is_refused_with_its_reason() -> None:
    _, out, _ = run("--kernel", "naive,flash", "--seq", "1000000", "--json")
    naive, flash = json.loads(out)
    assert "choose a smaller shape" in naive["refused"]
    assert flash["refused"] is None
    assert flash["time_us"] > 0


def test_the_l2_holds_nothing_of_the_operands_that_are_named() -> None:
    """Q, K and V of this shape fit it."""
    w = AttentionWorkload(batch=1, heads=8, kv_heads=8, seq=1, seq_kv=4096, head_dim=64, dtype="float16", causal=False)
    kernel = catalog()["split_kv"]
    cache = w.kv_cache_bytes() / 2
    read = [predicted(kernel, w, H200, cold=cold).dram_read_bytes for cold in (False, {"K"}, ("K", "V"), True)]
    assert read[0] == 0
    assert read[1:3] == [cache, 2 * cache]
    assert read[3] > read[2]


# --- what programs wait for -----------------------------------------------------------------------------------------


def decoding(kernel: str, **more: Any) -> Schedule:
    """One query of 32 heads over a cache with one KV head."""
    w = AttentionWorkload(heads=32, kv_heads=1, seq=1, head_dim=128, dtype="bfloat16", **{"batch": 1} | more)
    spec = catalog()[kernel]
    assert spec.schedule is not None
    return spec.schedule(w, spec.configure(w, specs.device_of(H200)))


def changed(body: tuple[TileOp | Loop, ...], change: Callable[[TileOp], TileOp]) -> tuple[TileOp | Loop, ...]:
    return tuple(replace(item, body=changed(item.body, change)) if isinstance(item, Loop) else change(item) for item in body)


def waits(schedule: Schedule, change: Callable[[TileOp], TileOp] = lambda op: op) -> float:
    """Seconds of the first launch's waits, by program."""
    first = replace(schedule.launches[0], body=changed(schedule.launches[0].body, change))
    found = predict(replace(schedule, launches=(first,)), H200).launches[0]
    return found.breakdown["waits"] * H200.sms / first.programs * min(found.per_sm, -(-first.programs // H200.sms))


@pytest.mark.parametrize("kernel", ["split_kv", "paged", "int8", "fp8"])
def test_a_program_waits_for_each_number_that_its_warps_hand_on(kernel: str) -> None:
    schedule = decoding(kernel, seq_kv=4096)
    launch = schedule.launches[0]
    each = [(op, math.prod(-(-4096 // launch.slot("S").shape[1] // launch.grid[0].size) for _ in loops))
            for op, loops in ops_of(launch.body)]
    clocks = work.EXCHANGE * sum(op.exchanges * times for op, times in each)
    assert clocks > 500
    without = waits(schedule, lambda op: replace(op, exchanges=0))
    assert waits(schedule) - without == pytest.approx(clocks / H200.clock_hz)
    more = waits(schedule, lambda op: replace(op, barriers=op.barriers + (op.kind == "compute")))
    turns = sum(times for op, times in each if op.kind == "compute")
    assert more - waits(schedule) == pytest.approx(work.ARRIVAL * turns / H200.clock_hz)


def test_pages_are_asked_for_a_latency_after_their_numbers() -> None:
    schedule = decoding("paged", seq_kv=4096)
    together = waits(schedule, lambda op: replace(op, reads=()) if op.kind == "load" else op)
    assert waits(schedule) - together == pytest.approx(H200.memory_latency_s)


def test_begin_and_end_of_programs_are_not_hidden_behind_the_memory() -> None:
    """Where HBM takes longest, what all programs do before their first tile adds to it whole."""
    schedule = decoding("int8", seq_kv=1 << 20)
    first = schedule.launches[0]

    def slower(op: TileOp) -> TileOp:
        return replace(op, exchanges=op.exchanges + 50) if op.fn == "start" else op

    base, more = (predict(replace(schedule, launches=(replace(first, body=body),)), H200)
                  for body in (first.body, changed(first.body, slower)))
    assert base.limiter == "HBM"
    assert more.seconds - base.seconds == pytest.approx(50 * work.EXCHANGE / H200.clock_hz, rel=0.2)


def test_a_dependent_launch_has_begun_where_the_one_before_leaves_room() -> None:
    """One program of split_kv an SM leaves half of the registers; two of int8 leave none."""
    for kernel, room in (("split_kv", True), ("int8", False)):
        schedule = decoding(kernel, batch=16, seq_kv=32768)
        first, second = schedule.launches
        assert second.dependent
        whole = [predict(replace(schedule, launches=(first, replace(second, dependent=dependent))), H200)
                 for dependent in (True, False)]
        programs = second.programs
        hidden = (work.BEGIN + programs * work.PLACED) / H200.clock_hz if room else 0.0
        assert whole[1].launches[1].seconds - whole[0].launches[1].seconds == pytest.approx(hidden, rel=0.01, abs=1e-12)
        assert occupancy.beside(first, -(-first.programs // H200.sms), second, H200) == room


def test_programs_are_placed_one_after_the_other() -> None:
    schedule = decoding("split_kv", seq_kv=4096)
    second = schedule.launches[1]
    heads, batch = second.grid
    alone = [predict(replace(schedule, launches=(replace(second, grid=(heads, replace(batch, size=size))),)), H200).seconds
             for size in (1, 2)]
    assert alone[1] - alone[0] >= 0.999 * heads.size * work.PLACED / H200.clock_hz


def test_where_programs_drift_apart_beyond_the_l2_it_says_so() -> None:
    """30 waves of programs side by side, as counted: of K and V of 252 MB, not of 63 MB, nor in a thousand waves of 8."""
    kernel = catalog()["flash"]

    def said(seq: int, heads: int, kv_heads: int = 1, batch: int = 1) -> bool:
        w = AttentionWorkload(
            batch=batch, heads=heads, kv_heads=kv_heads, seq=seq, head_dim=128, dtype="bfloat16", causal=False)
        found = validity.doubts(kernel, w, H200, predicted(kernel, w, H200))
        return any("drift apart" in doubt for doubt in found)

    assert said(491520, 1)
    assert not said(122880, 4)
    assert not said(16384, 32, 32, 32)
