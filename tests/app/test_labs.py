"""A window of several labs, operated: the decode lab, and switching between it and the attention lab."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QToolButton
from pytestqt.qtbot import QtBot

from app import export, settings
from app.decoding.configuration import DecodeConfiguration
from app.labs.attention import AttentionLab
from app.labs.decode import DecodeLab
from app.panels.decode_controls import DecodeControls
from app.panels.form import number_of
from app.settings import Settings
from app.tiles.token_stage import TokenStage
from app.window import Window
from engine.protocol import Configure, ConfigureDecoding, Refused, Start, Stop
from tests.app import decode_feed, feed
from tests.app.test_window import CTRL, SHIFT, drop, press
from tests.app.windows import Listener, draw, form, opened

RUN = decode_feed.decoding(caches=("none", "dense", "paged"))


@pytest.fixture
def engine() -> Listener:
    return Listener(decode_feed.hello())


@pytest.fixture
def window(qtbot: QtBot, engine: Listener) -> Window:
    return opened(qtbot, engine, lab="decode", kept=Settings(reduced_motion=True))


@pytest.fixture
def running(qtbot: QtBot, engine: Listener) -> Window:
    """A window in which a decoding has gone on for a while."""
    engine.events = decode_feed.run(RUN, until=0.5)
    return opened(qtbot, engine, lab="decode", kept=Settings(reduced_motion=True))


def controls(window: Window) -> DecodeControls:
    assert isinstance(window.form, DecodeControls)
    return window.form


def stage(window: Window) -> TokenStage:
    assert isinstance(window.lab, DecodeLab)
    assert isinstance(window.lab.theatre, TokenStage)
    return window.lab.theatre


@pytest.mark.usefixtures("window")
def test_the_decode_lab_is_set_to_run_at_once(engine: Listener) -> None:
    configured, = engine.of(ConfigureDecoding)
    assert [lane.id for lane in configured.decoding.lanes] == ["none-12", "dense-12"]
    assert engine.of(Configure) == []
    assert engine.told[-1] == Start()


def test_ticks_and_sliders_reconfigure_once_a_frame(window: Window, engine: Listener) -> None:
    controls(window).caches["paged"].setChecked(True)
    number_of(controls(window), "batch").slider.setValue(3)
    draw(window)
    first, second = engine.of(ConfigureDecoding)
    assert second.generation > first.generation
    assert second.decoding.batch == 6
    assert [lane.cache for lane in second.decoding.lanes] == ["none", "dense", "paged"]


def test_every_control_is_undone_and_done_again(window: Window, engine: Listener) -> None:
    first = window.run.choice
    panel = controls(window)
    panel.caches["fp8"].setChecked(True)
    panel.attentions["GQA"].setChecked(True)
    number_of(panel, "group").box.setValue(6)
    number_of(panel, "layers").box.setValue(4)
    number_of(panel, "prompt").box.setValue(64)
    dtype = panel.fields["dtype"]
    dtype.setCurrentText("bfloat16")  # type: ignore[union-attr]
    last = window.run.choice
    draw(window)
    for _ in range(6):
        press(window, Qt.Key.Key_Z, CTRL)
    assert window.run.choice == first
    assert not window.desk.can_undo()
    assert engine.of(ConfigureDecoding)[-1].decoding == first.decoding()
    for _ in range(6):
        press(window, Qt.Key.Key_Z, CTRL | SHIFT)
    assert window.run.choice == last
    assert panel.attentions["GQA"].isChecked()
    assert number_of(panel, "layers").box.value() == 4


def test_a_drag_is_one_step(window: Window) -> None:
    before = window.run.choice
    slider = number_of(controls(window), "new").slider
    slider.setSliderDown(True)
    for place in (2, 3, 4):
        slider.setValue(place)
    slider.setSliderDown(False)
    press(window, Qt.Key.Key_Z, CTRL)
    assert window.run.choice == before


def test_nothing_ticked_stops_and_says_so(window: Window, engine: Listener) -> None:
    for tick in controls(window).caches.values():
        tick.setChecked(False)
    draw(window)
    assert engine.told[-1] == Stop()
    assert "No cache is chosen. Tick at least one" in window.banner.text


def test_switching_keeps_what_each_lab_has(qtbot: QtBot, engine: Listener) -> None:
    engine.events = feed.run(seconds=2)
    window = opened(qtbot, engine)
    form(window).kernels["naive"].setChecked(False)
    draw(window)
    kernels = window.run.choice
    press(window, Qt.Key.Key_2, CTRL)
    assert window.lab_id == "decode"
    assert isinstance(window.lab, DecodeLab)
    configured, = engine.of(ConfigureDecoding)
    assert configured.generation > engine.of(Configure)[-1].generation
    assert not window.desk.can_undo()       # its own history
    controls(window).caches["int8"].setChecked(True)
    draw(window)
    press(window, Qt.Key.Key_1, CTRL)
    assert window.lab_id == "attention"
    assert window.run.choice == kernels
    assert engine.of(Configure)[-1].kernels == kernels.kernels
    assert engine.told[-1] == Start()
    press(window, Qt.Key.Key_Z, CTRL)
    assert form(window).kernels["naive"].isChecked()
    press(window, Qt.Key.Key_2, CTRL)
    assert controls(window).caches["int8"].isChecked()
    assert len(window.snapshot.series["flash"].t_s) == 20     # what was measured is kept


def test_the_labs_stand_in_the_toolbar_the_menu_and_the_palette(running: Window) -> None:
    buttons = {button.text(): button for button in running.toolbar.findChildren(QToolButton) if button.text()}
    assert list(buttons)[:2] == ["Attention", "Decode"]
    assert buttons["Decode"].isChecked()
    QTest.mouseClick(buttons["Attention"], Qt.MouseButton.LeftButton)
    assert running.lab_id == "attention"
    assert (buttons["Attention"].isChecked(), buttons["Decode"].isChecked()) == (True, False)
    QTest.mouseClick(buttons["Attention"], Qt.MouseButton.LeftButton)
    assert buttons["Attention"].isChecked()      # again is no other
    press(running, Qt.Key.Key_K, CTRL)
    QTest.keyClicks(running.palette_view.line, "decode lab")
    QTest.keyClick(running.palette_view.line, Qt.Key.Key_Return)
    assert running.lab_id == "decode"


def test_a_paused_view_is_live_in_another_lab(running: Window) -> None:
    press(running, Qt.Key.Key_Space)
    assert running.live.paused
    running.open_lab("attention")
    assert not running.live.paused


def test_a_full_panel_does_not_stay_in_the_way(running: Window) -> None:
    assert running.lab is not None
    running.lab.full_view(stage(running))
    running.open_lab("attention")
    running.open_lab("decode")
    assert not running.lab.is_full


def test_layouts_and_choices_are_kept_per_lab(qtbot: QtBot, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    window = opened(qtbot, Listener(decode_feed.hello()), lab="decode", keep_at=path)
    controls(window).caches["paged"].setChecked(True)
    window.menus.trigger("show_log")
    window.open_lab("attention")
    assert window.docks.shown("log")    # nothing was kept of this lab's: it stands as it stood
    window.menus.trigger("show_log")
    window.open_lab("decode")
    assert window.docks.shown("log")
    window.close()
    kept, wrong = settings.load(path)
    assert wrong == ""
    again = Listener(decode_feed.hello())
    second = opened(qtbot, again, lab="decode", kept=kept)
    assert [lane.cache for lane in again.of(ConfigureDecoding)[0].decoding.lanes] == ["none", "dense", "paged"]
    assert second.docks.shown("log")
    second.open_lab("attention")
    assert not second.docks.shown("log")


def test_a_picture_of_a_decoding_restores_it_from_another_lab(running: Window, engine: Listener, tmp_path: Path) -> None:
    saved = running.files.write_picture(running, tmp_path / "a.png")
    shown = export.restore(saved)
    assert isinstance(shown, DecodeConfiguration)
    assert shown.decoding == RUN
    assert [lane.position for lane in shown.lanes] == [384] * 3
    running.open_lab("attention")
    drop(running, saved)
    assert running.lab_id == "decode"
    assert engine.of(ConfigureDecoding)[-1].decoding == RUN
    press(running, Qt.Key.Key_Z, CTRL)
    assert engine.of(ConfigureDecoding)[-1].decoding.lanes == RUN.lanes[:2]


def test_a_picture_of_kernels_opens_their_lab(running: Window, qtbot: QtBot, tmp_path: Path) -> None:
    other = opened(qtbot, Listener(*feed.run(seconds=1)))
    saved = other.files.write_picture(other, tmp_path / "a.svg")
    drop(running, saved)
    assert running.lab_id == "attention"
    assert running.run.choice.workload == feed.WORKLOAD


def test_the_stage_steps_by_keys(running: Window) -> None:
    press(running, Qt.Key.Key_Home)
    first = stage(running).summary()
    assert "at token 4 k and v of 4 tokens are computed; so far 4" in first
    press(running, Qt.Key.Key_Period)
    assert "at token 5 k and v of 5 tokens are computed, 4 of them again" in stage(running).summary()
    press(running, Qt.Key.Key_Comma)
    assert stage(running).summary() == first
    press(running, Qt.Key.Key_End)
    assert "so far 12 are computed and 60 read" in stage(running).summary()
    assert "Token 12 · step 8 of 8" in running.inspector.step.text()
    running.open_lab("attention")
    assert "Token 12" not in running.inspector.step.text()
    running.open_lab("decode")
    assert "Token 12 · step 8 of 8" in running.inspector.step.text()


def test_the_stage_plays_to_its_end_and_starts_over(running: Window) -> None:
    press(running, Qt.Key.Key_Home)
    press(running, Qt.Key.Key_P)
    for _ in range(60):
        running.lab.advance(0.1)  # type: ignore[union-attr]
    assert "at token 12" in stage(running).summary()
    assert not stage(running).advance(0.1)
    press(running, Qt.Key.Key_P)
    assert "at token 4" in stage(running).summary()


def test_a_lab_that_is_opened_again_plays_on_as_it_was_left(qtbot: QtBot) -> None:
    window = opened(qtbot, Listener(*decode_feed.run(RUN, until=0.2)), lab="decode")
    assert stage(window)._clock.playing     # it began by itself
    press(window, Qt.Key.Key_P)
    window.open_lab("attention")
    window.open_lab("decode")
    draw(window)
    assert not stage(window)._clock.playing


def test_the_verdict_the_status_and_the_log_speak_of_the_decoding(running: Window) -> None:
    assert isinstance(running.lab, DecodeLab)
    assert running.lab.verdict.sentence.text().startswith("With its cache GPT-2 small makes")
    assert "float16 · median of 40 · measured" in running.status.text()
    assert "planned GPT-2 small, none-12, dense-12, paged-12 on cuda:0" in running.log.toPlainText()
    assert "prompt of dense-12: 128 tokens in" in running.log.toPlainText()
    assert "KV cache a token" in running.inspector.kernels.text()


def test_the_table_of_the_lanes_is_copied_and_saved(running: Window, tmp_path: Path) -> None:
    running.menus.trigger("copy_table")
    text = QGuiApplication.clipboard().text()
    assert text.splitlines()[0].startswith("lane\t")
    assert [line.split("\t")[0] for line in text.splitlines()[1:]] == ["none-12", "dense-12", "paged-12"]
    shown = export.there(running.desk.configuration("dark"))
    assert export.save_csv(shown, tmp_path / "a.csv").read_text("utf-8-sig").count("GPT-2 small") == 1


def test_a_refused_decoding_is_told(running: Window, engine: Listener) -> None:
    engine.events = [Refused(generation=99, reason="more tokens than the context")]
    draw(running)
    assert "more tokens than the context" in running.banner.text
    engine.events = [Refused(generation=99, reason="out of memory", kernel="dense-12")]
    draw(running)
    assert "out of memory" not in running.banner.text


def test_a_restarted_engine_runs_the_lab_on_screen_and_the_other_when_it_is_opened(running: Window, engine: Listener) -> None:
    controls(running).caches["none"].setChecked(False)
    draw(running)
    running.open_lab("attention")
    engine.told.clear()
    engine.events = [decode_feed.hello()]
    draw(running)
    assert len(engine.of(Configure)) == 1
    assert engine.of(ConfigureDecoding) == []
    running.open_lab("decode")
    assert [lane.cache for lane in engine.of(ConfigureDecoding)[-1].decoding.lanes] == ["dense"]


@pytest.mark.parametrize("size", [(1440, 900), (1024, 700)])
def test_plots_stand_side_by_side_where_there_is_room(qtbot: QtBot, size: tuple[int, int]) -> None:
    window = opened(qtbot, Listener(*decode_feed.run(until=0.2)), size=size, lab="decode")
    assert isinstance(window.lab, DecodeLab)
    visible = [name for name, view in window.lab.plots.items() if view.isVisible()]
    assert len(visible) == (4 if size[0] > 1200 else 1)
    assert window.size().toTuple() == size


def test_the_theme_changes_the_lab_on_screen_and_the_other_when_it_is_opened(running: Window) -> None:
    press(running, Qt.Key.Key_T, CTRL)
    assert isinstance(running.lab, DecodeLab)
    assert running.lab.plots["token_time"].theme.id == "light"
    running.open_lab("attention")
    assert isinstance(running.lab, AttentionLab)
    assert running.lab.plots["latency"].theme.id == "light"


def test_a_picture_restores_before_the_engine_answers(qtbot: QtBot, running: Window, tmp_path: Path) -> None:
    saved = running.files.write_picture(running, tmp_path / "a.png")
    engine = Listener(decode_feed.hello())
    window = opened(qtbot, engine, shown=export.restore(saved))
    assert window.lab_id == "decode"
    assert engine.of(ConfigureDecoding)[-1].decoding == RUN
