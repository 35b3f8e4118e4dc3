"""The window, operated: by keys, by clicks, by what an engine says."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Raw
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent, QGuiApplication
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app import export, settings
from app.labs.attention import AttentionLab
from app.panels.fields import IntControl
from app.panels.save_picture import SavePicture
from app.settings import PictureSettings, Settings
from app.window import Window
from engine.client import ClientError
from engine.protocol import Configure, Fault, Refused, Start, Stop
from tests.app import feed
from tests.app.windows import Listener, draw, form, opened, taken

CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def engine() -> Listener:
    return Listener(feed.hello())


@pytest.fixture
def window(qtbot: QtBot, engine: Listener) -> Window:
    return opened(qtbot, engine)


@pytest.fixture
def running(qtbot: QtBot, engine: Listener) -> Window:
    """A window in which a run has gone on for a while."""
    engine.events = feed.run(seconds=3)
    return opened(qtbot, engine)


def lab(window: Window) -> AttentionLab:
    assert isinstance(window.lab, AttentionLab)
    return window.lab


def press(window: Window, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    QTest.keyClick(window, key, modifier)
    draw(window)


def batch(window: Window) -> IntControl:
    control = form(window).fields["batch"]
    assert isinstance(control, IntControl)
    return control


@pytest.mark.usefixtures("window")
def test_an_engine_that_answers_is_set_to_run_at_once(engine: Listener) -> None:
    configured, = engine.of(Configure)
    assert configured.device == "cuda:0"
    assert configured.kernels[:2] == ("naive", "flash")
    assert engine.told[-1] == Start()


def test_a_slider_reconfigures_the_run_once_a_frame(window: Window, engine: Listener) -> None:
    slider = batch(window).slider
    slider.setValue(3)
    slider.setValue(4)
    draw(window)
    first, second = engine.of(Configure)
    assert second.generation > first.generation
    assert second.workload.batch == 16
    draw(window)
    assert len(engine.of(Configure)) == 2


def test_undo_and_redo_by_keys(window: Window, engine: Listener) -> None:
    batch(window).slider.setValue(5)
    draw(window)
    press(window, Qt.Key.Key_Z, CTRL)
    assert engine.of(Configure)[-1].workload.batch == 4
    assert batch(window).box.value() == 4
    press(window, Qt.Key.Key_Y, CTRL)
    assert engine.of(Configure)[-1].workload.batch == 32


def test_no_kernel_is_said_and_stops(window: Window, engine: Listener) -> None:
    for box in form(window).kernels.values():
        box.setChecked(False)
    draw(window)
    assert "No kernel is chosen" in window.banner.text
    assert engine.told[-1] == Stop()


def test_ctrl_r_stops_what_runs_and_runs_again(running: Window, engine: Listener) -> None:
    press(running, Qt.Key.Key_R, CTRL)
    assert engine.told[-1] == Stop()


def test_escape_stops(running: Window, engine: Listener) -> None:
    press(running, Qt.Key.Key_Escape)
    assert engine.told[-1] == Stop()


def test_space_freezes_the_view_and_never_the_sampling(running: Window, engine: Listener) -> None:
    before = running.snapshot.series["flash"]
    press(running, Qt.Key.Key_Space)
    assert not running.snapshot.live
    engine.events = [feed.sample("flash", 9.0, 2e6)]
    draw(running)
    assert len(running.snapshot.series["flash"].t_s) == len(before.t_s)
    press(running, Qt.Key.Key_Space)
    assert running.snapshot.live
    assert len(running.snapshot.series["flash"].t_s) == len(before.t_s) + 1
    assert Stop() not in engine.told


def test_space_on_a_check_box_ticks_it(running: Window) -> None:
    box = form(running).kernels["sdpa_math"]
    running.activateWindow()
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Space)
    assert box.isChecked()
    assert running.snapshot.live


def test_the_theme_changes_by_key(running: Window) -> None:
    seen = []
    for _ in range(2):
        press(running, Qt.Key.Key_T, CTRL)
        seen.append(running.theme.id)
    assert seen == ["light", "dark"]


def test_a_panel_fills_the_lab_and_comes_back(running: Window) -> None:
    view = lab(running).plots["kv_cache"]
    width = view.width()
    view.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    view.setFocus()
    press(running, Qt.Key.Key_F)
    assert lab(running).is_full
    assert view.isVisible()
    assert view.width() > 2 * width
    assert not lab(running).theatre.isVisible()
    press(running, Qt.Key.Key_Escape)
    assert not lab(running).is_full
    assert view.isVisible()
    assert lab(running).theatre.isVisible()


@pytest.mark.parametrize("size", [(1440, 900), (1024, 700)])
def test_plots_stand_side_by_side_where_there_is_room(qtbot: QtBot, size: tuple[int, int]) -> None:
    window = opened(qtbot, Listener(*feed.run(seconds=1)), size=size)
    visible = [name for name, view in lab(window).plots.items() if view.isVisible()]
    assert len(visible) == (5 if size[0] > 1200 else 1)
    assert window.docks.shown("inspector") is (size[0] > 1200)
    assert window.size().toTuple() == size


def test_the_inspector_comes_back_with_the_width(qtbot: QtBot) -> None:
    window = opened(qtbot, Listener(*feed.run(seconds=1)), size=(1024, 700))
    window.resize(1500, 900)
    assert window.docks.shown("inspector")
    window.docks.toggle("inspector")
    window.resize(1024, 700)
    window.resize(1500, 900)
    assert not window.docks.shown("inspector")  # the user closed it


def test_docks_open_and_close_and_are_reset(running: Window) -> None:
    running.menus.trigger("show_log")
    assert running.docks.shown("log")
    assert "planned" in running.log.toPlainText()
    running.menus.trigger("show_controls")
    assert not running.docks.shown("controls")
    running.menus.trigger("layout")
    assert running.docks.shown("controls")
    assert not running.docks.shown("log")


def test_a_lost_device_offers_a_new_engine(running: Window, engine: Listener) -> None:
    engine.events = [Fault(message="an illegal access", remedy="Restart the engine.", details="trace", fatal=True)]
    draw(running)
    assert "illegal access" in running.banner.text
    seen = len(running.snapshot.series["flash"].t_s)
    fresh = Listener(feed.hello())
    urls: list[str] = []

    def reopen(url: str, *_: object) -> Listener:
        urls.append(url)
        return fresh

    running.live.bridge.open = reopen  # type: ignore[assignment]
    QTest.mouseClick(running.banner.remedy, Qt.MouseButton.LeftButton)
    draw(running)
    assert urls == ["stdio:"]
    assert engine.closed == 1
    assert isinstance(fresh.told[0], Configure)
    assert len(running.snapshot.series["flash"].t_s) == seen  # what was measured is kept


def test_an_engine_that_cannot_be_restarted_is_one_sentence(running: Window) -> None:
    def fail(*_: object) -> Listener:
        raise ClientError("cannot start the engine: no such file")

    running.live.bridge.open = fail  # type: ignore[assignment]
    running.menus.trigger("restart")
    assert "cannot start the engine" in running.banner.text


def test_a_refused_command_is_told(running: Window, engine: Listener) -> None:
    engine.events = [Refused(generation=99, reason="heads 7 is not a multiple of kv-heads 2")]
    draw(running)
    assert "heads 7" in running.banner.text
    QTest.mouseClick(running.banner.dismiss, Qt.MouseButton.LeftButton)
    assert running.banner.text == ""


def test_details_are_copied(running: Window, engine: Listener) -> None:
    engine.events = [Fault(message="it broke", remedy="Mend it.", details="line 1")]
    draw(running)
    QTest.mouseClick(running.banner.copy, Qt.MouseButton.LeftButton)
    assert QGuiApplication.clipboard().text() == "it broke. Mend it.\nline 1"


def drop(window: Window, path: Path) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(QPointF(50, 50), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton,
                       Qt.KeyboardModifier.NoModifier)
    window.dropEvent(event)
    draw(window)


def test_a_picture_dropped_restores_what_it_shows(running: Window, engine: Listener, tmp_path: Path) -> None:
    saved = running.files.write_picture(running, tmp_path / "a.png")
    batch(running).slider.setValue(0)
    form(running).kernels["naive"].setChecked(False)
    draw(running)
    drop(running, saved)
    restored = engine.of(Configure)[-1]
    assert restored.workload == feed.WORKLOAD
    assert restored.kernels == ("naive", "flash")
    press(running, Qt.Key.Key_Z, CTRL)
    assert engine.of(Configure)[-1].workload.batch == 1


def test_a_damaged_picture_is_one_sentence_and_changes_nothing(running: Window, engine: Listener, tmp_path: Path) -> None:
    saved = running.files.write_picture(running, tmp_path / "a.png")
    saved.write_bytes(saved.read_bytes()[:2000])
    told = len(engine.told)
    drop(running, saved)
    assert "a.png cannot be restored" in running.banner.text
    assert len(engine.told) == told


def test_the_picture_key_saves_as_kept(qtbot: QtBot, tmp_path: Path) -> None:
    kept = Settings(picture=PictureSettings(folder=str(tmp_path), scale=1, theme="light"))
    window = opened(qtbot, Listener(*feed.run(seconds=1)), kept=kept)
    press(window, Qt.Key.Key_S, CTRL | SHIFT)
    saved, = tmp_path.iterdir()
    assert export.restore(saved).theme == "light"
    assert window.theme.id == "dark"
    assert saved.name in window.statusBar().currentMessage()


def test_the_dialog_saves_one_panel(running: Window, tmp_path: Path, qtbot: QtBot) -> None:
    running.menus.trigger("picture")
    dialog = running.findChild(SavePicture)
    assert dialog is not None
    dialog.what.setCurrentText("KV cache")
    dialog.format.setCurrentIndex(dialog.format.findData("svg"))
    assert not dialog.scale.isEnabled()
    dialog.folder.setText(str(tmp_path))
    with qtbot.waitSignal(dialog.accepted_for):
        dialog._accept()
    saved, = tmp_path.iterdir()
    assert saved.suffix == ".svg"
    assert taken(saved).kernels == ("naive", "flash")


def test_where_a_picture_cannot_be_written_it_is_said(running: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Path:
        raise export.ExportError("No space left: choose another folder.")

    monkeypatch.setattr(export, "save_png", full)
    running.settings.picture.folder = str(tmp_path)
    running.menus.trigger("screenshot")
    assert "No space left" in running.banner.text


def test_the_table_is_copied(running: Window) -> None:
    running.menus.trigger("copy_table")
    text = QGuiApplication.clipboard().text()
    assert text.splitlines()[0].startswith("kernel\t")
    assert "flash" in text


def test_the_palette_finds_and_does(running: Window) -> None:
    press(running, Qt.Key.Key_K, CTRL)
    palette = running.palette_view
    assert palette.isVisible()
    QTest.keyClicks(palette.line, "oth th")
    assert palette.list.topLevelItemCount() == 1
    QTest.keyClick(palette.line, Qt.Key.Key_Return)
    assert running.theme.id == "light"
    assert not palette.isVisible()


def test_the_palette_lists_every_shortcut(running: Window) -> None:
    running.menus.trigger("shortcuts")
    rows = [running.palette_view.list.topLevelItem(i) for i in range(running.palette_view.list.topLevelItemCount())]
    shown = {row.text(0): row.text(2) for row in rows if row is not None}
    assert shown["Pause view"] == "Space"
    assert set(shown) == {action.title for action in running.menus.all if action.enabled()}


def test_tiles_step_by_keys(running: Window) -> None:
    theatre = lab(running).theatre
    running.settings.reduced_motion = True
    press(running, Qt.Key.Key_Home)
    press(running, Qt.Key.Key_Period)
    one = theatre.summary()
    press(running, Qt.Key.Key_Period)
    assert theatre.summary() != one
    press(running, Qt.Key.Key_Comma)
    assert theatre.summary() == one


def test_what_was_chosen_and_where_things_stand_is_kept(qtbot: QtBot, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    window = opened(qtbot, Listener(*feed.run(seconds=1)), keep_at=path)
    batch(window).slider.setValue(5)
    window.menus.trigger("show_log")
    window.menus.trigger("theme")
    window.close()
    kept, wrong = settings.load(path)
    assert (wrong, kept.theme) == ("", "light")
    again = Listener(feed.hello())
    second = opened(qtbot, again, kept=kept)
    assert again.of(Configure)[0].workload.batch == 32
    assert second.docks.shown("log")


def test_the_command_line_goes_before_what_was_kept(qtbot: QtBot) -> None:
    kept = Settings(choices={"attention": Raw(b"[]")})
    engine = Listener(feed.hello())
    opened(qtbot, engine, kept=kept, asked={"device": "cpu", "options": {"seq": 777, "settings": ("block_m=64",)}})
    configured, = engine.of(Configure)
    assert (configured.device, configured.workload.seq) == ("cpu", 777)
    assert configured.params["flash"] == {"block_m": 64}


def test_a_device_that_is_not_here_is_said(qtbot: QtBot) -> None:
    window = opened(qtbot, Listener(feed.hello()), asked={"device": "cuda:7"})
    assert "no device 'cuda:7'" in window.banner.text


def test_closing_ends_the_engine_once(running: Window, engine: Listener) -> None:
    running.close()
    running.close()
    assert engine.closed == 1
