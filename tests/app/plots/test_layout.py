"""Where rows, labels and headers stand: in their widget, in order, apart; and what gives way first."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot

from app.plots.header import Header
from app.plots.labels import EndLabel, EndLabels, spread_out
from app.plots.row_layout import LEAST, RowLayout, Widths, lay_out
from app.plots.rows import Part, Row, RowChart, Scale
from app.plots.words import Word
from app.theme import Mark
from tests.app.plots.views import DARK, LIGHT

WIDTHS = Widths(name=100, value=100, brief=50)


def layout(
    width: float, height: float, rows: int = 4, *, ticks: bool = True, foot: bool = True, widths: Widths = WIDTHS
) -> RowLayout:
    return lay_out(width, height, rows, widths, ticks=ticks, foot=foot)


@given(
    width=st.floats(160, 3000), height=st.floats(40, 1500), rows=st.integers(0, 30), ticks=st.booleans(), foot=st.booleans(),
    name=st.floats(0, 200), value=st.floats(20, 150),
)
def test_rows_stand_one_beneath_another_and_within(
    width: float, height: float, rows: int, ticks: bool, foot: bool, name: float, value: float
) -> None:
    made = layout(width, height, rows, ticks=ticks, foot=foot, widths=Widths(name, value, value / 2))
    lines = [line for line in (made.ticks, made.foot, made.more) if line is not None]
    tops = [min(cells.name.top(), cells.drawing.top()) for cells in made.cells]
    bottoms = [max(cells.name.bottom(), cells.drawing.bottom()) for cells in made.cells]
    edges = [edge for pair in zip(tops, bottoms, strict=True) for edge in pair]
    edges += [edge for line in lines for edge in (line.top(), line.bottom())]
    assert all(after >= before - 1e-6 for before, after in pairwise(edges))
    assert not edges or (edges[0] >= 0 and edges[-1] <= height + 1e-6)
    assert (made.more is not None) == (len(made.cells) < rows)
    for cells in made.cells:
        assert 0 <= cells.name.left() <= cells.name.right() <= cells.value.left()
        assert cells.value.right() <= width + 1e-6
        assert cells.drawing.height() >= LEAST - 4
        assert not cells.drawing.intersects(cells.name)
        assert not cells.drawing.intersects(cells.value)


def test_words_stand_above_their_bars_where_it_is_narrow_and_beside_them_where_it_is_wide() -> None:
    narrow, wide = layout(300, 160).cells[0], layout(600, 160).cells[0]
    assert narrow.drawing.top() >= narrow.name.bottom()
    assert narrow.drawing.width() == 300
    assert wide.name.right() < wide.drawing.left() < wide.drawing.right() < wide.value.left()


def test_what_is_beneath_gives_way_before_the_rows_come_close() -> None:
    shown = [layout(300, height) for height in (89, 87, 71, 55)]
    assert [made.ticks is not None for made in shown] == [True, False, False, False]
    assert [made.foot is not None for made in shown] == [True, True, False, False]
    assert [len(made.cells) for made in shown] == [4, 4, 4, 4]
    assert layout(300, 71, foot=False).ticks is None
    assert layout(300, 73, foot=False).ticks is not None


def test_rows_that_have_no_room_are_counted(qtbot: QtBot) -> None:
    chart = RowChart(DARK)
    qtbot.addWidget(chart)
    chart.show_rows(DARK, [Row(name=f"kernel {i}", value="1 ms") for i in range(12)], Scale(0, 1))
    chart.resize(300, 84)
    assert len(chart.places().cells) == 6
    assert chart.words()[-1].text == "6 more in full view"


def test_values_are_said_in_full_where_bars_keep_their_room() -> None:
    assert layout(300, 60, rows=4).brief
    assert not layout(500, 60, rows=4).brief


def test_a_row_may_lie_above_the_scale_and_a_small_part_is_seen(qtbot: QtBot) -> None:
    chart = RowChart(DARK)
    qtbot.addWidget(chart)
    parts = (Part(1e-9, DARK["waste"]), Part(5.0, DARK["accent"], ("O",)))
    chart.show_rows(DARK, [Row(name="a", value="1 B", parts=parts)], Scale(0, 2))
    chart.resize(500, 84)
    area = chart.places().cells[0].drawing
    small, large = chart._boxes(chart.rows[0], area)
    assert small.width() == 1
    assert large.right() == round(area.right())
    assert "O" in [word.text for word in chart.words()]


def test_the_same_rows_again_paint_nothing(qtbot: QtBot) -> None:
    chart = RowChart(DARK)
    qtbot.addWidget(chart)
    chart.resize(300, 100)
    painted: list[object] = []
    chart.update = lambda *_: painted.append(1)  # type: ignore[method-assign]
    for theme, tip in ((DARK, "1 000 000 ns"), (DARK, "1 000 001 ns"), (LIGHT, "1 000 001 ns")):
        chart.show_rows(theme, [Row(name="a", value="1 ms", tip=tip)], Scale(0, 1))
    assert len(painted) == 2
    assert chart.rows[0].tip == "1 000 001 ns"


@given(
    wanted=st.lists(st.floats(-50, 500), max_size=8).map(sorted), pitch=st.floats(1, 30), low=st.floats(0, 100),
    room=st.floats(0, 400),
)
def test_labels_keep_their_order_and_their_distance(wanted: list[float], pitch: float, low: float, room: float) -> None:
    placed = spread_out(wanted, pitch, low, low + room)
    assert all(after - before >= pitch - 1e-6 for before, after in pairwise(placed))
    if placed:
        assert placed[0] >= low - 1e-6
        assert placed[-1] <= max(low + room, low + pitch * (len(placed) - 1)) + 1e-6
    if all(low <= value <= low + room for value in wanted) and all(b - a >= pitch for a, b in pairwise(wanted)):
        assert placed == pytest.approx(wanted)


def labels(count: int) -> list[EndLabel]:
    return [EndLabel(f"kernel {i}", "12.3", Mark(DARK.series(i)), i / count) for i in range(count)]


@pytest.mark.parametrize(("height", "columns"), [(200, 1), (84, 2), (48, 3), (44, 6)])
def test_labels_stand_in_columns_where_it_is_low(qtbot: QtBot, height: int, columns: int) -> None:
    made = EndLabels(DARK, above=8, below=20)
    qtbot.addWidget(made)
    made.resize(made.width(), height)
    made.show_labels(DARK, labels(6), most=1000)
    made.resize(made.minimumWidth(), height)
    assert len({place.area.left() for place in made.places()}) == columns
    assert all(place.area.right() <= made.width() for place in made.places())
    assert not [word.text for word in made.words() if "…" in word.text]


def test_a_digit_more_or_less_moves_nothing(qtbot: QtBot) -> None:
    made = EndLabels(DARK, above=8, below=20)
    qtbot.addWidget(made)
    widths = []
    for value in ("12.3", "123", "1.23", "0", "12.3"):
        made.show_labels(DARK, [EndLabel("naive", value, Mark(DARK.series(0)), 0.5)], most=1000)
        widths.append(made.minimumWidth())
    assert len(set(widths)) == 1
    made.show_labels(DARK, [], most=1000)
    assert made.minimumWidth() < widths[0]


def header(qtbot: QtBot, width: int) -> list[Word]:
    made = Header(DARK, "Latency", "p50")
    qtbot.addWidget(made)
    made.show_words(DARK, "Latency", ("p50 ± spread", "p50"), ("warm L2 · measured", "measured"))
    made.resize(width, made.height())
    return made.words()


@pytest.mark.parametrize(("width", "said"), [
    (400, ["Latency", "p50 ± spread", "warm L2 · measured"]), (210, ["Latency", "p50 ± spread", "measured"]),
    (160, ["Latency", "p50", "measured"]), (100, ["Latency", "p50"]), (60, ["Latency"]),
])
def test_a_header_says_as_much_as_has_room(qtbot: QtBot, width: int, said: list[str]) -> None:
    assert [word.text for word in header(qtbot, width)] == said
