"""The store: what is kept, what is dropped, and that a snapshot never changes."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.rings import Ring
from app.series import WINDOW
from app.store import Snapshot, Store
from engine.protocol import Bye, Checked, DeviceFound, DeviceSample, Event, Fault, MemorySample, Phase, Refused
from kernels.contract import AttentionWorkload
from tests.app import feed


def reduced(*events: Event) -> Store:
    store = Store()
    for event in events:
        store.reduce(event)
    return store


def test_statistics_are_of_the_newest_samples_of_this_generation() -> None:
    times = [1e6 + 1e4 * i for i in range(100)]
    store = reduced(feed.hello(), feed.planned(), *(feed.sample("flash", i, t) for i, t in enumerate(times)))
    stats = store.snapshot().series["flash"].stats
    assert stats is not None
    assert (stats.p20, stats.p50, stats.p80, stats.n) == (*np.percentile(times[-WINDOW:], (20, 50, 80)), WINDOW)


def test_a_new_generation_starts_statistics_anew_and_keeps_history() -> None:
    store = reduced(*feed.run(seconds=5))
    half = AttentionWorkload(batch=4, seq=2048, heads=16, kv_heads=16, head_dim=128)
    store.reduce(feed.planned(workload=half, generation=2, t_s=6))
    series = store.snapshot().series["flash"]
    assert series.stats is None
    assert series.median_tflops is None
    assert len(series.t_s) == 50
    store.reduce(feed.sample("flash", 6.1, 1e6, generation=1))  # late
    store.reduce(feed.sample("flash", 6.2, 1e6, generation=2))
    series = store.snapshot().series["flash"]
    assert series.stats is not None
    assert series.stats.n == 1
    assert series.generation.tolist() == [1] * 50 + [2]
    assert series.tflops[-1] == half.nominal_flops / 1e6 / 1e3
    assert series.tflops[0] == feed.WORKLOAD.nominal_flops / series.time_ns[0] / 1e3


def test_stale_events_change_nothing() -> None:
    store = reduced(feed.hello(), feed.planned(generation=5))
    before = store.snapshot()
    for event in (
        Phase(generation=4, name="measuring"),
        Checked(generation=4, kernel="flash", ok=False, max_error=1, tolerance=0, rows=1),
        MemorySample(generation=3, owners={"other": 1}), Refused(generation=4, reason="late"), feed.planned(generation=4),
    ):
        store.reduce(event)
        assert store.snapshot() is before


def test_a_failed_check_hides_the_speed() -> None:
    store = reduced(feed.hello(), feed.planned(), feed.sample("flash", 1, 1e6))
    assert store.snapshot().shown("flash") is not None
    store.reduce(Checked(generation=1, kernel="flash", ok=False, max_error=0.5, tolerance=0.02, rows=64))
    assert store.snapshot().failed("flash")
    assert store.snapshot().shown("flash") is None


def test_nothing_new_is_the_same_snapshot_and_an_unchanged_part_the_same_object() -> None:
    store = reduced(*feed.run(seconds=1))
    first = store.snapshot()
    assert store.snapshot() is first
    store.reduce(feed.device_sample(9.0))
    second = store.snapshot()
    assert second is not first
    assert second.telemetry is not first.telemetry
    assert second.series is first.series
    assert second.plans is first.plans


def test_a_snapshot_stays_as_it_was_for_good() -> None:
    store = reduced(feed.hello(), feed.planned(), *(feed.sample("flash", i / 10, 1e6 + i) for i in range(5000)))
    held = store.snapshot().series["flash"]
    copies = [held.t_s.copy(), held.time_ns.copy(), held.generation.copy(), held.tflops.copy()]
    for i in range(9000):
        store.reduce(feed.sample("flash", 500 + i / 10, 2e6))
    store.reduce(feed.hello())
    for array, copy in zip((held.t_s, held.time_ns, held.generation, held.tflops), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_missing_counters_are_nan_and_their_reasons_kept() -> None:
    sample = DeviceSample(t_ns=10**9, device="cuda:0", utilisation=0.5, missing={"power_w": "vGPU"})
    store = reduced(feed.hello(), sample)
    telemetry = store.snapshot().telemetry
    assert math.isnan(telemetry.power_w[0])
    assert telemetry.utilisation.tolist() == [0.5]
    assert telemetry.last is not None
    assert telemetry.last.missing == {"power_w": "vGPU"}


def test_telemetry_begins_anew_with_another_device() -> None:
    store = reduced(*feed.run(seconds=2))
    store.reduce(feed.planned(device=feed.CPU, generation=2))
    assert len(store.snapshot().telemetry.t_s) == 0
    store.reduce(feed.device_sample(3.0))  # still of the GPU
    assert len(store.snapshot().telemetry.t_s) == 0
    store.reduce(feed.device_sample(3.1, feed.CPU))
    assert len(store.snapshot().telemetry.t_s) == 1
    assert store.snapshot().device == feed.CPU


def test_a_restarted_engine_goes_on_after_what_was_drawn() -> None:
    store = reduced(*feed.run(seconds=3))
    end = store.snapshot().now_s
    for event in (Fault(message="illegal access", remedy="Restart the engine", fatal=True), feed.hello(), feed.planned(),
                  feed.sample("flash", 1.0, 1e6)):
        store.reduce(event)
    series = store.snapshot().series["flash"]
    assert store.snapshot().fault is None
    assert series.t_s[-1] == end + 1.0
    assert series.stats is not None
    assert series.stats.n == 1
    assert set(series.generation[:-1].tolist()) == {-1}


def test_refusals_come_from_plans_and_from_events() -> None:
    store = reduced(feed.hello(), feed.planned(refused={"naive": "it does not fit"}))
    store.reduce(Refused(generation=1, kernel="flash", reason="no compiler"))
    store.reduce(Refused(generation=2, reason="batch 0: choose 1 or more"))  # a command that got no plan
    assert store.snapshot().refusals == {"naive": "it does not fit", "flash": "no compiler", "": "batch 0: choose 1 or more"}
    store.reduce(feed.planned(generation=3))
    assert store.snapshot().refusals == {}


def test_more_found_of_a_device_replaces_it() -> None:
    found = DeviceFound(device=feed.H200.__class__(id="cuda:0", kind="cuda", name="NVIDIA H200 NVL", sms=132))
    store = reduced(feed.hello(), feed.planned(), found)
    assert store.snapshot().device == found.device


def test_the_end_leaves_the_data() -> None:
    store = reduced(*feed.run(seconds=1), Bye(reason="asked"))
    assert store.snapshot().phase is None
    assert len(store.snapshot().series["flash"].t_s) == 10


def test_a_kernel_keeps_its_hue_for_as_long_as_it_is_chosen() -> None:
    store = reduced(feed.hello(), feed.planned(("naive", "flash", "sdpa_math")))
    before = store.snapshot().hues
    assert before == {"naive": 0, "flash": 1, "sdpa_math": 2}
    store.reduce(feed.planned(("flash", "sdpa_math"), generation=2))
    assert store.snapshot().hues == {"flash": 1, "sdpa_math": 2}
    store.reduce(feed.planned(("naive", "flash", "sdpa_math", "sdpa_cudnn"), generation=3))
    after = store.snapshot()
    assert [after.index(kernel) for kernel in ("flash", "sdpa_math")] == [1, 2]
    assert sorted(after.hues.values()) == [0, 1, 2, 3]


def test_titles_are_the_engines_and_an_unknown_kernel_has_its_id() -> None:
    one = reduced(feed.hello(), feed.planned(("flash",))).snapshot()
    assert one.title("sdpa_cudnn") == "SDPA cuDNN"
    assert one.title("unheard_of") == "unheard_of"


EVENTS = st.one_of(
    st.builds(feed.sample, st.sampled_from(("naive", "flash", "unheard_of")), st.floats(0, 1e3), st.floats(-1, 1e9),
              generation=st.integers(0, 4)),
    st.builds(lambda g, t: feed.planned(("flash",), generation=g, t_s=t), st.integers(0, 4), st.floats(0, 1e3)),
    st.builds(Phase, generation=st.integers(0, 4), name=st.sampled_from(("idle", "measuring"))),
    st.builds(feed.device_sample, st.floats(0, 1e3), st.sampled_from((feed.H200, feed.CPU))),
    st.builds(Refused, generation=st.integers(0, 4), reason=st.text(max_size=5), kernel=st.sampled_from(("", "flash"))),
    st.just(feed.hello()), st.builds(Bye),
)


@settings(max_examples=60)
@given(st.lists(EVENTS, max_size=40))
def test_any_order_of_events_leaves_a_sound_snapshot(events: list[Event]) -> None:
    store, now_s = Store(), 0.0
    for event in events:
        store.reduce(event)
        snapshot = store.snapshot()
        assert isinstance(snapshot, Snapshot)
        assert snapshot.now_s >= now_s
        now_s = snapshot.now_s
        for series in snapshot.series.values():
            assert len(series.t_s) == len(series.time_ns) == len(series.generation) == len(series.tflops)
            assert (series.time_ns > 0).all()
            if series.stats is not None:
                assert series.stats.n == min(WINDOW, int((series.generation == snapshot.generation).sum()))


@given(st.lists(st.floats(0, 1), max_size=60), st.integers(1, 7))
def test_a_ring_holds_the_newest(values: list[float], keep: int) -> None:
    ring = Ring(1, keep)
    for value in values:
        ring.append((value,))
    kept = ring.rows[0].tolist()
    assert kept == values[len(values) - len(kept):]
    assert len(kept) >= min(keep, len(values))
