"""What must hold of any prediction; how near predictions are stands in docs/simulator.md."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.simulator import occupancy
from engine.simulator import spec as specs
from engine.simulator.figures import DeviceSpec
from engine.simulator.prediction import Prediction, Unpredictable, predict
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, KernelSpec

SPECS = {spec.id: spec for spec in specs.load()}
MET = 1.01
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
    """But for where programs end up: shorter ones may meet on one SM that were apart, which costs less than a percent."""
    w, base = shape(kernel, batch, seq), predicted(kernel, shape(kernel, batch, seq), H200)
    assert predicted(kernel, w, specs.what_if(H200, bandwidth=bandwidth)).seconds <= base.seconds * MET
    assert predicted(kernel, w, specs.what_if(H200, clock=clock)).seconds <= base.seconds * MET
    assert predicted(kernel, w, H200, clock_hz=clock * H200.clock_hz).seconds <= base.seconds * MET


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
