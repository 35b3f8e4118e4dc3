"""The batching lab, operated in the window: run, undone, restored, kept, and in turn with the other labs."""

from __future__ import annotations

from pathlib import Path
from threading import Event as Stopped

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot

from app import export, settings
from app.batching.configuration import BatchConfiguration
from app.labs.batching import BatchingLab
from app.panels.batch_controls import BatchControls
from app.panels.form import number_of
from app.settings import Settings
from app.unattended import run as watch
from app.window import Window
from engine.options import BadInput
from engine.protocol import ConfigureBatching, ConfigureDecoding, Refused, Start, Stop
from tests.app import batch_feed
from tests.app.batch_feed import batching
from tests.app.test_window import CTRL, SHIFT, drop, press
from tests.app.windows import Listener, draw, opened

RUN = batching(width=4096)


@pytest.fixture
def engine() -> Listener:
    return Listener(*batch_feed.run(RUN))


@pytest.fixture
def window(qtbot: QtBot, engine: Listener) -> Window:
    """A window in which a batching has been measured."""
    return opened(qtbot, engine, lab="batching", kept=Settings(reduced_motion=True))


def controls(window: Window) -> BatchControls:
    assert isinstance(window.form, BatchControls)
    return window.form


def lab(window: Window) -> BatchingLab:
    assert isinstance(window.lab, BatchingLab)
    return window.lab


def pick_work(window: Window, work: str) -> None:
    place = controls(window).works.findData(work)
    controls(window).works.setCurrentIndex(place)
    controls(window).works.activated.emit(place)


@pytest.mark.usefixtures("window")
def test_it_is_set_to_run_at_once(engine: Listener) -> None:
    configured, = engine.of(ConfigureBatching)
    assert configured.batching == batching()
    assert engine.told[-1] == Start()


def test_run_and_stop(window: Window, engine: Listener) -> None:
    assert controls(window).run.text() == "Stop"
    controls(window).run.click()
    assert engine.told[-1] == Stop()


def test_every_control_is_undone_and_done_again(window: Window, engine: Listener) -> None:
    first = window.run.choice
    number_of(controls(window), "width").box.setValue(2048)
    pick_work(window, "rnn")
    number_of(controls(window), "steps").box.setValue(8)
    pick_work(window, "model")
    number_of(controls(window), "cached").box.setValue(100)
    last = window.run.choice
    draw(window)
    assert engine.of(ConfigureBatching)[-1].batching == batching("model", model="gpt2", width=2048, steps=8, cached=100)
    assert len(engine.of(ConfigureBatching)) == 2     # once a frame
    for _ in range(5):
        press(window, Qt.Key.Key_Z, CTRL)
    assert window.run.choice == first
    assert not window.desk.can_undo()
    assert not number_of(controls(window), "steps").isVisible()
    for _ in range(5):
        press(window, Qt.Key.Key_Z, CTRL | SHIFT)
    assert window.run.choice == last


def test_nothing_plays_so_the_actions_of_the_tiles_are_off(window: Window) -> None:
    assert not window.has_tiles()
    assert not window.inspector.step.isVisible()
    press(window, Qt.Key.Key_P)
    press(window, Qt.Key.Key_Period)
    window.open_lab("decode")
    assert not window.inspector.step.isHidden()


def test_what_is_on_screen_is_said(window: Window) -> None:
    assert lab(window).verdict.sentence.text().startswith("A batch of")
    assert "bfloat16 · median of 8 · measured" in window.status.text()
    assert "planned linear at 9 batch sizes on cuda:0" in window.log.toPlainText()
    assert "knee, predicted" in window.inspector.kernels.text()


def test_labs_take_turns(window: Window, engine: Listener) -> None:
    window.open_lab("decode")
    assert len(engine.of(ConfigureDecoding)) == 1
    window.open_lab("batching")
    assert len(engine.of(ConfigureBatching)) == 2
    assert window.snapshot.batch.times("batched_linear")


def test_choices_are_kept(qtbot: QtBot, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    window = opened(qtbot, Listener(batch_feed.hello()), lab="batching", keep_at=path)
    pick_work(window, "rnn")
    window.close()
    kept, wrong = settings.load(path)
    assert wrong == ""
    again = Listener(batch_feed.hello())
    opened(qtbot, again, lab="batching", kept=kept)
    assert again.of(ConfigureBatching)[0].batching.work == "rnn"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_restores_it_from_another_lab(window: Window, engine: Listener, tmp_path: Path, suffix: str) -> None:
    saved = window.files.write_picture(window, tmp_path / f"a{suffix}")
    shown = export.restore(saved)
    assert isinstance(shown, BatchConfiguration)
    assert shown.batching == RUN
    assert len(shown.points) == 18
    window.open_lab("attention")
    drop(window, saved)
    assert window.lab_id == "batching"
    assert engine.of(ConfigureBatching)[-1].batching == RUN
    press(window, Qt.Key.Key_Z, CTRL)
    assert engine.of(ConfigureBatching)[-1].batching == batching()


def test_the_table_is_copied(window: Window) -> None:
    window.menus.trigger("copy_table")
    text = QGuiApplication.clipboard().text().splitlines()
    assert text[0].split("\t")[:3] == ["kernel", "title", "batch"]
    assert len(text) == 19


def test_a_refused_work_is_told_and_a_refused_batch_is_not(window: Window, engine: Listener) -> None:
    engine.events = [Refused(generation=99, reason="no such device")]
    draw(window)
    assert "no such device" in window.banner.text
    engine.events = [Refused(generation=1, reason="it broke", kernel="batched_linear", batch=4)]
    draw(window)
    assert "it broke" not in window.banner.text


@pytest.mark.parametrize("size", [(1440, 900), (1024, 700)])
def test_plots_stand_side_by_side_where_there_is_room(qtbot: QtBot, engine: Listener, size: tuple[int, int]) -> None:
    window = opened(qtbot, engine, size=size, lab="batching")
    assert len([view for view in lab(window).plots.values() if view.isVisible()]) == (3 if size[0] > 1200 else 1)
    assert window.size().toTuple() == size


def test_unattended_it_prints_a_row_a_batch_and_kernel(
    qtbot: QtBot, engine: Listener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    window = opened(qtbot, engine, size=(1024, 700), lab="batching")
    assert watch(window, tmp_path / "a.png", 0.0, {}, Stopped()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["batch", "kernel", "median", "rows/s"]
    assert [line.split()[0] for line in lines[2:20]] == [str(b) for b in RUN.batches for _ in range(2)]


def test_unattended_what_cannot_run_is_one_sentence(qtbot: QtBot, tmp_path: Path) -> None:
    asked = {"batching": {"model": "bert"}}
    window = opened(qtbot, Listener(batch_feed.hello()), lab="batching", asked=asked)
    with pytest.raises(BadInput, match="there is no model 'bert': choose"):
        watch(window, tmp_path / "a.png", 0.0, asked, Stopped())
