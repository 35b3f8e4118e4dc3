"""Themes: contrast, the same roles in each, no colour anywhere else, a style sheet that Qt understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QLabel, QWidget
from pytestqt.qtbot import QtBot

import app
from app.theme import DASHES, MARKERS, PROVENANCE_DASH, THEMES, Theme, contrast, on

TEXT, GRAPHIC = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11
HEX = re.compile(r"[\"'(\s:]#[0-9A-Fa-f]{3,8}\b|QColor\(\s*\d|Qt\.GlobalColor")


@pytest.fixture(params=THEMES)
def theme(request: pytest.FixtureRequest) -> Theme:
    return Theme.load(request.param)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast(QColor("white"), QColor("black")) == pytest.approx(21)
    assert contrast(QColor("#777777"), QColor("white")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("ground", ["background", "panel", "raised"])
def test_words_can_be_read(theme: Theme, ground: str) -> None:
    assert contrast(theme["text"], theme[ground]) >= 7
    for role in ("muted", "ok", "warning", "waste"):
        assert contrast(theme[role], theme[ground]) >= TEXT, role


def test_words_on_fills_can_be_read(theme: Theme) -> None:
    assert contrast(theme["text"], theme["selection"]) >= TEXT
    assert contrast(theme["text"], theme["hover"]) >= TEXT
    assert contrast(theme["on_accent"], theme["accent"]) >= TEXT
    assert contrast(theme["on_accent"], theme["accent_hover"]) >= TEXT
    for fill in (theme["waste"], *(theme.operand(name) for name in "QKVOSP")):
        assert contrast(on(theme, fill), fill) >= TEXT


def test_what_must_be_seen_can_be_seen(theme: Theme) -> None:
    graphics = [theme.series(i) for i in range(6)] + [theme.operand(name) for name in "QKVOSP"]
    for colour in (*graphics, theme["accent"], theme["edge"], theme["waste"]):
        assert contrast(colour, theme["panel"]) >= GRAPHIC, colour.name()
    assert contrast(theme["accent"], theme["background"]) >= GRAPHIC


def test_all_themes_have_the_same_roles() -> None:
    dark, light = (Theme.load(name).tokens for name in THEMES)
    assert dark.role.keys() == light.role.keys()
    assert dark.operand.keys() == light.operand.keys()
    assert len(dark.series) == len(light.series) == 6


def test_a_kernel_is_told_by_more_than_its_hue() -> None:
    assert len(set(DASHES)) == len(set(MARKERS)) == 6
    assert not set(PROVENANCE_DASH.values()) & set(DASHES)


def test_what_was_not_measured_never_looks_measured(theme: Theme) -> None:
    measured, simulated = theme.mark(1), theme.mark(1, "simulated")
    assert measured.colour == simulated.colour
    assert measured.dash != simulated.dash
    assert (measured.filled, simulated.filled) == (True, False)


def test_gradients_take_the_hue_of_their_operand(theme: Theme) -> None:
    assert theme.operand("dQ") == theme.operand("Q")
    assert theme.operand("lse") == theme["muted"]


def test_a_colour_handed_out_may_be_changed(theme: Theme) -> None:
    theme["text"].setAlpha(0)
    assert theme["text"].alpha() == 255


def test_an_unknown_theme_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="there is no theme 'sepia': choose dark or light"):
        Theme.load("sepia")


def test_no_colour_stands_outside_the_themes() -> None:
    root = Path(app.__file__).parent
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1) if HEX.search(line)
    ]
    assert not found, "\n".join(found)


def test_qt_understands_the_style_sheet(qtbot: QtBot, theme: Theme, capfd: pytest.CaptureFixture[str]) -> None:
    widget = QWidget()
    label = QLabel("a title", widget)
    label.setProperty("role", "title")
    qtbot.addWidget(widget)
    widget.setStyleSheet(theme.stylesheet())
    label.ensurePolished()
    assert label.font().pixelSize() == 14
    assert "$" not in theme.stylesheet()
    assert "Could not parse" not in capfd.readouterr().err


def test_the_icons_of_the_style_sheet_exist(theme: Theme) -> None:
    icons = re.findall(r'url\("([^"]+)"\)', theme.stylesheet())
    assert icons
    assert all(Path(icon).is_file() for icon in icons)


def test_fonts_have_the_size_and_weight_asked_for(qtbot: QtBot, theme: Theme) -> None:  # noqa: ARG001
    assert theme.sans().pixelSize() == 12
    assert theme.sans(14, semibold=True).weight() == 600
    assert theme.mono(11).pixelSize() == 11
