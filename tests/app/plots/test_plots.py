"""What holds for every plot, whatever comes: it draws, says one sentence with the numbers, has a table, and takes a theme."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.plots import PlotView
from app.store import Snapshot, Store
from app.verdict import verdict
from engine.protocol import Checked, DeviceSample, Event, KernelSample, MemorySample, Refused
from kernels.catalog import catalog
from tests.app import feed
from tests.app.plots.views import FEEDS, GQA, HUGE, LIGHT, MQA, SIX, TINY, faults, fed, known, paused, settle, show, view

KERNELS = st.sampled_from(SIX)
SHARES = st.none() | st.just(0.0) | st.floats(1e-9, 1)
POWERS = st.none() | st.just(0.0) | st.floats(1e-3, 1e6)
TIMES = st.floats(0, 15).map(lambda power: 10.0**power)


def one_of(*events: st.SearchStrategy[Event]) -> st.SearchStrategy[Event]:
    return st.one_of(*events)


T_NS = st.integers(0, 10**12)
EVENTS = st.lists(one_of(
    st.builds(KernelSample, t_ns=T_NS, generation=st.just(1), kernel=KERNELS, launches=st.just(8), time_ns=TIMES,
              provenance=st.sampled_from(["measured", "simulated"]), l2_policy=st.sampled_from(["warm", "cold", ""])),
    st.builds(DeviceSample, t_ns=T_NS, device=st.just("cuda:0"), utilisation=SHARES, dram_utilisation=SHARES,
              power_w=POWERS, power_limit_w=POWERS),
    st.builds(MemorySample, t_ns=T_NS, generation=st.just(1),
              owners=st.dictionaries(st.sampled_from(["Q K V O", "S and P", "other", "workspace"]), st.integers(0, 2**60))),
    st.builds(Checked, generation=st.just(1), kernel=KERNELS, ok=st.booleans(), max_error=st.floats(0, 1e9),
              tolerance=st.just(2e-2), rows=st.just(64)),
    st.builds(Refused, generation=st.just(1), reason=st.just("There is no room."), kernel=KERNELS),
), max_size=12)
PLANS = st.builds(
    lambda kernels, workload, device: feed.planned(tuple(kernels), workload, device),
    st.lists(KERNELS, min_size=1, max_size=6, unique=True), st.sampled_from([feed.WORKLOAD, GQA, MQA, HUGE, TINY]),
    st.just(feed.H200),
)


@pytest.fixture
def views(qtbot: QtBot) -> list[PlotView]:
    return [view(qtbot, plot, (480, 200)) for plot in known()]


@given(planned=PLANS, events=EVENTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_comes_is_drawn_and_said(views: list[PlotView], planned: Event, events: list[Event]) -> None:
    store = Store()
    for event in (feed.hello(), planned, *events):
        store.reduce(event)
    for made in views:
        show(made, store.snapshot())
        holds(made)
        assert not faults(made)


def holds(made: PlotView) -> None:
    """A sentence, a table of whole rows, and no zero or nan for what is missing."""
    sentence, table = made.summary(), made.table()
    assert sentence == made.plot.empty if made.is_empty else sentence != made.plot.empty
    assert sentence.endswith(".")
    assert made.accessibleDescription() == sentence
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert all(cell and "nan" not in cell and "inf" not in cell for row in table.rows for cell in row)
    assert "nan" not in sentence
    assert made.is_empty or table.rows


@pytest.mark.parametrize("name", FEEDS)
def test_every_feed_is_drawn_and_said(views: list[PlotView], name: str) -> None:
    for made in views:
        show(made, fed(name))
        holds(made)


def test_nothing_is_claimed_before_there_is_something(views: list[PlotView]) -> None:
    for made in views:
        show(made, fed("hello"))
        assert made.is_empty
        assert made.table().rows == []
        assert made.table().columns
        assert made.header.notes == ()


def test_what_was_said_goes_with_the_data(views: list[PlotView]) -> None:
    for made in views:
        show(made, fed("two kernels"))
        assert not made.is_empty
        assert made.header.notes
        show(made, Snapshot())
        assert made.is_empty
        assert made.header.notes == ()
        assert made.header.units == (made.plot.unit,)


@pytest.mark.parametrize("plot", known())
@pytest.mark.parametrize("name", ["six kernels", "nothing"])
def test_another_theme_leaves_nothing_of_the_first(qtbot: QtBot, plot: str, name: str) -> None:
    made, fresh = view(qtbot, plot), view(qtbot, plot, theme=LIGHT)
    for one in (made, fresh):
        show(one, fed(name))
    dark = made.grab().toImage()
    made.window().setStyleSheet(LIGHT.stylesheet())
    made.set_theme(LIGHT)
    settle()
    assert made.grab().toImage() != dark
    assert made.grab().toImage() == fresh.grab().toImage()


@pytest.mark.parametrize("plot", known())
def test_the_same_again_is_not_drawn_again(qtbot: QtBot, plot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = view(qtbot, plot)
    show(made, fed("two kernels"))
    drawn: list[Snapshot] = []
    monkeypatch.setattr(type(made), "draw", lambda _, shown: drawn.append(shown))
    made.update_from(fed("two kernels"))
    made.update_from(paused(fed("two kernels")))
    made.update_from(replace(fed("two kernels"), fault=None))
    assert drawn == []
    made.update_from(fed("one sample"))
    assert len(drawn) == 1


@pytest.mark.parametrize("plot", known())
def test_what_a_plot_does_not_need_changes_nothing_in_it(qtbot: QtBot, plot: str) -> None:
    made, other = view(qtbot, plot), fed("gqa")
    show(made, fed("two kernels"))
    before = made.summary(), made.table().text(), made.grab().toImage()
    blank = Snapshot()
    stripped = replace(other, **{
        name: getattr(fed("two kernels") if name in (*made.plot.needs, "hues") else blank, name)
        for name in Snapshot.__dataclass_fields__
        if name != "hello"
    })
    fresh = view(qtbot, plot)
    show(fresh, stripped)
    assert (fresh.summary(), fresh.table().text()) == before[:2]
    assert fresh.grab().toImage() == before[2]


@pytest.mark.parametrize("plot", ["throughput", "latency", "traffic", "hbm"])
def test_every_chosen_kernel_has_a_row_with_its_units(qtbot: QtBot, plot: str) -> None:
    made = view(qtbot, plot)
    show(made, fed("six kernels"))
    for kernel in SIX:
        row = next(row for row in made.table().rows if row[0].removesuffix(", peak") == fed("six kernels").title(kernel))
        assert fmt.SPACE in row[1]
        assert row[-1] in ("measured", "modelled", "scheduled")


@pytest.mark.parametrize("plot", ["throughput", "latency"])
def test_a_kernel_without_a_number_says_why(qtbot: QtBot, plot: str) -> None:
    made = view(qtbot, plot)
    reasons: dict[str, str] = {}
    for name in ("check failed", "refused"):
        show(made, fed(name))
        reasons |= {row[0]: row[-1] for row in made.table().rows if row[1] == fmt.NA}
        assert all(row[1] != "0" for row in made.table().rows)
        assert "check failed" in made.summary() or "refused" in made.summary()
    assert reasons == {"flash": "check failed", "naive": "refused", "SDPA cuDNN": "refused",
                       "SDPA efficient": fmt.NA, "SDPA flash": fmt.NA, "SDPA math": fmt.NA}


@pytest.mark.parametrize("plot", ["throughput", "latency"])
def test_a_check_that_fails_takes_the_number_away_at_once(qtbot: QtBot, plot: str) -> None:
    made, store = view(qtbot, plot), Store()
    for event in feed.run(seconds=1):
        store.reduce(event)
    show(made, store.snapshot())
    assert "check failed" not in made.summary()
    store.reduce(Checked(generation=1, kernel="flash", ok=False, max_error=1.0, tolerance=2e-2, rows=64))
    show(made, store.snapshot())
    assert "flash check failed" in made.summary()


@pytest.mark.parametrize("plot", ["throughput", "latency"])
def test_a_refusal_is_said_at_once(qtbot: QtBot, plot: str) -> None:
    made, store = view(qtbot, plot), Store()
    for event in (feed.hello(), feed.planned(), feed.sample("flash", 1.0, 2e6)):
        store.reduce(event)
    show(made, store.snapshot())
    assert f"naive {fmt.NA}" in made.summary()
    store.reduce(Refused(generation=1, kernel="naive", reason="There is no room."))
    show(made, store.snapshot())
    assert "naive refused" in made.summary()


def test_titles_and_ids_are_of_one_kind() -> None:
    assert list(known()) == [
        "throughput", "hbm", "latency", "limits", "kv_cache", "traffic", "roofline", "power", "utilisation"]
    assert set(SIX) <= set(catalog())
    for plot in known().values():
        assert plot.title[0].isupper()
        assert plot.empty.endswith(".")


def test_the_verdict_and_the_plots_quote_the_same_bytes(qtbot: QtBot) -> None:
    made = view(qtbot, "traffic")
    show(made, fed("two kernels"))
    spent = "naive spends 12.0 GiB on S and P".replace(" GiB", f"{fmt.SPACE}GiB")
    assert spent in verdict(fed("two kernels")).text
    assert f"12.0{fmt.SPACE}GiB of naive" in made.header.toolTip()
