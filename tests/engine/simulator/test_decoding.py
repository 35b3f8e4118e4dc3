"""Passes of a decoder, predicted: what they launch is what the decoder computes, and their times are as physics has them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from engine.batching.work import Batching
from engine.bench import published, simulator
from engine.bench.whole_models import Generation
from engine.decoding import CACHES, CacheKind, Decoding, Lane, Model
from engine.models import shapes
from engine.models.activations import padded
from engine.simulator import decoding as whole
from engine.simulator import spec as specs
from engine.simulator.decoding import Step, step
from engine.simulator.figures import DeviceSpec
from engine.simulator.launches import Pass, Product
from engine.simulator.passes import Attention, Counted, Shape, eager, ours
from engine.simulator.prediction import Unpredictable, predict
from kernels.catalog import catalog
from kernels.contract.workload import DType

SPECS = {spec.id: spec for spec in specs.load()}
H200, T4, A100 = SPECS["h200-sxm"], SPECS["t4"], SPECS["a100-sxm-80gb"]
MODELS = {model.id: model for model in shapes.load()}
GPT2, LLAMA = MODELS["gpt2"], MODELS["llama-3-8b"]
MET = 1.03


def lane_of(model: Model, cache: CacheKind = "dense") -> Lane:
    return Lane(cache=cache, kv_heads=model.kv_heads)


def at(model: Model, tokens: int, spec: DeviceSpec = H200, cache: CacheKind = "dense", batch: int = 1,
       dtype: DType = "float16", **more: Any) -> Step:
    """A step after which there are so many tokens, the last of them not computed."""
    return step(model, lane_of(model, cache), dtype, batch, tokens - 1, 1, spec, **more)


def decoding_of(model: Model, cache: CacheKind, batch: int, tokens: int, dtype: DType = "float16") -> Decoding:
    return Decoding(model=model, lanes=(lane_of(model, cache),), batch=batch, prompt=tokens - 1, new=1, dtype=dtype)


def flops(counted: list[Counted]) -> int:
    return sum(times * operation.flops for times, operation in counted)


def layers_of(model: Model) -> int:
    """Weights of the matrices of all layers."""
    up = model.mlp * (3 if model.activation == "swiglu" else 2)
    return model.layers * model.hidden * ((2 * model.heads + 2 * model.kv_heads) * model.head_dim + up)


# --- what is launched -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_step_multiplies_and_reads_what_the_closed_forms_say(model: Model, batch: int) -> None:
    shape = Shape(model, lane_of(model), "float16", batch, 199, 1)
    counted = list(ours(shape, H200))
    assert flops(counted) == Batching(work="model", model=model, cached=200).flops(batch)
    matrices = sum(times * one.matrix_bytes for times, one in counted if isinstance(one, Product))
    assert matrices == 2 * (layers_of(model) + model.vocab * model.hidden)
    decoding = decoding_of(model, "dense", batch, 200)
    assert matrices == pytest.approx(at(model, 200, batch=batch).weights_bytes, rel=1e-2)  # but for biases and gains
    [(times, attention)] = [(times, one) for times, one in counted if isinstance(one, Attention)]
    kernel = catalog()["split_kv"]
    cost = kernel.cost(attention.workload, kernel.configure(attention.workload, specs.device_of(H200)))
    assert times * (cost.hbm["K"].read + cost.hbm["V"].read) == decoding.kv_bytes(decoding.lanes[0], 200)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_passes_over_whole_sequences_multiply_what_the_closed_forms_say(model: Model) -> None:
    n, batch = 48, 3
    layers, head = layers_of(model), model.vocab * model.hidden
    attention = 2 * model.layers * model.heads * model.head_dim
    of_last = 2 * batch * (layers * n + head + attention * (n * (n + 1) // 2))
    for cache, cached, new in (("dense", 0, n), ("none", n - 1, 1)):
        shape = Shape(model, lane_of(model, cache), "float16", batch, cached, new)  # type: ignore[arg-type]
        assert flops(list(ours(shape, H200))) == of_last
    of_all = 2 * batch * n * (layers + head + attention * n)  # and the whole square
    assert flops(list(eager(Shape(model, lane_of(model, "none"), "float16", batch, n - 1, 1), H200))) == of_all
    step_behind = Shape(model, lane_of(model), "float16", batch, n - 1, 1)
    assert flops(list(eager(step_behind, H200))) == 2 * batch * (layers + head + attention * n)


@pytest.mark.parametrize("cached", [0, 6])
def test_the_products_are_those_of_the_decoder(cached: int) -> None:
    """Its layers are recorded on a CPU."""
    import torch
    from torch import Tensor

    from engine.models.generate import Generation as Run
    from engine.models.ops import Linear, TorchOps
    from tests.engine.models.small import MODELS as SMALL
    from tests.engine.models.small import decoder, tokens

    class Recording(TorchOps):
        def __init__(self) -> None:
            self.found: Counter[tuple[int, int, int]] = Counter()

        def linear(self, x: Tensor, layer: Linear, **more: Any) -> Tensor:
            self.found[len(x), x.shape[1], layer.weight.shape[0]] += 1
            return super().linear(x, layer, **more)

    for model in SMALL:
        made = decoder(model, model.kv_heads)
        run, recording = Run(made, "dense", 2, 12), Recording()
        prompt = tokens(model, 2, cached or 5)
        if cached:
            run.prefill(prompt)
        made.ops = recording
        with torch.inference_mode():
            run.step() if cached else run.prefill(prompt)
        shape = Shape(model, lane_of(model), "float32", 2, cached, 1 if cached else 5)
        expected: Counter[tuple[int, int, int]] = Counter()
        for times, one in ours(shape, H200):
            if isinstance(one, Product):
                expected[one.rows, one.d_in, one.d_out] += times
        assert recording.found == expected


def test_large_streams_and_passes_take_the_time_of_their_bytes() -> None:
    """At what the spec says that reads and copies reach, within what a launch costs and a little more."""
    stream = Product(1, 4096, 65536, "float16", fused=True)
    found = predict(stream.schedule(H200), H200, cold={"B"})
    assert found.dram_read_bytes == pytest.approx(stream.matrix_bytes, rel=1e-3)
    assert found.seconds == pytest.approx(stream.matrix_bytes / (4.8e12 * H200.achievable_bandwidth), rel=0.1)
    moved = Pass(1 << 27, 4)
    found = predict(moved.schedule(T4), T4)
    assert (found.dram_read_bytes, found.dram_write_bytes) == pytest.approx((4 << 27, 4 << 27), rel=1e-3)
    assert found.seconds == pytest.approx((8 << 27) / (3.2e11 * T4.achievable_copy), rel=0.1)


def test_large_products_of_float32_run_on_the_vector_units() -> None:
    """A T4 has no TF32."""
    one = Product(4096, 4096, 4096, "float32")
    found = predict(one.schedule(T4), T4)
    assert found.limiter == "vector"
    assert found.breakdown["matrix"] == 0
    assert 1 <= found.seconds / (one.flops / (40 * 1.59e9 * 128)) < 1.25  # with what stands around each product


# --- how long it takes ----------------------------------------------------------------------------------------------


def test_a_step_is_the_longer_of_host_and_device() -> None:
    alone, bound = at(GPT2, 500), at(GPT2, 500, by="eager", host_s=1e-2)
    assert (alone.host_seconds, alone.seconds) == (0, alone.device_seconds)
    assert (bound.seconds, bound.limiter) == (1e-2, "host")
    assert bound.device_seconds < 1e-2
    prompt = step(GPT2, lane_of(GPT2), "float16", 1, 0, 64, H200)
    assert prompt.host_seconds == prompt.launches * H200.launch_s  # a prompt is not captured
    assert alone.breakdown.keys() == {
        "matrix", "exponential", "vector", "sram", "L2", "HBM", "waits", "tail", "launch", "host"}


def test_a_step_never_takes_less_than_its_bytes() -> None:
    for model, spec in ((GPT2, T4), (LLAMA, H200), (LLAMA, A100)):
        for batch in (1, 8):
            found = at(model, 1000, spec, batch=batch)
            read = spec.bandwidth_bytes_per_s * spec.achievable_bandwidth
            assert found.device_seconds >= 0.97 * (found.weights_bytes + found.kv_bytes) / read


@pytest.mark.parametrize("cache", CACHES)
def test_more_tokens_and_more_sequences_take_longer(cache: CacheKind) -> None:
    for spec in (H200, T4):
        times = [at(GPT2, tokens, spec, cache, by="ours").seconds for tokens in (64, 256, 512, 1024)]
        assert all(low <= MET * high for low, high in pairwise(times))
        batches = [at(GPT2, 512, spec, cache, batch=batch, by="ours").seconds for batch in (1, 4, 16, 64)]
        assert all(low <= MET * high for low, high in pairwise(batches))


def test_more_bandwidth_or_clock_never_slows() -> None:
    for cache, by in (("dense", "ours"), ("none", "ours"), ("none", "eager")):
        base = at(GPT2, 512, T4, cache, by=by, host_s=0.0)  # type: ignore[arg-type]
        wide = at(GPT2, 512, specs.what_if(T4, bandwidth=2), cache, by=by, host_s=0.0)  # type: ignore[arg-type]
        fast = at(GPT2, 512, T4, cache, by=by, host_s=0.0, clock_hz=2e9)  # type: ignore[arg-type]
        assert wide.seconds < MET * base.seconds
        assert fast.seconds < MET * base.seconds
        assert wide.seconds + fast.seconds < 1.9 * base.seconds


def test_with_a_cache_steps_stay_flat_and_without_they_climb() -> None:
    for spec in (H200, T4):
        flat = at(GPT2, 1000, spec).seconds / at(GPT2, 100, spec).seconds
        climbing = at(GPT2, 1000, spec, "none").seconds / at(GPT2, 100, spec, "none").seconds
        assert flat < 1.5 < 1.7 < climbing
        assert at(GPT2, 1000, spec, "none").seconds > 3 * at(GPT2, 1000, spec).seconds


def test_lengths_between_lie_on_a_line_and_those_that_are_captured_on_a_staircase() -> None:
    low, middle, high = (at(LLAMA, tokens).seconds for tokens in (2048, 2304, 2560))
    assert middle == pytest.approx((low + high) / 2)
    assert padded(530, 1024) == padded(570, 1024) == 576
    assert at(GPT2, 530, cache="none").seconds == at(GPT2, 576, cache="none").seconds > at(GPT2, 512, cache="none").seconds


def test_what_was_predicted_is_not_predicted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = at(GPT2, 700)
    monkeypatch.setattr(whole, "predict", None)
    assert at(GPT2, 700) == first
    assert at(GPT2, 640 + 60) == first


def test_it_loads_no_torch() -> None:
    code = ("import sys; from click.testing import CliRunner; from engine.models.command import decode; "
            "done = CliRunner().invoke(decode, ['--device', 'sim:t4', '--new', '3', '--json']); "
            "assert done.exit_code == 0, done.output; assert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_spec_runs_every_cache() -> None:
    for spec in SPECS.values():
        for cache in CACHES:
            for tokens in (2, 33):
                assert at(GPT2, tokens, spec, cache, dtype="float32", by="ours").seconds > 0


def test_where_triton_has_no_matrix_units_an_eager_decoder_stands_for_ours() -> None:
    assert at(GPT2, 64, T4) == at(GPT2, 64, T4, by="eager")
    assert at(GPT2, 64, H200) == at(GPT2, 64, H200, by="ours")
    with pytest.raises(Unpredictable, match="a cache in int8 is our kernels'"):
        at(GPT2, 64, T4, "int8")


def test_what_cannot_be_is_one_sentence() -> None:
    with pytest.raises(Unpredictable, match="T4 does not multiply bfloat16"):
        at(GPT2, 64, T4, dtype="bfloat16")
    with pytest.raises(ValueError, match="more than the context"):
        at(GPT2, 1025)
    with pytest.raises(ValueError, match="a prompt, or one token more"):
        step(GPT2, lane_of(GPT2), "float16", 1, 5, 2, H200)


# --- the T4 ---------------------------------------------------------------------------------------------------------


def test_the_published_run_without_a_cache_is_within_a_quarter_and_the_host_is_set_by_the_other() -> None:
    [table] = [table for table in published.load() if table.id == "t4-generate"]
    [result] = simulator.run([table])
    cached, uncached = result.entries
    assert (cached.chosen_from, uncached.chosen_from) == (True, False)
    assert cached.predicted == pytest.approx(cached.told)
    assert cached.limiter == "host"
    assert abs(uncached.error or 1) < 0.25
    for row in table.rows:
        assert isinstance(row.workload, Generation)
        assert row.workload.host_ms == cached.told  # a thousand tokens
    assert table.clock_mhz == pytest.approx(0.6 * T4.clock_hz / 1e6)
    [boosted] = simulator.run([replace(table, clock_mhz=None)])
    assert boosted.entries[1].error == pytest.approx(-0.25, abs=0.02)  # as the table's note says
