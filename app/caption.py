"""The strip beneath a picture: what ran, where, with what, when, and where the numbers come from."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from PySide6.QtCore import QPointF, QRectF, QSizeF, Qt
from PySide6.QtGui import QFont, QFontMetricsF, QPainter, QTextLayout, QTextOption

from app import format as fmt
from app.configuration import AnyConfiguration, Configuration
from app.decoding.facts import CACHE_TITLES
from app.facts import shared
from app.theme import Theme
from engine.protocol import CACHES, AttentionWorkload, Decoding

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
        ("Workload" if isinstance(shown, Configuration) else "Decoding", run_words(shown)),
        ("Device", _device_words(shown)),
        ("Software", _software_words(shown)),
        ("Numbers", _numbers_words(shown)),
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


def run_words(shown: AnyConfiguration) -> str:
    """What runs, in one line."""
    return workload_words(shown.workload) if isinstance(shown, Configuration) else decoding_words(shown.decoding)


def decoding_words(run: Decoding) -> str:
    """A decoding in one line: `GPT-2 small · batch 1 · 128 tokens of prompt and 512 new · no cache, dense · MHA · float16`."""
    caches = [CACHE_TITLES[cache] for cache in CACHES if any(lane.cache == cache for lane in run.lanes)]
    heads = sorted({lane.kv_heads for lane in run.lanes}, reverse=True)
    return " · ".join([
        run.model.title, f"batch {fmt.count(run.batch)}",
        f"{fmt.count(run.prompt)} tokens of prompt and {fmt.count(run.new)} new",
        ", ".join(caches), ", ".join(shared(run.model.heads, kv_heads) for kv_heads in heads), run.dtype])


def workload_words(workload: AttentionWorkload) -> str:
    """A workload in one line: `batch 4 · sequence 4 096 · 16 query and 16 KV heads (MHA) · head dim 128 · ...`."""
    length = fmt.count(workload.seq)
    if workload.keys != workload.seq:
        length += f", keys {fmt.count(workload.keys)}"
    parts = [
        f"batch {fmt.count(workload.batch)}", f"sequence {length}",
        f"{workload.heads} query and {workload.kv_heads} KV heads ({workload.sharing})",
        f"head dim {workload.head_dim}", workload.dtype, "causal" if workload.causal else "full",
    ]
    if workload.window:
        parts.append(f"window {fmt.count(workload.window)}")
    return " · ".join([*parts, workload.pass_])


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


def _numbers_words(shown: AnyConfiguration) -> str:
    """`times measured (CUDA events) · warm L2 · median of 40 samples · bytes scheduled`."""
    if not isinstance(shown, Configuration):
        kinds = sorted({f"{lane.time_provenance} ({lane.time_source})" for lane in shown.lanes if lane.step_p50_ns is not None})
        return f"times {', '.join(kinds)} · bytes by formula" if kinds else "no time was measured · bytes by formula"
    moved = f"bytes {' and '.join(sorted({row.bytes_provenance for row in shown.measured}, reverse=True)) or fmt.NA}"
    timed = [row for row in shown.measured if row.time_p50_ns is not None]
    if not timed:
        return f"no time was measured · {moved}"
    sources = sorted({f"{row.time_provenance} ({row.time_source})" for row in timed})
    policies = sorted({f"{row.l2_policy} L2" for row in timed if row.l2_policy})
    fewest, most = min(row.samples for row in timed), max(row.samples for row in timed)
    of = fmt.plural(most, "sample") if fewest == most else f"{fmt.count(fewest)} to {fmt.plural(most, 'sample')}"
    return " · ".join([f"times {', '.join(sources)}", *policies, f"median of {of}", moved])


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
