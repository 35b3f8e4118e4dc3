"""The store of decodings: what is kept, what is dropped, and that a snapshot never changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.decoding.state import NEWEST, DecodeState
from app.store import Snapshot, Store
from app.verdict import verdict as verdict_of_kernels
from engine.protocol import (
    DecodeSample,
    Event,
    Hello,
    KernelSample,
    LaneDone,
    MemorySample,
    Phase,
    Refused,
    decode_event,
    encode,
)
from tests.app import decode_feed, feed

LANES = ("none-12", "dense-12")


def reduced(*events: Event) -> Store:
    store = Store()
    for event in events:
        store.reduce(event)
    return store


def state(*events: Event) -> DecodeState:
    return reduced(*events).snapshot().decode


def sample(position: int, *, lane: str = "dense-12", generation: int = 1, time_ns: float = 1e6, prefill: bool = False,
           steps: int = 1) -> DecodeSample:
    return DecodeSample(generation=generation, lane=lane, position=position, steps=steps, time_ns=time_ns, prefill=prefill,
                        kv_bytes=position * 10, kv_allocated_bytes=6400, step_bytes=position * 10 + 1000)


def begun(*events: Event) -> Store:
    return reduced(decode_feed.hello(), decode_feed.planned(decode_feed.decoding()), *events)


def test_a_run_becomes_a_series_a_lane_in_the_order_chosen() -> None:
    run = decode_feed.decoding(new=100)
    found = state(*decode_feed.run(run))
    assert tuple(found.lanes) == tuple(found.plans) == LANES
    for name, series in found.lanes.items():
        assert series.position.tolist() == list(range(129, 229))
        assert series.steps == 100
        assert series.kv_bytes[-1] == run.kv_bytes(found.lane(name), 227)  # the last is chosen, not computed
        assert (series.provenance, series.source) == ("measured", "CUDA events")
        assert series.prefill is not None
        assert series.prefill.position == 128
        assert series.median_ns == float(np.median(series.time_ns[-NEWEST:]))
        assert np.allclose(series.bandwidth, series.step_bytes / series.time_ns * 1e9)
    assert set(found.done) == set(LANES)
    assert found.memory is not None
    assert set(found.memory.owners) == {"weights", "KV cache", "activations", "other"}
    assert found.peak_memory_bytes is not None


def test_tokens_a_second_count_every_sequence() -> None:
    run = decode_feed.decoding(batch=4)
    store = reduced(decode_feed.hello(), decode_feed.planned(run), sample(129, time_ns=2e6))
    assert store.snapshot().decode.tokens_per_s("dense-12") == pytest.approx(2000)
    assert store.snapshot().decode.tokens_per_s("none-12") is None


def test_time_climbs_as_it_is_fitted() -> None:
    line = [sample(n, time_ns=3e3 * n) for n in range(100, 300)]
    root = [sample(n, lane="none-12", time_ns=1e6 * math.sqrt(n)) for n in range(100, 300)]
    lanes = begun(*line, *root).snapshot().decode.lanes
    assert lanes["dense-12"].exponent == pytest.approx(1.0)
    assert lanes["none-12"].exponent == pytest.approx(0.5, abs=1e-4)


def test_no_exponent_is_claimed_of_few_or_near_samples() -> None:
    assert begun(*(sample(n) for n in range(100, 107))).snapshot().decode.lanes["dense-12"].exponent is None
    assert begun(*(sample(n) for n in range(1000, 1040))).snapshot().decode.lanes["dense-12"].exponent is None
    assert begun(*(sample(n) for n in range(1000, 1300))).snapshot().decode.lanes["dense-12"].exponent == pytest.approx(0)


def test_no_exponent_is_claimed_of_times_that_scatter() -> None:
    wild = [sample(n, time_ns=1e6 * (1 + 30 * (n * 7919 % 13))) for n in range(32, 50)]
    assert begun(*wild).snapshot().decode.lanes["dense-12"].exponent is None


def test_a_few_slow_steps_do_not_bend_the_exponent() -> None:
    slow = {100, 101, 102, 150, 333}
    lanes = begun(*(sample(n, time_ns=1e4 * n * (100 if n in slow else 1)) for n in range(100, 700))).snapshot().decode.lanes
    assert lanes["dense-12"].exponent == pytest.approx(1.0, abs=0.01)


def test_the_trend_is_of_as_many_groups_of_neighbours() -> None:
    series = begun(*(sample(n, time_ns=float(n)) for n in range(1, 331))).snapshot().decode.lanes["dense-12"]
    assert len(series.trend_ns) == 33
    assert series.trend_ns.tolist() == series.trend_position.tolist() == [5.5 + 10 * i for i in range(33)]
    short = begun(*(sample(n) for n in range(1, 40))).snapshot().decode.lanes["dense-12"]
    assert short.trend_position.tolist() == short.position.tolist()


def test_a_prompt_begins_a_lane_anew_and_a_position_that_is_not_beyond_the_last_too() -> None:
    store = begun(sample(128, prefill=True), sample(129), sample(130),
                  LaneDone(generation=1, lane="dense-12", tokens=((1,),)))
    store.reduce(sample(128, prefill=True))
    lanes = store.snapshot().decode.lanes
    assert len(lanes["dense-12"].position) == 0
    assert lanes["dense-12"].median_ns is None
    assert store.snapshot().decode.done == {}
    for event in (sample(140), sample(150), sample(150)):
        store.reduce(event)
    assert store.snapshot().decode.lanes["dense-12"].position.tolist() == [150]


@pytest.mark.parametrize("event", [
    sample(129, generation=0), sample(129, lane="gone"), sample(129, time_ns=0), sample(0), sample(129, steps=0),
    replace(sample(129), generation=7), LaneDone(generation=1, lane="gone", tokens=()),
    MemorySample(generation=0, owners={"weights": 1}), Refused(generation=0, reason="late", kernel="dense-12"),
])
def test_what_is_stale_or_of_no_lane_is_dropped(event: Event) -> None:
    store = begun(sample(129))
    before = store.snapshot().decode
    store.reduce(event)
    after = store.snapshot().decode
    assert {name: len(series.position) for name, series in after.lanes.items()} == {"dense-12": 1}
    assert (after.done, after.refusals, after.memory) == (before.done, before.refusals, before.memory)


def test_a_new_decoding_forgets_the_samples_and_keeps_the_hues() -> None:
    store = reduced(*decode_feed.run(until=0.2))
    hues = store.snapshot().decode.hues
    run = decode_feed.decoding(caches=("dense", "paged"))
    store.reduce(decode_feed.planned(run, generation=2))
    after = store.snapshot().decode
    assert after.lanes == {}
    assert after.memory is None
    assert after.hues["dense-12"] == hues["dense-12"]
    assert after.hues["paged-12"] == hues["none-12"]
    store.reduce(sample(129, generation=1))     # late
    assert store.snapshot().decode.lanes == {}


def test_the_memory_kept_is_the_most_of_this_decoding() -> None:
    store = begun(*(MemorySample(generation=1, owners={"weights": 10, "KV cache": held}) for held in (2, 5, 0)))
    memory = store.snapshot().decode.memory
    assert memory is not None
    assert memory.owners["KV cache"] == 5
    store.reduce(decode_feed.planned(decode_feed.decoding(), generation=2))
    store.reduce(MemorySample(generation=2, owners={"weights": 1}))
    memory = store.snapshot().decode.memory
    assert memory is not None
    assert memory.owners == {"weights": 1}


def test_a_snapshot_stays_as_it_was() -> None:
    store = begun(*(sample(n) for n in range(129, 160)))
    before = store.snapshot()
    seen = before.decode.lanes["dense-12"].position.copy()
    for n in range(160, 9000):
        store.reduce(sample(n))
    assert before.decode.lanes["dense-12"].position.tolist() == seen.tolist()
    assert store.snapshot().decode.lanes["dense-12"].position[-1] == 8999


def test_nothing_new_is_the_same_object() -> None:
    store = begun(sample(129))
    decode = store.snapshot().decode
    store.reduce(Phase(generation=1, name="measuring"))
    assert store.snapshot().decode is decode


def test_a_lane_that_is_refused_is_said_whenever_it_is() -> None:
    run = decode_feed.decoding("llama-2-7b", prompt=1000, new=3000, batch=512)
    store = reduced(decode_feed.hello(), decode_feed.planned(run))
    refused = store.snapshot().decode.refusals["dense-32"]
    assert "GiB are free" in refused
    store.reduce(Refused(generation=1, reason="out of memory", kernel="none-32"))
    after = store.snapshot()
    assert after.decode.refusals["none-32"] == "out of memory"
    assert after.refusals == {}
    assert after.decode.running() == []


def test_a_new_prompt_ends_what_a_lane_was_refused_for_while_it_ran_but_not_what_its_plan_refuses() -> None:
    store = begun(sample(129), Refused(generation=1, reason="out of memory", kernel="dense-12"),
                  Refused(generation=1, reason="out of memory", kernel="none-12"))
    store.reduce(sample(129))   # no new start
    assert set(store.snapshot().decode.refusals) == set(LANES)
    store.reduce(sample(128, prefill=True))
    after = store.snapshot().decode
    assert set(after.refusals) == {"none-12"}
    assert [plan.lane.id for plan in after.running()] == ["dense-12"]
    planned = reduced(decode_feed.hello(), decode_feed.planned(decode_feed.decoding(), memory_bytes=1))
    planned.reduce(sample(128, prefill=True))
    assert set(planned.snapshot().decode.refusals) == set(LANES)


def test_kernels_and_decodings_do_not_mix() -> None:
    store = reduced(*feed.run(seconds=2))
    kernels = store.snapshot()
    for event in decode_feed.run(until=0.2, generation=2)[1:]:
        store.reduce(event)
    both = store.snapshot()
    assert both.series.keys() == kernels.series.keys()
    assert both.memory is kernels.memory
    assert both.plans is kernels.plans
    assert verdict_of_kernels(both).text == verdict_of_kernels(kernels).text
    store.reduce(feed.sample("flash", 5.0, 1e6, generation=1))  # late
    assert len(store.snapshot().series["flash"].t_s) == len(kernels.series["flash"].t_s)
    store.reduce(feed.planned(generation=3))
    store.reduce(MemorySample(generation=3, owners={"Q K V O": 1}))
    again = store.snapshot()
    assert again.memory is not None
    assert again.memory.owners == {"Q K V O": 1}
    assert again.decode.lanes.keys() == both.decode.lanes.keys()


def test_another_device_has_other_readings() -> None:
    store = reduced(*feed.run(seconds=2))
    store.reduce(decode_feed.planned(decode_feed.decoding("tiny", prompt=16, new=64), generation=2, device=feed.CPU))
    after = store.snapshot()
    assert after.device is not None
    assert after.device.id == "cpu"
    assert after.telemetry.last is None


def test_a_restarted_engine_begins_with_nothing_planned() -> None:
    store = reduced(*decode_feed.run(until=0.2))
    store.reduce(decode_feed.hello())
    assert store.snapshot().decode == DecodeState()


NUMBERS = st.integers(-5, 1 << 40)
EVENTS = st.lists(st.one_of(
    st.builds(DecodeSample, t_ns=st.integers(0, 10**12), generation=st.integers(0, 3),
              lane=st.sampled_from([*LANES, "paged-1", ""]), position=NUMBERS, steps=NUMBERS, time_ns=st.floats(-1, 1e15),
              prefill=st.booleans(), tokens=st.just((1,)), kv_bytes=NUMBERS, kv_allocated_bytes=NUMBERS,
              kv_nvml_bytes=st.none() | NUMBERS, step_bytes=NUMBERS,
              provenance=st.sampled_from(["measured", "simulated"])),
    st.builds(LaneDone, generation=st.integers(0, 3), lane=st.sampled_from([*LANES, "gone"]), tokens=st.just(((1, 2),)),
              peak_memory_bytes=st.none() | NUMBERS),
    st.builds(MemorySample, generation=st.integers(0, 3),
              owners=st.dictionaries(st.sampled_from(["weights", "KV cache", "other", "x"]), NUMBERS)),
    st.builds(Refused, generation=st.integers(0, 3), reason=st.text(max_size=9), kernel=st.sampled_from([*LANES, "", "flash"])),
    st.builds(KernelSample, generation=st.integers(0, 3), kernel=st.just("flash"), launches=st.just(1), time_ns=st.just(1e6)),
    st.integers(1, 3).map(lambda number: decode_feed.planned(decode_feed.decoding(), generation=number)),
    st.integers(1, 3).map(lambda number: feed.planned(generation=number)),
    st.builds(decode_feed.hello),
), max_size=25)


@given(EVENTS)
@settings(max_examples=150, deadline=None)
def test_whatever_comes_is_reduced(events: list[Event]) -> None:
    store = reduced(decode_feed.hello())
    for event in events:
        store.reduce(decode_event(encode(event)))
        snapshot = store.snapshot()
        assert isinstance(snapshot, Snapshot)
        found = snapshot.decode
        assert set(found.lanes) <= set(found.plans)
        assert set(found.done) <= set(found.plans)
        assert set(found.hues) == set(found.plans)
        for series in found.lanes.values():
            assert (np.diff(series.position) > 0).all()
            assert (series.time_ns > 0).all()
        if isinstance(event, Hello):
            assert found.plans == {}
