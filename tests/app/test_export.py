"""Saving: pictures that are what is on screen, in files that are whole or are not there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QGuiApplication, QImage, QPainter, QTransform
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app import export
from app.caption import caption, height
from app.export import ExportError, free_name, save_png, save_svg
from app.kernel_runs import KERNELS
from app.store import Snapshot, Store
from app.theme import Theme
from app.window import Window
from tests.app import feed
from tests.app.test_configuration import one_sentence, shown
from tests.app.windows import Listener, draw, opened, taken

SVG = "{http://www.w3.org/2000/svg}"
TAKEN = shown(*feed.run(seconds=1))
Grey = npt.NDArray[np.float64]


@pytest.fixture
def window(qtbot: QtBot) -> Window:
    return opened(qtbot, Listener(*feed.run(seconds=3)))


@pytest.fixture
def label(qtbot: QtBot) -> QLabel:
    made = QLabel("a label")
    qtbot.addWidget(made)
    made.resize(200, 40)
    return made


def image(path: Path) -> QImage:
    """A picture as Qt reads it back."""
    read = QImage(str(path))
    assert not read.isNull()
    return read


def rendered(path: Path) -> QImage:
    """An SVG as Qt draws it."""
    renderer = QSvgRenderer(str(path))
    assert renderer.isValid()
    drawn = QImage(renderer.defaultSize(), QImage.Format.Format_RGB32)
    drawn.fill(Qt.GlobalColor.magenta)
    painter = QPainter(drawn)
    renderer.render(painter)
    painter.end()
    return drawn


def grey(picture: QImage, columns: int = 72) -> Grey:
    """A small grey picture, 0 to 1."""
    rows = round(columns * picture.height() / picture.width())
    small = picture.scaled(columns, rows, mode=Qt.TransformationMode.SmoothTransformation)
    small = small.convertToFormat(QImage.Format.Format_Grayscale8)
    pixels = np.frombuffer(small.constBits(), np.uint8).reshape(rows, small.bytesPerLine())
    return pixels[:, :columns] / 255


def texts(path: Path) -> str:
    """The words of an SVG, in the order drawn."""
    return " ".join("".join(text.itertext()) for text in ElementTree.parse(path).iter(f"{SVG}text"))


# --- PNG ---


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_png_has_its_scale(window: Window, tmp_path: Path, scale: int) -> None:
    read = image(window.files.write_picture(window, tmp_path / "a.png", scale=scale))
    assert read.width() == scale * window.width()
    assert read.height() > scale * (window.height() + 80)
    assert read.height() % scale == 0
    assert taken(tmp_path / "a.png").workload == feed.WORKLOAD


def test_a_png_is_as_high_as_widget_and_caption(label: QLabel, tmp_path: Path) -> None:
    beneath = round(height(caption(TAKEN), Theme.load("dark"), 200))
    read = image(save_png(label, tmp_path / "a.png", TAKEN, scale=2))
    assert read.size() == QSize(400, 2 * (40 + beneath))


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_is_of_the_theme_asked_for_whatever_the_screen(
    window: Window, tmp_path: Path, suffix: str, theme: str
) -> None:
    path = window.files.write_picture(window, tmp_path / f"a.{suffix}", theme=theme)
    read, colours = image(path) if suffix == "png" else rendered(path), Theme.load(theme)
    assert read.pixelColor(4, read.height() - 4) == colours["panel"]                                # the caption
    assert read.pixelColor(window.width() // 2, 3) == colours["background"]                         # the menu bar
    assert window.theme.id == "dark"
    assert export.restore(path).theme == theme


def test_the_pixels_are_the_screens(window: Window, tmp_path: Path) -> None:
    read = image(window.files.write_picture(window, tmp_path / "a.png"))
    on_screen = window.grab().toImage()
    above = read.copy(0, 0, window.width(), window.height())
    assert np.abs(grey(above, 360) - grey(on_screen, 360)).mean() < 0.005


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_panel_stands_on_the_windows_ground(window: Window, tmp_path: Path, suffix: str) -> None:
    theatre = window.desk.panels()["Tile theatre"]
    path = window.files.write_picture(theatre, tmp_path / f"a.{suffix}")
    read = image(path) if suffix == "png" else rendered(path)
    assert read.width() == theatre.width()
    assert read.pixelColor(2, theatre.height() - 2) == window.theme["background"]


def test_a_panel_behind_a_tab_is_saved_with_its_numbers(window: Window, tmp_path: Path) -> None:
    power = window.desk.panels()["Power"]
    assert not power.isVisible()
    words = texts(window.files.write_picture(power, tmp_path / "a.svg"))
    assert "will run here" not in words
    assert "limit 700\xa0W" in words


def test_a_chart_on_the_clipboard_stands_on_the_windows_ground(window: Window) -> None:
    theatre = window.desk.panels()["Tile theatre"]
    window.desk.focused_panel = lambda: theatre  # type: ignore[method-assign]
    window.files.copy_chart()
    copied = QGuiApplication.clipboard().image()
    assert copied.size() == theatre.size()
    assert copied.pixelColor(2, theatre.height() - 2) == window.theme["background"]


def test_a_chosen_folder_that_is_gone_is_told_and_no_other_is_taken(window: Window, tmp_path: Path) -> None:
    window.settings.picture.folder = str(tmp_path / "gone")
    window.files.save_window_picture()
    assert f"{tmp_path / 'gone'}" in window.banner.text
    assert "No such file or directory" in window.banner.text


# --- SVG ---


def test_an_svg_looks_like_its_window(window: Window, tmp_path: Path, qtlog: Any) -> None:
    drawn = rendered(window.files.write_picture(window, tmp_path / "a.svg"))
    pixels = image(window.files.write_picture(window, tmp_path / "a.png"))
    assert drawn.size() == pixels.size()
    assert np.abs(grey(drawn) - grey(pixels)).mean() < 0.02
    assert [record.message for record in qtlog.records] == []


def test_an_svg_has_the_words_of_its_window(window: Window, tmp_path: Path) -> None:
    path = window.files.write_picture(window, tmp_path / "a.svg")
    words = set(texts(path).split())
    for shown_label in window.findChildren(QLabel):
        if shown_label.isVisible() and shown_label.visibleRegion().boundingRect() == shown_label.rect():
            assert words.issuperset(re.sub("<[^>]*>", " ", shown_label.text()).split()), shown_label.text()
    assert path.stat().st_size < 3_000_000


def test_a_caption_says_what_where_with_what_when_and_whence(window: Window, tmp_path: Path) -> None:
    path = window.files.write_picture(window.desk.panels()["KV cache"], tmp_path / "a.svg")
    taken, words = export.restore(path), texts(path)
    for said in (
        taken.verdict, "batch 4", "16 query and 16 KV heads (MHA)", "bfloat16", "NVIDIA H200", "driver 580.159",
        f"Tilescope {taken.software['tilescope']}", "times measured (CUDA events)", "warm L2", "bytes scheduled",
        taken.saved[:10],
    ):
        assert set(said.split()) <= set(words.split()), said


def clipped(element: Element, clips: dict[str, QRectF], at: QTransform, room: QRectF) -> Iterator[str]:
    """The texts that begin where nothing is drawn, as SVG's own rules have it: a clip moves with its element."""
    for moved in re.findall(r"(\w+)\(([^)]*)\)", element.get("transform", "")):
        numbers = [float(number) for number in moved[1].split(",")]
        at = QTransform(*numbers) * at if moved[0] == "matrix" else QTransform.fromTranslate(*numbers) * at
    if clip := element.get("clip-path"):
        room = room & at.mapRect(clips[clip[5:-1]]).adjusted(-1, -1, 1, 1)
    begins = QPointF(float(element.get("x", 0)), float(element.get("y", 0)))
    if element.tag == f"{SVG}text" and not room.contains(at.map(begins)):
        yield "".join(element.itertext())
    for child in element:
        if child.tag != f"{SVG}defs":
            yield from clipped(child, clips, at, room)


