"""No word of a plot is cut, leaves it or lies on another, at any size that the window gives, whatever it shows."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.plots.strip import StripView
from tests.app.plots.views import FEEDS, FULL, GRID, SIX, TABS, faults, fed, known, settle, show, view, written

STRIPS = {"throughput", "utilisation", "power"}


def sizes(plot: str) -> list[tuple[int, int]]:
    return [*TABS, *FULL, *([] if plot in STRIPS else GRID)]


@pytest.mark.parametrize("plot", known())
def test_words_have_room(qtbot: QtBot, plot: str) -> None:
    made, found = view(qtbot, plot), []
    for size in sizes(plot):
        made.resize(*size)
        for name in FEEDS:
            show(made, fed(name))
            found += [(size, name, fault) for fault in faults(made)]
    assert not found


@pytest.mark.parametrize("plot", known())
def test_the_sentence_of_an_empty_plot_has_room(qtbot: QtBot, plot: str) -> None:
    made = view(qtbot, plot)
    for size in sizes(plot):
        made.resize(*size)
        settle()
        sentence = next(label for label in made.findChildren(QLabel) if label.text() == made.plot.empty)
        assert sentence.isVisible()
        assert sentence.heightForWidth(sentence.width()) <= sentence.height(), size


@pytest.mark.parametrize("plot", sorted(STRIPS))
def test_words_have_room_under_the_crosshair(qtbot: QtBot, plot: str) -> None:
    made, found = view(qtbot, plot), []
    assert isinstance(made, StripView)
    for size in TABS:
        made.resize(*size)
        for name in ("six kernels", "extremes", "unread", "new generation"):
            show(made, fed(name))
            for cursor in (-29.0, -1.0, 0.0):
                made.graph.time.set_cursor(cursor)
                settle()
                found += [(size, name, cursor, fault) for fault in faults(made)]
            made.graph.time.set_cursor(None)
    assert not found


@pytest.mark.parametrize(("plot", "size"), [("hbm", (264, 132)), ("latency", (264, 113)), ("throughput", (602, 113))])
def test_all_kernels_are_named_even_where_it_is_low(qtbot: QtBot, plot: str, size: tuple[int, int]) -> None:
    made = view(qtbot, plot, size)
    show(made, fed("six kernels"))
    titles = {fed("six kernels").title(kernel) for kernel in SIX}
    assert titles <= {word.text for word in written(made)}
