"""The store of batchings: what is kept, what is dropped, and that a snapshot never changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching.facts import achieved, foretold_ns, knee, parts, share
from app.batching.state import MODEL, BatchState
from app.series import WINDOW
from app.store import Store
from engine.protocol import BatchSample, Ceilings, Checked, Event, MemorySample, Refused, Work, decode_event, encode
from tests.app import batch_feed, decode_feed, feed
from tests.app.batch_feed import batching, planned

OURS, LIBRARY = "batched_linear", "torch_linear"
SMALL = batching(width=1024, batches=(1, 4, 16))


def reduced(*events: Event) -> Store:
    store = Store()
    for event in events:
        store.reduce(event)
    return store


def sample(batch: int, time_ns: float = 1e6, *, kernel: str = OURS, generation: int = 1) -> BatchSample:
    return BatchSample(generation=generation, kernel=kernel, batch=batch, launches=1, time_ns=time_ns)


def begun(*events: Event) -> Store:
    return reduced(batch_feed.hello(), planned(SMALL), *events)


def state(store: Store) -> BatchState:
    return store.snapshot().batch


def test_a_run_becomes_a_point_a_kernel_and_batch() -> None:
    found = state(reduced(*batch_feed.run()))
    assert found.kernels == (OURS, LIBRARY)
    assert list(found.points[OURS]) == list(found.plans) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    point = found.points[OURS][8]
    assert (point.stats.n, point.provenance, point.source) == (batch_feed.SAMPLES, "measured", "CUDA events")
    assert point.stats.p20 <= point.stats.p50 <= point.stats.p80
    assert found.ceilings is not None
    assert len(found.checks) == 18
    assert found.peak_memory_bytes == max(plan.peak_memory_bytes for plan in found.plans.values())


def test_figures_follow_from_the_median_of_the_newest() -> None:
    times = [9e9] * 5 + [2e3] * WINDOW
    found = state(begun(Ceilings(generation=1, flops_per_s=1e15, bytes_per_s=1e12), *(sample(4, time) for time in times)))
    assert found.times(OURS) == {4: 2e3}
    got, of = achieved(found, OURS, 4), share(found, OURS, 4)
    assert got is not None
    assert of is not None
    assert got.per_s == pytest.approx(4 / 2e-6)
    assert got.flops_per_s == pytest.approx(2 * 4 * 1024**2 / 2e-6)
    assert of.bytes == pytest.approx(2 * (1024**2 + 2 * 4 * 1024) / 2e-6 / 1e12)
    assert achieved(found, OURS, 1) is None
    assert share(state(begun(sample(4))), OURS, 4) is None      # no ceilings yet
    assert foretold_ns(state(begun()), 4) is None


def test_an_rnn_counts_its_steps_and_a_model_its_tokens() -> None:
    steps = state(reduced(*batch_feed.run(batching("rnn", width=1024, steps=5))))
    got = achieved(steps, OURS, 8)
    assert got is not None
    assert got.per_s == pytest.approx(8 * 5 * 1e9 / steps.times(OURS)[8])
    model = state(reduced(*batch_feed.run(batching("model", model="tiny", cached=64))))
    assert model.kernels == (MODEL,)
    tokens = achieved(model, MODEL, 8)
    assert tokens is not None
    assert tokens.per_s == pytest.approx(8e9 / model.times(MODEL)[8])


@pytest.mark.parametrize("work", ["linear", "rnn", "model"])
def test_who_is_moved_sums_to_what_is_moved_and_weights_do_not_grow(work: Work) -> None:
    run = batching(work)
    for batch in run.batches:
        moved = parts(run, batch)
        assert sum(part.size for part in moved) == run.moved_bytes(batch)
        assert moved[0].size == parts(run, 1)[0].size
        assert all(part.size == batch * first.size for part, first in zip(moved[1:], parts(run, 1)[1:], strict=True))


def test_the_knee_waits_for_what_it_is_made_of() -> None:
    assert knee(BatchState()) == (None, None)
    assert knee(state(begun(sample(1), sample(4), sample(16, 1e7)))).predicted is None
    bend = knee(state(reduced(*batch_feed.run())))
    assert bend.predicted == pytest.approx(195, abs=1)
    assert bend.measured == pytest.approx(195, rel=0.1)


@pytest.mark.parametrize("event", [
    sample(1, generation=0), sample(1, generation=7), sample(3), sample(1, kernel="flash"), sample(1, time_ns=0),
    Ceilings(generation=0, flops_per_s=1e12, bytes_per_s=1e12), Ceilings(generation=1, flops_per_s=0.0, bytes_per_s=1e12),
    Refused(generation=0, reason="late", kernel=OURS, batch=1), Refused(generation=1, reason="which", kernel=OURS),
    Checked(generation=1, kernel=OURS, batch=3, ok=False, max_error=1, tolerance=0, rows=1),
    MemorySample(generation=1, owners={"W": 1}),
])
def test_what_is_stale_or_of_no_batch_is_dropped(event: Event) -> None:
    store = begun(sample(1))
    before = state(store)
    store.reduce(event)
    assert state(store) is before


def test_a_late_sample_of_the_batching_before_is_dropped() -> None:
    store = begun(sample(1))
    store.reduce(planned(SMALL, generation=2))
    store.reduce(sample(4, generation=1))
    store.reduce(Ceilings(generation=1, flops_per_s=1e12, bytes_per_s=1e12))
    assert state(store).points == {OURS: {}, LIBRARY: {}}
    assert state(store).ceilings is None
    store.reduce(sample(4, generation=2))
    assert state(store).times(OURS) == {4: 1e6}


def test_refusals_are_of_a_kernel_and_a_batch_and_the_others_go_on() -> None:
    store = begun(Refused(generation=1, kernel=OURS, batch=16, reason="it broke"), sample(1))
    assert state(store).refusals == {(OURS, 16): "it broke"}
    assert [plan.batch for plan in state(store).running(OURS)] == [1, 4]
    assert [plan.batch for plan in state(store).running(LIBRARY)] == [1, 4, 16]
    assert store.snapshot().refusals == {}


def test_a_plan_that_does_not_fit_is_refused_in_both() -> None:
    small = planned(SMALL, memory_bytes=1 << 10)
    found = state(reduced(batch_feed.hello(), small))
    assert {batch for _, batch in found.refusals} == {1, 4, 16}
    assert found.running(OURS) == []
    assert found.peak_memory_bytes is None
    assert "choose a smaller width" in found.refusals[OURS, 1]


def test_a_snapshot_stays_as_it_was() -> None:
    store = begun(sample(1))
    before = state(store)
    store.reduce(sample(4))
    store.reduce(Refused(generation=1, kernel=OURS, batch=16, reason="no"))
    assert list(before.points[OURS]) == [1]
    assert before.refusals == {}
    assert state(store) is state(store)


def test_labs_take_turns_and_keep_what_they_measured() -> None:
    store = begun(sample(1), Checked(generation=1, kernel=OURS, batch=1, ok=True, max_error=0.0, tolerance=1.0, rows=1))
    store.reduce(decode_feed.planned(decode_feed.decoding(), generation=2))
    store.reduce(Checked(generation=2, kernel="flash", ok=True, max_error=0.0, tolerance=1.0, rows=1))
    store.reduce(Refused(generation=2, kernel="dense-12", reason="no room"))
    assert state(store).times(OURS) == {1: 1e6}
    assert state(store).refusals == {}
    assert store.snapshot().decode.refusals == {"dense-12": "no room"}
    store.reduce(feed.planned(generation=3))
    store.reduce(Refused(generation=3, kernel="flash", reason="no"))
    assert store.snapshot().refusals == {"flash": "no"}
    assert store.snapshot().checks == {}
    assert len(state(store).checks) == 1


def test_a_restarted_engine_has_nothing_yet() -> None:
    store = begun(sample(1))
    store.reduce(batch_feed.hello())
    assert state(store) == BatchState()
    store.reduce(sample(1))
    assert state(store) == BatchState()


def test_hues_are_kept() -> None:
    store = begun()
    hues = state(store).hues
    store.reduce(planned(batching("rnn", width=64), generation=2))
    assert state(store).hues is hues


def test_the_messages_travel() -> None:
    for event in batch_feed.run(SMALL, device=feed.H200, turns=1):
        assert decode_event(encode(event)) == event


@given(st.lists(st.tuples(st.sampled_from([1, 4, 16, 5]), st.floats(-1, 1e15)), max_size=60))
@settings(deadline=None)
def test_whatever_comes_medians_are_those_of_what_counts(samples: list[tuple[int, float]]) -> None:
    found = state(begun(*(sample(batch, time) for batch, time in samples)))
    for batch in (1, 4, 16):
        times = [time for of, time in samples if of == batch and time > 0][-WINDOW:]
        assert (batch in found.points[OURS]) == bool(times)
        if times:
            assert math.isclose(found.times(OURS)[batch], float(np.median(times)), rel_tol=1e-9)
