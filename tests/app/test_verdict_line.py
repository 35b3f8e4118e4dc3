"""The verdict above the panels: facts are said whole or not at all."""

from __future__ import annotations

from pytestqt.qtbot import QtBot

from app.panels.verdict_line import VerdictLine
from app.verdict import Verdict

SAID = Verdict("flash runs 5× faster", "speed measured", ("cuDNN runs 1.4× faster than flash", "causal: half of the work"))


def line(qtbot: QtBot, width: int) -> VerdictLine:
    made = VerdictLine()
    qtbot.addWidget(made)
    made.show_verdict(SAID)
    made.resize(width, 40)
    made.show()
    return made


def test_with_room_all_is_said(qtbot: QtBot) -> None:
    made = line(qtbot, 900)
    assert made.sentence.text() == SAID.text
    assert made.provenance.text() == SAID.provenance
    assert all(fact in made.facts.text() for fact in SAID.more)


def test_a_fact_that_has_no_room_is_left_out_whole_and_stays_in_the_tooltip(qtbot: QtBot) -> None:
    made = line(qtbot, 340)
    assert made.facts.text() == SAID.more[0]
    assert made.facts.fontMetrics().horizontalAdvance(SAID.more[0]) <= made.facts.width()
    assert SAID.more[1] in made.toolTip()


def test_a_wider_window_brings_it_back(qtbot: QtBot) -> None:
    made = line(qtbot, 340)
    made.resize(900, 40)
    assert SAID.more[1] in made.facts.text()
