"""Decodings and batchings on GPUs that are not here: the events of a real run, simulated, and at the device's pace."""

from __future__ import annotations

import pytest

from engine.decoding import Decoding, Lane, Model
from engine.models import shapes
from engine.protocol import (
    Batching,
    BatchingPlanned,
    BatchSample,
    Ceilings,
    ConfigureBatching,
    ConfigureDecoding,
    DecodeSample,
    DecodingPlanned,
    LaneDone,
    MemorySample,
    Pause,
    PredictedSeries,
    Refused,
    Start,
    Stop,
)
from engine.simulator import spec
from kernels.catalog import catalog
from kernels.contract import Device
from tests.engine.conftest import Talk

GPT2: Model = next(model for model in shapes.load() if model.id == "gpt2")
LANES = (Lane(cache="none", kv_heads=12), Lane(cache="dense", kv_heads=12))
DECODING = Decoding(model=GPT2, lanes=LANES, prompt=32, new=40)


def decode(decoding: Decoding = DECODING, device: str = "sim:h100-sxm", generation: int = 1) -> ConfigureDecoding:
    return ConfigureDecoding(generation=generation, device=device, decoding=decoding)


def batch(batching: Batching, device: str = "sim:a100-sxm-80gb", generation: int = 1) -> ConfigureBatching:
    return ConfigureBatching(generation=generation, device=device, batching=batching)


def test_every_lane_gets_its_prompt_and_every_token(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(decode(), Start())
    said.idle()
    for lane in LANES:
        first, *rest = said.all(DecodeSample, lane=lane.id)
        assert first.prefill
        assert first.position == DECODING.prompt + 1
        assert not any(sample.prefill for sample in rest)
        positions = [sample.position for sample in rest]
        assert positions == sorted(set(positions))
        assert positions[-1] == DECODING.tokens
        assert first.steps + sum(sample.steps for sample in rest) == DECODING.new
        assert {sample.provenance for sample in (first, *rest)} == {"simulated"}
        assert rest[-1].kv_bytes == DECODING.kv_bytes(lane, DECODING.tokens - 1)
        assert said.wait(LaneDone, lane=lane.id).tokens == ((),)
    owners = said.wait(MemorySample).owners
    assert owners["weights"] == DECODING.weights_bytes(LANES[0])  # shared by both
    assert owners["KV cache"] == DECODING.kv_allocated_bytes(LANES[1])


def test_a_lane_goes_on_where_it_was_paused_and_begins_anew_after_a_stop(talk: Talk) -> None:
    said = talk(*catalog().values())
    long = Decoding(model=GPT2, lanes=(Lane(cache="dense", kv_heads=12),), prompt=32, new=900)
    said.send(decode(long, "sim:t4@clock=0.25"), Start())
    said.wait(DecodeSample, prefill=False)
    said.send(Pause())
    at = len(said.events)
    said.send(Start())
    again = said.wait(DecodeSample, after=at)
    assert not again.prefill
    said.send(Stop())
    said.idle(at)
    at = len(said.events)
    said.send(Start())
    assert said.wait(DecodeSample, after=at).prefill


def test_a_lane_that_cannot_be_predicted_is_refused_and_the_others_go_on(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(decode(Decoding(model=GPT2, lanes=LANES[1:], prompt=4, new=4, dtype="bfloat16"), "sim:t4"), Start())
    said.idle()
    assert "bfloat16" in said.wait(Refused, kernel="dense-12").reason
    assert said.all(DecodeSample) == []


def test_a_layer_bends_at_the_specs_ridge(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(batch(Batching(width=4096, batches=(1, 8, 256))), Start(seconds=0.05))
    said.idle()
    own, top = spec.resolve("sim:a100-sxm-80gb"), said.wait(Ceilings)
    assert top.provenance == "simulated"
    assert top.bytes_per_s == pytest.approx(own.bandwidth_bytes_per_s * own.achievable_bandwidth)
    times = {sample.batch: sample.time_ns for sample in said.all(BatchSample, kernel="batched_linear")}
    assert set(times) == {1, 8, 256}
    assert times[1] == pytest.approx(times[8], rel=0.3)
    assert times[256] > 1.5 * times[1]
    assert {refused.batch for refused in said.all(Refused, kernel="torch_linear")} == {1, 8, 256}
    assert {sample.provenance for sample in said.all(BatchSample)} == {"simulated"}


def test_a_model_is_predicted_at_every_batch_that_fits(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(batch(Batching(work="model", model=GPT2, cached=128, dtype="float16", batches=(1, 4))), Start(seconds=0.05))
    said.idle()
    times = {sample.batch: sample.time_ns for sample in said.all(BatchSample, kernel="model")}
    assert set(times) == {1, 4}
    assert times[4] < 4 * times[1]


def test_lanes_and_batches_of_a_real_gpu_are_predicted_before_they_run(talk: Talk) -> None:
    here = Device(id="cuda:0", kind="cuda", name="NVIDIA H200", capability=(9, 0), sms=132, memory_bytes=150 << 30)
    said = talk(*catalog().values(), devices=(here,))
    said.send(decode(device="cuda:0"))
    without, dense = (said.wait(PredictedSeries, name=lane.id) for lane in LANES)
    assert (without.at[0], without.at[-1]) == (DECODING.prompt + 2, DECODING.tokens)
    assert without.at == tuple(sorted(set(without.at)))
    assert all(slow > quick > 0 for slow, quick in zip(without.time_ns, dense.time_ns, strict=True))
    said.send(batch(Batching(width=1024, dtype="float16", batches=(1, 64)), "cuda:0", generation=2))
    found = said.wait(PredictedSeries, generation=2)
    assert (found.name, found.at, found.refused) == ("batched_linear", (1, 64), None)
    said.send(batch(Batching(work="model", model=GPT2, dtype="float16", batches=(2,)), "cuda:0", generation=3))
    assert said.wait(PredictedSeries, generation=3).name == "model"


def test_what_cannot_be_predicted_of_a_lane_is_said(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(decode(Decoding(model=GPT2, lanes=LANES[1:], prompt=4, new=4, dtype="bfloat16"), "sim:t4"))
    assert "bfloat16" in (said.wait(PredictedSeries).refused or "")


def test_what_does_not_fit_is_refused_by_the_plan(talk: Talk) -> None:
    said = talk(*catalog().values())
    large = next(model for model in shapes.load() if model.id == "llama-2-7b")
    lane = Lane(cache="dense", kv_heads=large.kv_heads)
    said.send(decode(Decoding(model=large, lanes=(lane,), batch=64, prompt=512, new=512), "sim:t4"))
    assert said.wait(DecodingPlanned).plans[0].refused
    said.send(batch(Batching(work="model", model=large, dtype="float16", batches=(1, 256)), "sim:rtx-4090", generation=2))
    plans = said.wait(BatchingPlanned).plans
    assert plans[0].refused is None
    assert plans[1].refused
