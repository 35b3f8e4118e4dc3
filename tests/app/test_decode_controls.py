"""The controls of the decode lab, operated: what they choose, what they keep consistent, what they say before anyone runs."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app.decoding.choice import DecodeChoice, first_choice
from app.panels.decode_controls import DecodeControls
from app.panels.form import number_of
from app.store import Store
from app.theme import Theme
from engine.protocol import Event
from tests.app import decode_feed, feed


@pytest.fixture
def controls(qtbot: QtBot) -> DecodeControls:
    made = DecodeControls(Theme.load("dark"))
    qtbot.addWidget(made)
    made.resize(280, 1200)
    made.build(decode_feed.hello(), first_choice(feed.H200, decode_feed.hello().models))
    made.show()
    return made


def chosen(controls: DecodeControls) -> DecodeChoice:
    assert controls.choice is not None
    return controls.choice


def feed_to(controls: DecodeControls, *events: Event) -> None:
    store = Store()
    for event in events:
        store.reduce(event)
    controls.update_from(store.snapshot())


def pick_model(controls: DecodeControls, name: str) -> None:
    place = next(i for i in range(controls.models.count())
                 if getattr(controls.models.itemData(i), "id", "custom") == name)
    controls.models.setCurrentIndex(place)
    controls.models.activated.emit(place)


def test_every_model_is_there_and_custom(controls: DecodeControls) -> None:
    titles = [controls.models.itemText(i) for i in range(controls.models.count())]
    assert titles == ["custom", *(model.title for model in decode_feed.hello().models)]
    assert controls.models.currentText() == "GPT-2 small"


def test_ticks_make_lanes(controls: DecodeControls, qtbot: QtBot) -> None:
    with qtbot.waitSignal(controls.edited):
        QTest.keyClick(controls.caches["paged"], Qt.Key.Key_Space)
    controls.attentions["MQA"].setChecked(True)
    controls.caches["none"].setChecked(False)
    assert [lane.id for lane in chosen(controls).lanes()] == ["dense-12", "paged-12", "dense-1", "paged-1"]


def test_the_group_snaps_to_what_divides_and_counts_only_where_gqa_is_ticked(controls: DecodeControls) -> None:
    group = number_of(controls, "group")
    assert not group.isEnabled()
    controls.attentions["GQA"].setChecked(True)
    assert group.isEnabled()
    assert group.slider.steps == [1, 2, 3, 4, 6, 12]
    group.slider.setValue(2)
    assert chosen(controls).group == 3
    assert {lane.kv_heads for lane in chosen(controls).lanes()} == {12, 4}
    group.box.setValue(5)      # divides nothing: the next below
    assert chosen(controls).group == 4


def test_a_model_brings_its_heads_and_its_context(controls: DecodeControls) -> None:
    pick_model(controls, "llama-3-8b")
    assert chosen(controls).attentions == ("GQA",)
    assert number_of(controls, "layers").box.value() == 32
    assert controls.attentions["GQA"].isChecked()
    pick_model(controls, "tiny")
    assert chosen(controls).decoding().tokens <= 256


def test_a_slider_of_the_shape_makes_a_custom_model(controls: DecodeControls) -> None:
    number_of(controls, "layers").box.setValue(3)
    assert (chosen(controls).model.id, chosen(controls).model.layers) == ("custom", 3)
    assert controls.models.currentText() == "custom"
    number_of(controls, "heads").box.setValue(7)
    model = chosen(controls).model
    assert (model.heads, model.kv_heads) == (7, 7)
    number_of(controls, "context").box.setValue(64)
    assert chosen(controls).decoding().tokens <= 64
    pick_model(controls, "custom")
    assert controls.shape.isChecked()
    assert number_of(controls, "layers").isVisible()


def test_every_position_of_every_slider_can_be_decoded(controls: DecodeControls) -> None:
    for name in ("layers", "hidden", "heads", "head_dim", "context", "mlp", "group", "batch", "prompt", "new"):
        slider = number_of(controls, name).slider
        for place in (*range(slider.maximum() + 1), slider.maximum() // 2):
            slider.setValue(place)
            assert chosen(controls).decoding().lanes


def test_more_new_tokens_take_from_the_prompt_and_the_other_way_round(controls: DecodeControls) -> None:
    number_of(controls, "new").box.setValue(1000)
    assert (chosen(controls).prompt, chosen(controls).new) == (24, 1000)
    number_of(controls, "prompt").box.setValue(1000)
    assert (chosen(controls).prompt, chosen(controls).new) == (1000, 24)


def test_edits_of_one_drag_share_a_number(controls: DecodeControls) -> None:
    seen: list[int] = []
    controls.edited.connect(seen.append)
    batch = number_of(controls, "batch")
    batch.slider.setSliderDown(True)
    for place in (3, 4, 5):
        batch.slider.setValue(place)
    batch.slider.setSliderDown(False)
    QTest.keyClick(batch.slider, Qt.Key.Key_Left)
    assert seen[0] == seen[1] == seen[2] > 0
    assert seen[3] == 0


def test_another_device_begins_with_what_it_can(controls: DecodeControls) -> None:
    place = controls.devices.findData("cpu")
    controls.devices.setCurrentIndex(place)
    controls.devices.activated.emit(place)
    assert (chosen(controls).device, chosen(controls).model.id, chosen(controls).dtype) == ("cpu", "tiny", "float32")


def test_a_refused_lane_says_why_beside_its_box(controls: DecodeControls) -> None:
    run = decode_feed.decoding("llama-2-7b", prompt=1000, new=3000, batch=128)
    feed_to(controls, decode_feed.hello(), decode_feed.planned(run))
    assert "GiB are free: choose fewer tokens" in controls.reasons["dense"].text()
    assert controls.reasons["dense"].isVisible()
    assert not controls.reasons["none"].isVisible()
    assert controls.costs["dense"].text().startswith("271")
    feed_to(controls, decode_feed.hello(), decode_feed.planned(decode_feed.decoding("llama-2-7b")))
    assert not controls.reasons["dense"].isVisible()


def test_of_several_lanes_of_a_cache_the_refused_one_is_named(controls: DecodeControls) -> None:
    run = decode_feed.decoding("llama-2-7b", ("dense",), (32, 1), prompt=1000, new=3000, batch=128)
    feed_to(controls, decode_feed.hello(), decode_feed.planned(run))
    assert controls.reasons["dense"].text().startswith("dense MHA: it needs")


def test_sliders_are_marked_where_something_stops_fitting(controls: DecodeControls) -> None:
    run = decode_feed.decoding("llama-2-7b", ("none", "dense"), prompt=500, new=1000, batch=128)
    controls.show_choice(first_choice(feed.H200, decode_feed.hello().models).of_model(decode_feed.MODELS["llama-2-7b"]))
    plan = decode_feed.planned(run)
    feed_to(controls, decode_feed.hello(), plan)
    dense = next(one for one in plan.plans if one.lane.cache == "dense")
    assert dense.longest is not None
    assert number_of(controls, "new").slider.marks == (dense.longest - chosen(controls).prompt,)
    assert dense.largest_batch in number_of(controls, "batch").slider.marks
    assert "dense fits up to" in number_of(controls, "batch").slider.toolTip()


def test_what_it_costs_stands_above_the_button(controls: DecodeControls) -> None:
    feed_to(controls, *decode_feed.run(until=0.1))
    assert controls.peak.text().startswith("predicted peak 774")
    assert controls.run.text() == "Stop"