def clip_box(clip: Element) -> QRectF:
    """What a clip leaves, as a box."""
    inner = clip[0]
    if inner.tag == f"{SVG}rect":
        return QRectF(0, 0, float(inner.get("width", 0)), float(inner.get("height", 0)))
    points = [[float(number) for number in point.split(",")] for point in re.findall(r"[-\d.e]+,[-\d.e]+", inner.get("d", ""))]
    (left, top), (right, bottom) = np.min(points, 0), np.max(points, 0)
    return QRectF(left, top, right - left, bottom - top)


def test_no_viewer_clips_a_word_away(window: Window, tmp_path: Path) -> None:
    window.resize(1440, 1400)   # the inspector need not scroll
    draw(window)
    root = ElementTree.parse(window.files.write_picture(window, tmp_path / "a.svg")).getroot()
    clips = {clip.get("id", ""): clip_box(clip) for clip in root.iter(f"{SVG}clipPath")}
    room = QRectF(0, 0, float(root.get("width", 0)), float(root.get("height", 0)))
    assert len(clips) > 50
    assert list(clipped(root, clips, QTransform(), room)) == []


def test_the_names_within_an_svg_are_its_own(window: Window, tmp_path: Path) -> None:
    root = ElementTree.parse(window.files.write_picture(window, tmp_path / "a.svg")).getroot()
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(names) == len(set(names))
    values = " ".join(value for element in root.iter() for value in element.attrib.values())
    assert set(re.findall(r"url\(#(.*?)\)", values)) <= set(names)


