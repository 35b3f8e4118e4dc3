"""The grid of tokens and the pages: what is computed, computed again and read; one clock; and what each scene says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.decoding.facts import compared, titles
from app.decoding.state import DecodeState
from app.store import Store
from app.theme import Theme
from app.tiles.token_stage import EMPTY, TokenStage
from app.tiles.tokens import BLOCKS, POOL, PROMPT, STEPS, TOKENS, Clock, block_table, counts, row
from kernels.contract.workload import PAGE
from tests.app import decode_feed

DARK = Theme.load("dark")


def state(*caches: str, until: float = 0.3) -> DecodeState:
    store = Store()
    for event in decode_feed.run(decode_feed.decoding(caches=caches or ("none", "dense")), until=until):
        store.reduce(event)
    return store.snapshot().decode


@pytest.fixture
def stage(qtbot: QtBot) -> TokenStage:
    made = TokenStage(DARK)
    qtbot.addWidget(made)
    made.resize(900, 420)
    made.show()
    return made


@pytest.mark.parametrize("step", range(STEPS))
def test_each_step_makes_one_token_and_all_before_it_are_read_or_made_again(step: int) -> None:
    cached, bare = row(step, cached=True), row(step, cached=False)
    assert cached.tokens == bare.tokens == PROMPT + step
    assert len(cached.new) == len(bare.new) == (PROMPT if step == 0 else 1)
    assert (list(cached.read), list(cached.again)) == (list(range(cached.new.start)), [])
    assert (list(bare.again), list(bare.read)) == (list(range(bare.new.start)), [])


@pytest.mark.parametrize("cached", [True, False])
def test_the_counts_are_the_sum_of_the_rows(cached: bool) -> None:
    for last in range(STEPS):
        rows = [row(step, cached) for step in range(last + 1)]
        drawn = counts(PROMPT, PROMPT + last + 1, cached)
        assert drawn == (sum(one.worked for one in rows), sum(len(one.read) for one in rows))


@given(st.integers(1, 5000))
def test_every_block_has_a_page_of_its_own_and_keeps_it(tokens: int) -> None:
    table, after = block_table(tokens), block_table(tokens + 1)
    assert len(set(table.physical)) == len(table.physical) == min(table.held.pages, BLOCKS)
    pool = table.pool()
    assert len(pool) == POOL
    used = sum(page.used for page in pool)
    assert used == tokens - PAGE * table.first
    before = {table.first + at: page for at, page in enumerate(table.physical)}
    later = {after.first + at: page for at, page in enumerate(after.physical)}
    assert all(later[block] == page for block, page in before.items() if block in later)


def test_pages_are_shuffled() -> None:
    assert list(block_table(PAGE * BLOCKS).physical) != sorted(block_table(PAGE * BLOCKS).physical)


def test_the_clock_lights_cells_then_rests_then_steps() -> None:
    clock = Clock(step=0)
    clock.playing = True
    assert clock.advance(0.5)           # two steps a second
    assert (clock.step, clock.lit) == (1, 0.0)
    assert clock.advance(0.125)
    assert clock.lit == TOKENS / 2
    clock.advance(0.125)
    assert clock.still
    assert not clock.advance(0.1)       # rests
    for _ in range(200):
        clock.advance(0.1)
    assert clock.ended
    assert not clock.playing


def test_reduced_motion_lights_all_at_once() -> None:
    clock = Clock(reduced=True)
    clock.go(1)
    assert clock.still


@given(st.lists(st.integers(-20, 20), max_size=30))
def test_steps_stay_within_the_grid(steps: list[int]) -> None:
    clock = Clock()
    for by in steps:
        clock.go(clock.step + by)
        assert 0 <= clock.step < STEPS


def test_before_there_is_a_decoding_it_says_what_will_be(stage: TokenStage) -> None:
    assert stage.summary() == EMPTY
    assert not stage.transport.isEnabled()
    assert not stage.cached.isVisible()
    stage.toggle_play()
    assert not stage.advance(1.0)


def test_buttons_slider_and_keys_move_both_sides(stage: TokenStage) -> None:
    stage.show_state(state())
    stage.set_reduced_motion(True)
    QTest.mouseClick(stage.transport.on, Qt.MouseButton.LeftButton)
    assert "at token 5" in stage.cached.accessibleDescription()
    assert "at token 5" in stage.bare.accessibleDescription()
    QTest.mouseClick(stage.transport.end, Qt.MouseButton.LeftButton)
    assert "at token 12" in stage.summary()
    QTest.keyClick(stage, Qt.Key.Key_Comma)
    assert "at token 11" in stage.summary()
    stage.transport.slider.setValue(0)
    assert "at token 4" in stage.summary()
    assert stage.transport.time.text() == "the prompt"


def test_the_uncached_side_is_still_at_work_when_the_cached_one_is_done(stage: TokenStage) -> None:
    stage.show_state(state())
    stage.seek(0.7)
    stage.step(1)
    stage.advance(0.05)
    assert stage.advance(0.0)           # cells still light up
    cached, bare = stage._side(True), stage._side(False)
    assert cached is not None
    assert bare is not None
    step = row(bare.step, cached=False)
    assert 1 <= bare.lit < step.worked      # of the cached side's one cell all are lit
    stage.set_reduced_motion(True)
    assert not stage.advance(0.0)


def test_the_lanes_of_the_run_stand_beside_the_grids(stage: TokenStage) -> None:
    stage.show_state(state())
    cached, bare = stage._side(True), stage._side(False)
    assert cached is not None
    assert bare is not None
    assert cached.lane.startswith("dense · ")
    assert cached.lane.endswith("a token")
    assert bare.lane.startswith("no cache · ")
    assert (cached.run.computed, bare.run.computed, cached.run.read) == (639, 196_352, 195_713)
    stage.show_state(state("dense"))
    bare = stage._side(False)
    assert bare is not None
    assert bare.lane == "not in this run"
    assert not stage.pages.isVisible()


def test_a_paged_cache_shows_its_pages_and_their_waste(stage: TokenStage) -> None:
    stage.show_state(state("none", "dense", "paged"))
    assert stage.pages.isVisible()
    stage.seek(0.0)
    said = stage.pages.summary().replace(fmt.SPACE, " ")
    assert said == "This run after its prompt: 128 tokens in 8 pages of 16: 0 of 128 slots are empty, 0 %."
    stage.step(1)
    said = stage.pages.summary().replace(fmt.SPACE, " ")
    assert said == "This run after 1 step: 129 tokens in 9 pages of 16: 15 of 144 slots are empty, 10 %."
    stage.seek(1.0)     # the grid at its token 12, this run at another
    assert f"This run after {STEPS - 1} steps: {128 + STEPS - 1} tokens" in stage.summary().replace(fmt.SPACE, " ")


def test_the_grid_stands_for_the_lanes_that_the_verdict_compares(stage: TokenStage) -> None:
    for caches in (("none", "dense", "paged"), ("paged", "none", "dense")):
        shown = state(*caches)
        stage.show_state(shown)
        pair = compared(shown)
        assert pair is not None
        for cached, lane in zip((True, False), pair, strict=True):
            side = stage._side(cached)
            assert side is not None
            assert side.lane.startswith(titles(shown)[lane])
    stage.show_state(state("paged", "dense"))   # nothing to compare with
    side = stage._side(True)
    assert side is not None
    assert side.lane.startswith("paged")


@pytest.mark.parametrize("size", [(720, 280), (900, 420), (1400, 900), (620, 280)])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_it_is_painted_at_any_size(stage: TokenStage, size: tuple[int, int], theme: str) -> None:
    stage.show_state(state("none", "dense", "paged"))
    stage.set_theme(Theme.load(theme))
    stage.resize(*size)
    images = []
    for fraction in (0.0, 0.5, 1.0):
        stage.seek(fraction)
        images.append(stage.grab().toImage())
    assert images[0] != images[1] != images[2]


def test_the_inspector_is_told_of_each_step(stage: TokenStage) -> None:
    told: list[object] = []
    stage.picked.connect(told.append)
    stage.show_state(state())
    stage.step(1)
    stage.step(1)
    assert len(told) == len(set(map(str, told))) >= 2
