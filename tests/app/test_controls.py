"""The controls, operated: what they send, what they keep consistent, what they say before anyone presses Run."""

from __future__ import annotations

import msgspec
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QCheckBox, QComboBox
from pytestqt.qtbot import QtBot

from app.choice import Choice, first_choice
from app.panels.controls import Controls
from app.panels.fields import IntControl
from app.store import Store
from app.theme import Theme
from engine.protocol import KernelPlan
from kernels.catalog import catalog
from tests.app import feed


@pytest.fixture
def controls(qtbot: QtBot) -> Controls:
    made = Controls(Theme.load("dark"))
    qtbot.addWidget(made)
    made.resize(280, 900)
    made.build(feed.hello(), first_choice(feed.H200))
    made.show()
    return made


def number(controls: Controls, name: str) -> IntControl:
    control = controls.fields[name]
    assert isinstance(control, IntControl)
    return control


def chosen(controls: Controls) -> Choice:
    assert controls.choice is not None
    return controls.choice


def test_every_field_of_the_workload_has_a_control(controls: Controls) -> None:
    assert list(controls.fields) == [field.name for field in feed.hello().fields]
    assert chosen(controls) == first_choice(feed.H200)


def test_an_arrow_key_moves_a_slider_to_the_next_useful_value(controls: Controls, qtbot: QtBot) -> None:
    seq = number(controls, "seq")
    with qtbot.waitSignal(controls.edited):
        QTest.keyClick(seq.slider, Qt.Key.Key_Right)
    assert chosen(controls).workload.seq == 8192
    assert seq.box.value() == 8192


def test_a_typed_number_is_taken_though_no_step(controls: Controls) -> None:
    seq = number(controls, "seq")
    seq.box.selectAll()
    QTest.keyClicks(seq.box, "1000")
    QTest.keyClick(seq.box, Qt.Key.Key_Return)
    assert chosen(controls).workload.seq == 1000
    assert seq.slider.value() == 3  # 1024 is nearest


def test_edits_of_one_drag_share_a_number(controls: Controls) -> None:
    seen: list[int] = []
    controls.edited.connect(seen.append)
    batch = number(controls, "batch")
    batch.slider.setSliderDown(True)
    for place in (3, 4, 5):
        batch.slider.setValue(place)
    batch.slider.setSliderDown(False)
    QTest.keyClick(batch.slider, Qt.Key.Key_Left)
    batch.slider.setSliderDown(True)
    batch.slider.setValue(0)
    batch.slider.setSliderDown(False)
    assert len(set(seen[:3])) == 1
    assert seen[0] > 0
    assert seen[3] == 0
    assert seen[4] not in seen[:4]


def test_query_heads_take_kv_heads_along_in_mha_and_keep_them_dividing_elsewhere(controls: Controls) -> None:
    number(controls, "heads").box.setValue(32)
    assert chosen(controls).workload.kv_heads == 32
    QTest.mouseClick(controls.sharing["GQA"], Qt.MouseButton.LeftButton)
    assert chosen(controls).workload.kv_heads == 8
    number(controls, "heads").box.setValue(12)
    assert chosen(controls).workload.kv_heads == 6
    QTest.mouseClick(controls.sharing["MQA"], Qt.MouseButton.LeftButton)
    assert chosen(controls).workload.kv_heads == 1
    assert [kind for kind, button in controls.sharing.items() if button.isChecked()] == ["MQA"]


def test_a_kv_count_that_does_not_divide_becomes_one_that_does(controls: Controls) -> None:
    number(controls, "kv_heads").box.setValue(7)
    assert chosen(controls).workload.kv_heads == 4


def test_a_window_needs_causal_and_goes_with_it(controls: Controls) -> None:
    causal = controls.fields["causal"]
    assert isinstance(causal, QCheckBox)
    number(controls, "window").box.setValue(512)
    causal.setChecked(False)
    assert chosen(controls).workload.window == 0
    number(controls, "window").box.setValue(128)
    assert chosen(controls).workload.causal


