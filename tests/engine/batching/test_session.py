"""A session runs work at many batch sizes on the host: ceilings first, each batch checked and timed; stopped and replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.batching import bench
from engine.batching.bench import LIBRARY, MODEL
from engine.batching.plan import OURS
from engine.batching.work import Batching, Work
from engine.bench import ceilings
from engine.models.decoder import Decoder
from engine.models.generate import Generation
from engine.protocol import (
    BatchingPlanned,
    BatchSample,
    CacheKind,
    Ceilings,
    Checked,
    ConfigureBatching,
    Event,
    Fault,
    Phase,
    Refused,
    Start,
    Stop,
)
from kernels.catalog import catalog
from kernels.contract import KernelSpec
from tests.engine.models.test_session import TINY, Conversation

BATCHES = (1, 3, 8)


def batching(work: Work = "linear", **more: object) -> Batching:
    model = TINY if work == "model" else None
    return Batching(work=work, model=model, **{  # type: ignore[arg-type]
        "width": 64, "steps": 3, "cached": 20, "dtype": "float32", "batches": BATCHES, **more})


def configure(batching: Batching, generation: int = 1) -> ConfigureBatching:
    return ConfigureBatching(generation=generation, device="cpu", batching=batching)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings of a small product and a short read."""
    monkeypatch.setattr(ceilings, "PRODUCT", 512)
    monkeypatch.setattr(ceilings, "HOST_BYTES", 1 << 20)


@pytest.fixture
def talk() -> Conversation:
    return Conversation(catalog())


def points(events: list[Event], generation: int = 1) -> set[tuple[str, int]]:
    return {(event.kernel, event.batch) for event in events if isinstance(event, BatchSample)
            and event.generation == generation}


@pytest.mark.parametrize("work", ["linear", "rnn"])
def test_every_batch_is_checked_and_timed_by_both(talk: Conversation, work: Work) -> None:
    talk.send(configure(batching(work)), Start(seconds=0.05))
    talk.idle()
    wanted = {(kernel, batch) for kernel in (OURS, LIBRARY) for batch in BATCHES}
    assert [event.batching for event in talk.heard if isinstance(event, BatchingPlanned)] == [batching(work)]
    assert points(talk.heard) == wanted
    checks = [event for event in talk.heard if isinstance(event, Checked)]
    assert {(event.kernel, event.batch) for event in checks} == wanted
    assert all(event.ok and event.max_error <= event.tolerance for event in checks)
    kinds = [type(event) for event in talk.heard]
    assert kinds.count(Ceilings) == 1
    assert kinds.index(Ceilings) < kinds.index(Checked) < kinds.index(BatchSample)
    assert all(event.time_ns > 0 and event.source == "host clock" for event in talk.heard if isinstance(event, BatchSample))
    assert not [event for event in talk.heard if isinstance(event, Refused | Fault)]
    last = [event for event in talk.heard if isinstance(event, Phase) and event.name == "measuring"][-1]
    assert (last.done, last.total) == (6, 6)
    talk.close()


def test_a_whole_model_is_timed_at_every_batch(talk: Conversation) -> None:
    talk.send(configure(batching("model")), Start(seconds=0.05))
    talk.idle()
    assert points(talk.heard) == {(MODEL, batch) for batch in BATCHES}
    assert not [event for event in talk.heard if isinstance(event, Refused | Fault)]
    talk.close()


def test_caches_that_do_not_fit_beside_each_other_take_turns(talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[int, int] = {}

    class Crowded(Generation):
        """A generation on a device that has room for eight sequences."""

        def __init__(self, decoder: Decoder, cache: CacheKind, batch: int, *more: Any, **options: Any) -> None:
            if sum(held.values()) + batch > max(BATCHES):
                raise MemoryError("full")
            super().__init__(decoder, cache, batch, *more, **options)
            held[id(self)] = batch

        def close(self) -> None:
            held.pop(id(self), None)
            super().close()

    monkeypatch.setattr(bench, "Generation", Crowded)
    talk.send(configure(batching("model")), Start(seconds=0.5))
    talk.idle()
    assert points(talk.heard) == {(MODEL, batch) for batch in BATCHES}
    assert not [event for event in talk.heard if isinstance(event, Refused | Fault)]
    assert held == {}
    talk.close()


def test_a_cache_up_to_the_last_token_of_the_context_is_timed(talk: Conversation) -> None:
    talk.send(configure(batching("model", cached=TINY.context - 1, batches=(2,))), Start(seconds=0.05))
    talk.idle()
    assert points(talk.heard) == {(MODEL, 2)}
    talk.close()


def test_all_batch_sizes_read_one_w() -> None:
    spec, places = catalog()[LIBRARY], set[int]()

    def launch(workload, config, tensors):  # type: ignore[no-untyped-def]
        places.add(tensors["W"].data_ptr())
        return spec.launch(workload, config, tensors)

    talk = Conversation({**catalog(), LIBRARY: replace(spec, launch=launch)})
    talk.send(configure(batching()), Start(seconds=0.05))
    talk.idle()
    assert len(places) == 1
    talk.close()


def test_stopped_and_replaced_it_leaves_the_old_behind(talk: Conversation) -> None:
    talk.send(configure(batching()), Start())
    talk.until(lambda event: isinstance(event, BatchSample))
    talk.send(configure(batching(width=128), generation=2))
    talk.until(lambda event: isinstance(event, BatchingPlanned) and event.generation == 2)
    heard = len(talk.heard)
    talk.until(lambda event: isinstance(event, BatchSample))
    assert {event.generation for event in talk.heard[heard:] if isinstance(event, BatchSample | Ceilings | Checked)} == {2}
    talk.send(Stop())
    talk.idle()
    talk.close()


def test_a_batch_that_breaks_or_is_wrong_is_named_and_the_others_go_on() -> None:
    spec = catalog()[LIBRARY]

    def launch(workload, config, tensors):  # type: ignore[no-untyped-def]
        run = spec.launch(workload, config, tensors)
        if workload.batch == 3:
            raise RuntimeError("a bad day\nat line 7")
        return (lambda: {name: 2 * out for name, out in run().items()}) if workload.batch == 8 else run

    broken: dict[str, KernelSpec] = {**catalog(), LIBRARY: replace(spec, launch=launch)}
    talk = Conversation(broken)
    talk.send(configure(batching()), Start(seconds=0.05))
    talk.idle()
    refused = {event.batch: event for event in talk.heard if isinstance(event, Refused)}
    assert {event.kernel for event in refused.values()} == {LIBRARY}
    assert refused[3].reason == "it broke: a bad day"
    assert refused[8].reason.startswith("its output is wrong by")
    assert [event.batch for event in talk.heard if isinstance(event, Checked) and not event.ok] == [8]
    assert [event.message for event in talk.heard if isinstance(event, Fault)] == ["batch 3 broke: a bad day"]
    assert points(talk.heard) == {(OURS, 1), (OURS, 3), (OURS, 8), (LIBRARY, 1)}
    talk.close()