@given(st.text())
@pytest.mark.usefixtures("qapp")
def test_an_svg_of_any_words_is_well_formed(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    made = QLabel()
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setText(words)
    made.resize(100, 20)
    path = save_svg(made, tmp_path_factory.mktemp("x") / "a.svg", replace(TAKEN, verdict=words, device=words, machine=None))
    assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"


# --- files ---


@pytest.fixture(params=["png", "svg", "csv"])
def save(request: pytest.FixtureRequest, label: QLabel, tmp_path: Path) -> Any:
    """Saves something to a path, in each format."""
    path = tmp_path / f"a.{request.param}"

    def save(to: Path = path) -> Path:
        if request.param == "csv":
            return export.save_csv(TAKEN, to)
        return {"png": save_png, "svg": save_svg}[request.param](label, to, TAKEN)

    return save


def snapshot() -> Snapshot:
    store = Store()
    for event in feed.run(seconds=1):
        store.reduce(event)
    return store.snapshot()


SNAPSHOT = snapshot()


def refused(save: Any, *given_: Path) -> str:
    with pytest.raises(ExportError) as error:
        save(*given_)
    assert one_sentence(str(error.value))
    return str(error.value)


def test_nothing_is_overwritten(save: Any, tmp_path: Path) -> None:
    first = save()
    before = first.read_bytes()
    second, third = save(), save()
    assert [path.stem for path in (first, second, third)] == ["a", "a-2", "a-3"]
    assert first.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == sorted([first, second, third])


def test_a_name_taken_at_the_last_moment_is_left_alone(save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(part: Path, free: Path) -> None:
        if not free.stem.endswith("-2"):
            free.write_text("another program's")
        link(part, free)

    monkeypatch.setattr(os, "link", late)
    path = save()
    assert path.stem == "a-2"
    assert path.with_stem("a").read_text() == "another program's"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_system_without_hard_links_serves(save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    path = save()
    assert list(tmp_path.iterdir()) == [path]


def failing(code: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


class Full:
    """A file on a disk without space."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.file.write(data[:100])
        self.file.flush()
        failing(errno.ENOSPC)()


def test_a_full_disk_while_writing_is_one_sentence(save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(path: Path, mode: str, **options: Any) -> Any:
        return real(path, mode, **options) if mode != "wb" else Full(os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY), "wb"))

    monkeypatch.setattr(Path, "open", full)
    assert "No space left on device" in refused(save)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_last_is_one_sentence(
    save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(code))
    assert os.strerror(code) in refused(save)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_must_not_be_written_is_one_sentence(save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", failing(errno.EACCES))
    assert "Permission denied" in refused(save)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_behind(save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_that_name_is_left_alone(save: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    assert save(tmp_path / "a.png") == tmp_path / "a-2.png"


@pytest.mark.parametrize("name", ["missing/a.png", "file/a.png", "n" * 300 + ".png", "a\0b.png"])
def test_a_path_that_cannot_be_is_one_sentence(save: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(save, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_root_is_no_name(save: Any) -> None:
    refused(save, Path("/"))


def test_names_are_counted_past_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone")
    (tmp_path / "a-2.png").mkdir()
    assert free_name(tmp_path / "a.png") == tmp_path / "a-3.png"


def test_a_scale_that_is_not_offered_is_one_sentence(label: QLabel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Scale 3 cannot be drawn: choose 1, 2 or 4"):
        save_png(label, tmp_path / "a.png", TAKEN, scale=3)


def test_before_the_engine_has_answered_there_is_nothing_to_save(tmp_path: Path) -> None:
    assert "nothing to save yet" in refused(lambda: export.there(KERNELS.configuration(Snapshot(), "attention", "dark", None)))
    assert list(tmp_path.iterdir()) == []
