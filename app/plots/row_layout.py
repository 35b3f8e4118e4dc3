"""Where the rows of a chart stand, and what gives way where it is low or narrow. Geometry alone.

In this order: the line beneath or the labels of the scale, whichever says less; then the rows come closer; then the last of
them are counted instead of drawn.
"""

from __future__ import annotations

from typing import NamedTuple

from PySide6.QtCore import QRectF

LINE, GAP = 16.0, 8.0
CLOSE, LEAST = 14.0, 12.0       # pitch of rows: from CLOSE on there may be lines beneath; never below LEAST
STACKED = 26.0                  # the least pitch of rows whose words stand above their bars
HIGH, HIGH_STACKED = 48.0, 56.0
WIDE = 420.0                    # from here on words stand beside the bars
BAR, SHARE = 16.0, 0.58         # height of a bar, and of a pitch where that is more
ROOM = 0.3                      # of the width, that bars have before values are said in full
NARROWEST = 24.0                # of a bar's room, before names are cut


class Widths(NamedTuple):
    """Pixels that the widest name, value and short value take."""

    name: float
    value: float
    brief: float


class Cells(NamedTuple):
    """Where the parts of one row stand."""

    name: QRectF
    drawing: QRectF
    value: QRectF


class RowLayout(NamedTuple):
    """`cells`: of the rows that are drawn, from the first. `ticks`, `foot`, `more`: those lines, None where they are left out.

    `brief`: values in their short form. `pitch`: from row to row.
    """

    cells: list[Cells]
    ticks: QRectF | None
    foot: QRectF | None
    more: QRectF | None
    brief: bool
    pitch: float


def lay_out(width: float, height: float, rows: int, widths: Widths, *, ticks: bool, foot: bool) -> RowLayout:
    """The layout of some rows. `ticks`, `foot`: whether there is something to write there."""
    ticks, foot = _beneath(height, rows, ticks, foot)
    pitch = (height - LINE * (ticks + foot)) / max(1, rows)
    shown = rows if pitch >= LEAST else min(rows, max(0, int(height / LEAST) - 1))
    stacked = width < WIDE and pitch >= STACKED
    pitch = min(HIGH_STACKED if stacked else HIGH, max(LEAST, pitch))
    cells, brief = (_stacked if stacked else _beside)(width, pitch, shown, widths)
    bottom = shown * pitch
    return RowLayout(
        cells,
        QRectF(0, bottom, width, LINE) if ticks else None,
        QRectF(0, bottom + LINE * ticks, width, LINE) if foot else None,
        QRectF(0, bottom, width, LEAST) if shown < rows else None,
        brief, pitch,
    )


def _beneath(height: float, rows: int, ticks: bool, foot: bool) -> tuple[bool, bool]:
    """Which lines stand beneath the rows."""
    for kept in ((ticks, foot), (False, foot), (ticks, False)):
        if height - LINE * sum(kept) >= CLOSE * rows:
            return kept
    return False, False


def _stacked(width: float, pitch: float, rows: int, widths: Widths) -> tuple[list[Cells], bool]:
    """Name and value above the bar."""
    brief = widths.name + GAP + widths.value > width
    value = min(widths.brief, width / 2) if brief else widths.value
    bar = min(pitch - LINE - 2, max(BAR, (pitch - LINE) * SHARE))
    return [
        Cells(QRectF(0, top, width - value - GAP, LINE), QRectF(0, top + LINE, width, bar),
              QRectF(width - value, top, value, LINE))
        for top in (i * pitch for i in range(rows))
    ], brief


def _beside(width: float, pitch: float, rows: int, widths: Widths) -> tuple[list[Cells], bool]:
    """Name, bar and value in one line."""
    brief = width - widths.name - widths.value - 2 * GAP < ROOM * width
    value = min(widths.brief, width / 2) if brief else widths.value
    name = max(0.0, min(widths.name, width - value - 2 * GAP - NARROWEST))
    bar, room = min(pitch - 2, max(BAR, pitch * SHARE)), max(0.0, width - name - value - 2 * GAP)
    return [
        Cells(QRectF(0, top, name, pitch), QRectF(name + GAP, top + (pitch - bar) / 2, room, bar),
              QRectF(width - value, top, value, pitch))
        for top in (i * pitch for i in range(rows))
    ], brief
