"""The window, its plots and the theatre as they were approved; and that a changed picture is noticed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec import Raw
from PySide6.QtWidgets import QLabel, QMainWindow
from pytestqt.qtbot import QtBot

from app.batching.choice import of as batching_choice
from app.decoding.choice import of
from app.settings import Settings
from app.theme import Theme, ThemeId
from app.tiles.theatre import Theatre
from app.window import Window
from engine.protocol import Batching, BatchingPlanned, Event, Planned, Work, decode_event, encode
from kernels.contract import AttentionWorkload
from tests.app import batch_feed, decode_feed, feed, pictures
from tests.app.pictures import approve
from tests.app.plots.test_batch_plots import fed as fed_batching
from tests.app.plots.test_decode_plots import fed as fed_decoding
from tests.app.plots.views import fed, known, known_of_batching, known_of_decoding, show, view
from tests.app.windows import Listener, opened

KERNELS = ("naive", "flash", "sdpa_cudnn", "sdpa_flash")  # what a first start chooses on this device
MHA = AttentionWorkload(batch=4, seq=2048, heads=16, kv_heads=16, head_dim=128)
GQA = AttentionWorkload(batch=1, seq=8192, heads=32, kv_heads=8, head_dim=128)
STRIPS = {"throughput", "utilisation", "power"}
THEMES: tuple[ThemeId, ...] = ("dark", "light")


def kept(name: str, now: Event) -> Event:
    """A plan as it was when the pictures were approved: a kernel that was tuned since changes none."""
    path = pictures.FOLDER / f"planned-{name}.json"
    if pictures.approving():
        path.write_bytes(encode(now))
    return decode_event(path.read_bytes())


def planned(name: str, workload: AttentionWorkload, kernels: tuple[str, ...] = ("naive", "flash")) -> Planned:
    """A kept plan of kernels."""
    event = kept(name, feed.planned(kernels, workload))
    assert isinstance(event, Planned)
    return event


def run() -> list[Event]:
    """Half a minute of four kernels."""
    plan = planned("window", feed.WORKLOAD, KERNELS)
    return [plan if isinstance(event, Planned) else event for event in feed.run(KERNELS, seconds=30)]


@pytest.mark.parametrize("size", [(1440, 900), (1024, 700)], ids=["1440x900", "1024x700"])
@pytest.mark.parametrize("theme", THEMES)
def test_the_window(qtbot: QtBot, size: tuple[int, int], theme: ThemeId) -> None:
    window = opened(qtbot, Listener(*run()), size=size, kept=Settings(reduced_motion=True))
    window.frames.stop()
    window.set_theme(Theme.load(theme))
    assert window.lab is not None
    assert window.lab.theatre is not None
    window.lab.theatre.seek(0.2)
    focused = window.focusWidget()
    if focused is not None:
        focused.clearFocus()    # no caret that blinks
    approve(window, f"window-{size[0]}x{size[1]}-{theme}")


def decoding_window(qtbot: QtBot, size: tuple[int, int]) -> Window:
    """The decode lab with three caches, half way, its form as the run is."""
    run = decode_feed.decoding(caches=("none", "dense", "paged"), prompt=137)
    kept = Settings(reduced_motion=True, choices={"decode": Raw(msgspec.json.encode(of("cuda:0", run)))})
    return opened(qtbot, Listener(*decode_feed.run(run, until=0.7)), size=size, kept=kept, lab="decode")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 700)], ids=["1440x900", "1024x700"])
@pytest.mark.parametrize("theme", THEMES)
def test_the_window_of_the_decode_lab(qtbot: QtBot, size: tuple[int, int], theme: ThemeId) -> None:
    window = decoding_window(qtbot, size)
    window.frames.stop()
    window.set_theme(Theme.load(theme))
    assert window.lab is not None
    assert window.lab.theatre is not None
    window.lab.theatre.seek(0.75)
    if (focused := window.focusWidget()) is not None:
        focused.clearFocus()
    approve(window, f"decode-{size[0]}x{size[1]}-{theme}")


@pytest.mark.parametrize("plot", known_of_decoding())
@pytest.mark.parametrize(("theme", "name"), [("dark", "five caches"), ("light", "two lanes")])
def test_each_plot_of_a_decoding(qtbot: QtBot, plot: str, theme: str, name: str) -> None:
    made = view(qtbot, plot, (468, 170), Theme.load(theme))
    show(made, fed_decoding(name))
    approve(made, f"plot-{plot}-{theme}")


def batching_window(qtbot: QtBot, size: tuple[int, int], run: Batching) -> Window:
    """The batching lab on work that has been measured, its form as the run is."""
    choices = {"batching": Raw(msgspec.json.encode(batching_choice("cuda:0", run)))}
    events = [kept(f"batching-{run.work}", event) if isinstance(event, BatchingPlanned) else event
              for event in batch_feed.run(run)]
    return opened(qtbot, Listener(*events), size=size, kept=Settings(reduced_motion=True, choices=choices), lab="batching")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 700)], ids=["1440x900", "1024x700"])
@pytest.mark.parametrize(("theme", "work"), [("dark", "linear"), ("light", "linear"), ("light", "model")])
def test_the_window_of_the_batching_lab(qtbot: QtBot, size: tuple[int, int], theme: ThemeId, work: Work) -> None:
    window = batching_window(qtbot, size, batch_feed.batching(work))
    window.frames.stop()
    window.set_theme(Theme.load(theme))
    if (focused := window.focusWidget()) is not None:
        focused.clearFocus()
    approve(window, f"batching-{work}-{size[0]}x{size[1]}-{theme}")


@pytest.mark.parametrize("plot", known_of_batching())
@pytest.mark.parametrize(("theme", "name"), [("dark", "layer"), ("light", "cpu")])
def test_each_plot_of_a_batching(qtbot: QtBot, plot: str, theme: str, name: str) -> None:
    made = view(qtbot, plot, (442, 190), Theme.load(theme))
    show(made, fed_batching(name))
    approve(made, f"plot-{plot}-{theme}")


@pytest.mark.parametrize("plot", known())
@pytest.mark.parametrize(("theme", "name"), [("dark", "six kernels"), ("light", "two kernels")])
def test_each_plot(qtbot: QtBot, plot: str, theme: str, name: str) -> None:
    made = view(qtbot, plot, (350, 241) if plot in STRIPS else (264, 132), Theme.load(theme))
    show(made, fed(name))
    approve(made, f"plot-{plot}-{theme}")


@pytest.mark.parametrize(("workload", "name", "when", "at"), [
    (MHA, "mha-causal", "early", 0.02), (MHA, "mha-causal", "late", 0.6),
    (GQA, "gqa", "early", 0.005), (GQA, "gqa", "late", 0.6),
])
def test_the_theatre(qtbot: QtBot, workload: AttentionWorkload, name: str, when: str, at: float) -> None:
    theme, window = Theme.load("dark"), QMainWindow()
    qtbot.addWidget(window)
    window.setStyleSheet(theme.stylesheet())
    made = Theatre(theme)
    made.set_reduced_motion(True)
    made.show_plans(list(planned(name, workload).plans), feed.H200, workload)
    window.setCentralWidget(made)
    window.resize(896, 450)
    window.show()
    made.seek(at)
    made.step(3)
    approve(window, f"theatre-{name}-{when}")


@pytest.fixture
def label(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> QLabel:
    """A label whose picture has been approved."""
    monkeypatch.setattr(pictures, "FOLDER", tmp_path / "approved")
    monkeypatch.setattr(pictures, "NEW", tmp_path / "new")
    made = QLabel("flash moves 33.8× fewer bytes than naive")
    qtbot.addWidget(made)
    made.setFont(Theme.load("dark").sans())
    made.resize(300, 40)
    monkeypatch.setenv(pictures.APPROVE, "1")
    approve(made, "label")
    monkeypatch.delenv(pictures.APPROVE)
    return made


def test_what_is_as_approved_passes_and_writes_nothing(label: QLabel, tmp_path: Path) -> None:
    approve(label, "label")
    assert [path.name for path in tmp_path.rglob("*.png")] == ["label.png"]


@pytest.mark.parametrize("change", ["words", "place", "colour"])
def test_a_changed_picture_is_noticed_and_shown(label: QLabel, tmp_path: Path, change: str) -> None:
    match change:
        case "words":
            label.setText("flash moves 33.8× fewer bytes than flash")
        case "place":
            label.setContentsMargins(4, 0, 0, 0)
        case _:
            label.setStyleSheet(f"color: {Theme.load('dark')['waste'].name()}")
    with pytest.raises(AssertionError, match=r"of label, .* is not as approved.*label\.png and .*label\.differs\.png"):
        approve(label, "label")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"label.png", "label.differs.png"}


def test_one_word_in_a_large_picture_is_noticed(label: QLabel, monkeypatch: pytest.MonkeyPatch) -> None:
    label.resize(1440, 900)
    monkeypatch.setenv(pictures.APPROVE, "1")
    approve(label, "label")
    monkeypatch.delenv(pictures.APPROVE)
    label.setText("flash moves 33.8× fewer bytes than naïve")
    approve(label, "label")  # two dots
    label.setText("flash moves 33.8× fewer bits than naive")
    with pytest.raises(AssertionError, match=r"^0\.\d+% of label, most of it around 1\d\d, 4\d\d,"):
        approve(label, "label")


def test_another_size_is_noticed(label: QLabel) -> None:
    label.resize(301, 40)
    with pytest.raises(AssertionError, match="label is 301x40 and was approved at 300x40"):
        approve(label, "label")


def test_a_picture_that_nobody_approved_is_none(label: QLabel, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"other\.png is not there"):
        approve(label, "other")
    assert (tmp_path / "new" / "other.png").exists()


def test_a_shade_or_a_speck_passes(label: QLabel) -> None:
    label.setText(label.text() + ".")
    label.setStyleSheet("background: rgb(245, 245, 245)" if label.palette().window().color().lightness() > 128 else "")
    approve(label, "label")


def test_approving_again_takes_the_new_picture(label: QLabel, monkeypatch: pytest.MonkeyPatch) -> None:
    label.setText("something else entirely, and in other words")
    monkeypatch.setenv(pictures.APPROVE, "1")
    approve(label, "label")
    monkeypatch.delenv(pictures.APPROVE)
    approve(label, "label")


def test_the_approved_pictures_stay_small() -> None:
    approved = list(pictures.FOLDER.glob("*.png"))
    assert approved
    assert sum(path.stat().st_size for path in approved) < 1.5e6
