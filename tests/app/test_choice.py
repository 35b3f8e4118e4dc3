"""Choices: what runs, what a picture brings back, what undo undoes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.choice import Choice, first_choice, fitted, restored
from app.configuration import Configuration
from app.history import History
from engine.protocol import Hello
from kernels.contract import AttentionWorkload
from tests.app import feed

CHOICE = Choice(device="cuda:0", workload=feed.WORKLOAD, kernels=("naive", "flash"))


def with_batch(batch: int) -> Choice:
    return CHOICE.with_values({**CHOICE.values(), "batch": batch})


def test_a_device_begins_with_a_shape_of_its_own() -> None:
    assert first_choice(feed.H200).workload.dtype == "bfloat16"
    assert first_choice(feed.CPU).workload.dtype == "float32"
    assert "sdpa_cudnn" not in first_choice(feed.CPU).kernels


def test_values_and_workload_are_the_same_thing() -> None:
    assert CHOICE.with_values(CHOICE.values()) == CHOICE
    with pytest.raises(msgspec.ValidationError):
        CHOICE.with_values({**CHOICE.values(), "kv_heads": 3})


def test_parameters_of_kernels_that_do_not_run_are_kept_but_not_sent() -> None:
    choice = msgspec.structs.replace(CHOICE, params={"flash": {"block_m": 64}, "other": {"warps": 4}})
    assert choice.configure(7).params == {"flash": {"block_m": 64}}
    assert choice.configure(7).generation == 7


def test_a_picture_of_another_machine_runs_on_this_one_and_says_so() -> None:
    shown = Configuration(lab="attention", device="cuda:3", workload=feed.WORKLOAD, kernels=("naive", "gone"))
    choice, differs = restored(shown, feed.hello(), "cpu")
    assert (choice.device, choice.kernels) == ("cpu", ("naive",))
    assert "cuda:3" in differs
    assert "gone" in differs


def test_a_picture_of_this_machine_is_restored_without_a_word() -> None:
    shown = Configuration(lab="attention", device="cuda:0", workload=feed.WORKLOAD, kernels=("flash",),
                          params={"flash": {"block_m": 64}})
    choice, differs = restored(shown, feed.hello(), "cpu")
    assert differs == ""
    assert choice.params == {"flash": {"block_m": 64}}


def test_what_was_kept_serves_only_where_it_still_can() -> None:
    assert fitted(CHOICE, feed.hello()) == CHOICE
    assert fitted(msgspec.structs.replace(CHOICE, device="cuda:9"), feed.hello()) is None
    assert fitted(msgspec.structs.replace(CHOICE, kernels=("gone",)), feed.hello()) is None
    empty = Hello(devices=(feed.H200,), kernels=(), fields=(), models=())
    assert fitted(CHOICE, empty) is None


@given(st.lists(st.integers(1, 64), min_size=1, max_size=12))
def test_undoing_everything_leads_back_and_redoing_forth(batches: list[int]) -> None:
    seen: list[Choice] = []
    history = History(seen.append)
    history.begin(CHOICE)
    for batch in batches:
        history.choose(with_batch(batch))
    last = history.current
    while history.stack.canUndo():
        history.stack.undo()
    assert history.current == CHOICE
    while history.stack.canRedo():
        history.stack.redo()
    assert history.current == last == seen[-1]


def test_a_drag_is_one_step() -> None:
    history = History(lambda _: None)
    history.begin(CHOICE)
    for batch in (8, 16, 32):
        history.choose(with_batch(batch), drag=5)
    history.choose(with_batch(64), drag=6)
    assert history.stack.count() == 2
    history.stack.undo()
    assert history.current == with_batch(32)
    history.stack.undo()
    assert history.current == CHOICE


def test_a_step_has_the_name_of_what_changed() -> None:
    history = History(lambda _: None)
    history.begin(CHOICE)
    history.choose(with_batch(8))
    assert history.stack.undoText() == "batch"
    history.choose(msgspec.structs.replace(with_batch(8), kernels=("flash",)))
    assert history.stack.undoText() == "kernels"


def test_the_default_workload_is_a_choice() -> None:
    assert Choice(device="cpu", workload=AttentionWorkload(), kernels=()).values()["pass"] == "forward"
