"""The controls of the batching lab, operated: what they choose, what is hidden, what they say before anyone runs."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app.batching.choice import BatchChoice, first_choice
from app.panels.batch_controls import BatchControls
from app.panels.form import number_of
from app.store import Store
from app.theme import Theme
from engine.protocol import Event
from tests.app import batch_feed, feed


@pytest.fixture
def controls(qtbot: QtBot) -> BatchControls:
    made = BatchControls(Theme.load("dark"))
    qtbot.addWidget(made)
    made.resize(280, 900)
    made.build(batch_feed.hello(), first_choice(feed.H200, batch_feed.hello().models))
    made.show()
    return made


def chosen(controls: BatchControls) -> BatchChoice:
    assert controls.choice is not None
    return controls.choice


def feed_to(controls: BatchControls, *events: Event) -> None:
    store = Store()
    for event in events:
        store.reduce(event)
    controls.update_from(store.snapshot())


def pick_work(controls: BatchControls, work: str) -> None:
    place = controls.works.findData(work)
    controls.works.setCurrentIndex(place)
    controls.works.activated.emit(place)


def pick_model(controls: BatchControls, name: str) -> None:
    place = next(i for i in range(controls.models.count()) if controls.models.itemData(i).id == name)
    controls.models.setCurrentIndex(place)
    controls.models.activated.emit(place)


def visible(controls: BatchControls) -> set[str]:
    rows = {"model": controls.models, **controls.fields}
    return {name for name, row in rows.items() if row.isVisible()}


def test_what_means_nothing_to_the_work_is_hidden(controls: BatchControls) -> None:
    assert visible(controls) == {"width", "dtype"}
    pick_work(controls, "rnn")
    assert visible(controls) == {"width", "steps", "dtype"}
    pick_work(controls, "model")
    assert visible(controls) == {"model", "cached", "dtype"}
    assert chosen(controls).batching().model == batch_feed.MODELS["gpt2"]


def test_a_width_is_a_multiple_of_sixteen(controls: BatchControls) -> None:
    number_of(controls, "width").box.setValue(1000)
    assert chosen(controls).width == 992
    assert number_of(controls, "width").box.value() == 992


def test_every_position_of_every_slider_can_run(controls: BatchControls) -> None:
    for work, names in (("linear", ("width",)), ("rnn", ("width", "steps")), ("model", ("cached",))):
        pick_work(controls, work)
        for name in names:
            slider = number_of(controls, name).slider
            for place in range(slider.maximum(), -1, -1):
                slider.setValue(place)
                assert chosen(controls).batching().work == work


def test_a_model_has_as_many_cached_tokens_as_its_context_has_room_for(controls: BatchControls) -> None:
    pick_work(controls, "model")
    pick_model(controls, "tiny")
    assert chosen(controls).cached == 255
    number_of(controls, "cached").box.setValue(5000)
    assert chosen(controls).cached == 255
    assert number_of(controls, "cached").slider.steps[-1] == 255


def test_a_model_that_is_not_among_them_is_named_all_the_same(controls: BatchControls) -> None:
    from msgspec.structs import replace

    other = replace(batch_feed.MODELS["gpt2"], id="other", title="Another one")
    controls.show_choice(replace(chosen(controls), work="model", model=other))
    assert controls.models.currentIndex() == -1
    assert controls.models.placeholderText() == "Another one"


def test_edits_of_one_drag_share_a_number(controls: BatchControls) -> None:
    seen: list[int] = []
    controls.edited.connect(seen.append)
    slider = number_of(controls, "width").slider
    slider.setSliderDown(True)
    for place in (3, 4, 5):
        slider.setValue(place)
    slider.setSliderDown(False)
    slider.setValue(6)
    assert seen[0] == seen[1] == seen[2] > 0
    assert seen[3] == 0


def test_another_device_begins_with_what_it_can_and_keeps_the_work(controls: BatchControls) -> None:
    pick_work(controls, "rnn")
    place = controls.devices.findData("cpu")
    controls.devices.setCurrentIndex(place)
    controls.devices.activated.emit(place)
    assert (chosen(controls).device, chosen(controls).work, chosen(controls).dtype) == ("cpu", "rnn", "float32")


def test_batches_that_do_not_fit_are_told(controls: BatchControls) -> None:
    feed_to(controls, batch_feed.hello(), batch_feed.planned(batch_feed.batching("model", model="llama-2-7b", cached=3000)))
    assert controls.reason.text().startswith("batch 128, 256: it needs 201 GiB")
    assert controls.reason.isVisible()
    feed_to(controls, *batch_feed.run(turns=1))
    assert not controls.reason.isVisible()
    assert controls.peak.text().startswith("predicted peak 260")
    assert controls.run.text() == "Stop"
