"""The strip beneath a picture: what ran, where, with what, when, and where the numbers come from."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from PySide6.QtCore import QPointF, QRectF, QSizeF, Qt
from PySide6.QtGui import QFont, QFontMetricsF, QPainter, QTextLayout, QTextOption

from app import format as fmt
from app.configuration import AnyConfiguration
from app.theme import Theme

MARGIN, GAP, ROW_GAP = 12.0, 12.0, 4.0
SOFTWARE = ("tilescope", "torch", "triton", "python", "driver")
NAMES = {"tilescope": "Tilescope", "python": "Python"}


class Caption(NamedTuple):
    """A verdict, and rows of a label and its text."""

    verdict: str
    rows: tuple[tuple[str, str], ...]


def caption(shown: AnyConfiguration) -> Caption:
    """The caption of a picture of this configuration."""
    return Caption(shown.verdict, (
        (shown.NOUN, shown.words()),
        ("Device", _device_words(shown)),
        ("Software", _software_words(shown)),
        ("Numbers", shown.numbers()),
        ("Saved", _date_words(shown.saved)),
    ))


def height(words: Caption, theme: Theme, width: float) -> float:
    """The height in px that the caption takes at this width."""
    return _lay_out(words, theme, width).height


def paint(painter: QPainter, words: Caption, theme: Theme, area: QRectF) -> None:
    """Draws the caption; `area` is as high as `height` says."""
    painter.fillRect(area, theme["panel"])
    painter.fillRect(QRectF(area.topLeft(), QSizeF(area.width(), 1)), theme["border"])
    for line in _lay_out(words, theme, area.width()).lines:
        painter.setFont(line.font)
        painter.setPen(theme[line.role])
        painter.drawText(area.topLeft() + line.baseline, line.text)


def _device_words(shown: AnyConfiguration) -> str:
    if shown.machine is None:
        return shown.device
    parts = [shown.machine.name]
    if shown.machine.memory_bytes is not None:
        parts.append(f"{fmt.bytes_iec(shown.machine.memory_bytes)} {shown.machine.memory_name}")
    if shown.machine.driver:
        parts.append(f"driver {shown.machine.driver}")
    return " · ".join(parts)


def _software_words(shown: AnyConfiguration) -> str:
    stated = shown.machine.driver if shown.machine else ""
    known = [(name, shown.software[name]) for name in SOFTWARE if shown.software.get(name)]
    return " · ".join(f"{NAMES.get(name, name)} {number}" for name, number in known if not (name == "driver" and stated))


def _date_words(saved: str) -> str:
    try:
        return datetime.fromisoformat(saved).isoformat(" ", "minutes")
    except ValueError:
        return saved or fmt.NA


class _Line(NamedTuple):
    """One line of text; `baseline` from the strip's top left."""

    text: str
    font: QFont
    role: str
    baseline: QPointF


class _Layout(NamedTuple):
    lines: list[_Line]
    height: float


def _lay_out(words: Caption, theme: Theme, width: float) -> _Layout:
    lines: list[_Line] = []
    sans, bold = theme.sans(), theme.sans(semibold=True)
    column = max(QFontMetricsF(sans).horizontalAdvance(label) for label, _ in words.rows) + GAP
    y = MARGIN
    if words.verdict:
        y = _wrap(lines, words.verdict, bold, "text", MARGIN, y, width - 2 * MARGIN) + ROW_GAP
    for label, text in words.rows:
        _wrap(lines, label, sans, "muted", MARGIN, y, column)
        y = _wrap(lines, text, sans, "text", MARGIN + column, y, width - 2 * MARGIN - column)
    return _Layout(lines, y + MARGIN - ROW_GAP)


def _wrap(lines: list[_Line], text: str, font: QFont, role: str, x: float, y: float, width: float) -> float:
    """Adds the lines of a text broken at words, else anywhere; returns where the next text begins."""
    layout = QTextLayout(text, font)
    option = QTextOption(Qt.AlignmentFlag.AlignLeft)
    option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
    layout.setTextOption(option)
    layout.beginLayout()
    while (line := layout.createLine()).isValid():
        line.setLineWidth(max(width, 40.0))
        start = line.textStart()
        lines.append(_Line(text[start:start + line.textLength()].rstrip(" "), font, role, QPointF(x, y + line.ascent())))
        y += line.height()
    layout.endLayout()
    return y + ROW_GAP