def test_a_model_sets_the_shape_and_is_recognised(controls: Controls) -> None:
    controls.models.setCurrentIndex(1)
    controls.models.activated.emit(1)
    workload = chosen(controls).workload
    assert (workload.heads, workload.kv_heads, workload.head_dim) == (32, 8, 128)
    number(controls, "kv_heads").box.setValue(4)
    assert controls.models.currentText() == "custom"
    number(controls, "kv_heads").box.setValue(8)
    assert controls.models.currentText().startswith("Llama-3-8B")


def test_another_device_begins_with_its_own_shape(controls: Controls) -> None:
    place = controls.devices.findData("cpu")
    controls.devices.setCurrentIndex(place)
    controls.devices.activated.emit(place)
    assert chosen(controls) == first_choice(feed.CPU)


def test_ticking_kernels_keeps_the_order_of_the_catalog(controls: Controls) -> None:
    controls.kernels["sdpa_math"].setChecked(True)
    controls.kernels["naive"].setChecked(False)
    kernels = chosen(controls).kernels
    assert "naive" not in kernels
    assert list(kernels) == [name for name in controls.kernels if name in kernels]


def test_a_parameter_is_set_and_left_to_the_table_again(controls: Controls) -> None:
    box = controls.parameters.boxes["flash", "block_m"]
    box.setCurrentText("64")
    assert chosen(controls).params == {"flash": {"block_m": 64}}
    assert "1 set" in controls.parameters.header.text()
    box.setCurrentText("auto")
    assert chosen(controls).params == {}


def test_a_parameter_of_the_other_pass_is_hidden_and_kept(controls: Controls) -> None:
    every = tuple(spec.info for spec in catalog().values())
    controls.build(msgspec.structs.replace(feed.hello(), kernels=every), first_choice(feed.H200))
    controls.kernels["flash_hopper"].setChecked(True)
    controls.parameters.boxes["flash_hopper", "pingpong"].setCurrentText("0")
    backward = msgspec.structs.replace(chosen(controls).workload, pass_="backward")
    controls.show_choice(msgspec.structs.replace(chosen(controls), workload=backward))
    assert ("flash_hopper", "pingpong") not in controls.parameters.boxes
    controls.parameters.boxes["flash_hopper", "stages"].setCurrentText("2")
    assert chosen(controls).params == {"flash_hopper": {"pingpong": 0, "stages": 2}}


def test_parameters_fold(controls: Controls) -> None:
    box = controls.parameters.boxes["flash", "block_m"]
    assert not box.isVisible()
    QTest.mouseClick(controls.parameters.header, Qt.MouseButton.LeftButton)
    assert box.isVisible()


def test_what_cannot_run_says_why_and_the_slider_is_marked(controls: Controls) -> None:
    store = Store()
    store.reduce(feed.hello())
    planned = feed.planned(refused={"naive": "naive needs 300 GiB of 140 GiB"})
    store.reduce(planned)
    snapshot = store.snapshot()
    plan = snapshot.plans["naive"]
    snapshot.plans["naive"] = KernelPlan(
        kernel="naive", config=plan.config, cost=plan.cost, schedule=plan.schedule, peak_memory_bytes=plan.peak_memory_bytes,
        longest_seq=20000, refused=plan.refused)
    controls.update_from(snapshot)
    assert controls.reasons["naive"].isVisible()
    assert controls.reasons["naive"].text() == "naive needs 300 GiB of 140 GiB"
    assert not controls.reasons["flash"].isVisible()
    slider = number(controls, "seq").slider
    assert slider.marks == (20000,)
    place = slider.place(20000)
    assert place is not None
    assert slider.steps[int(place)] <= 20000 < slider.steps[int(place) + 1]
    assert "naive fits up to 20" in slider.toolTip()
    assert "predicted peak" in controls.peak.text()


def test_a_click_on_run_is_told(controls: Controls, qtbot: QtBot) -> None:
    with qtbot.waitSignal(controls.run_pressed):
        QTest.mouseClick(controls.run, Qt.MouseButton.LeftButton, pos=QPoint(5, 5))


def test_a_choice_is_shown_without_a_word(controls: Controls) -> None:
    seen: list[int] = []
    controls.edited.connect(seen.append)
    controls.show_choice(first_choice(feed.CPU))
    assert seen == []
    dtype = controls.fields["dtype"]
    assert isinstance(dtype, QComboBox)
    assert dtype.currentText() == "float32"
    assert not controls.kernels["sdpa_cudnn"].isChecked()
