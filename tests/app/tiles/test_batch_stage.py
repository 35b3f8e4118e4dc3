"""The picture of the batching lab: a card a batch size, tiles filled as far as the batch goes, bytes to scale."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtGui import QImage
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.batching.facts import Bytes
from app.batching.state import BatchState
from app.store import Store
from app.theme import Theme
from app.tiles.batch_card import BatchCard, Card
from app.tiles.batch_stage import EMPTY, BatchStage, cards_of
from engine.protocol import Device, Event
from engine.simulator import spec
from tests.app import batch_feed, feed
from tests.app.batch_feed import batching, planned, run

DARK = Theme.load("dark")
SIMULATED = spec.device_of(spec.resolve("sim:h200-sxm"))


def state(*events: Event) -> BatchState:
    store = Store()
    for event in events:
        store.reduce(event)
    return store.snapshot().batch


def plain(said: str) -> str:
    return said.replace(fmt.SPACE, " ").replace(fmt.THIN, " ")


@pytest.fixture
def stage(qtbot: QtBot) -> BatchStage:
    made = BatchStage(DARK)
    qtbot.addWidget(made)
    made.resize(896, 340)
    made.show()
    return made


def near(image: QImage, colour: str) -> int:
    """Pixels of exactly a role's colour."""
    wanted = DARK[colour].rgb()
    return sum(image.pixel(x, y) == wanted for x in range(image.width()) for y in range(image.height()))


def test_one_four_eight_and_the_largest_have_a_card(stage: BatchStage) -> None:
    assert stage.summary() == EMPTY
    stage.show_state(state(*run()), feed.H200)
    assert [card.card.batch for card in stage.cards if card.card] == [1, 4, 8, 256]
    said = plain(stage.cards[0].summary())
    assert said.startswith("batch 1: 1 of 16 rows of each tile; 128 programs on 132 SMs; W 128 MiB, X 16.0 KiB")
    assert "of product ceiling 0.5 %, of read ceiling 85 %." in said
    stage.show_state(state(*run(batching(width=16384))), feed.H200)
    assert "256 programs on 132 SMs, 2 to the fullest;" in plain(stage.cards[0].summary())
    stage.show_state(state(*run(batching(batches=(1, 2)))), feed.H200)
    assert [card.card.batch for card in stage.cards if card.card] == [1, 2]
    stage.show_state(BatchState(), None)
    assert stage.cards == []
    assert stage.accessibleDescription() == EMPTY


@pytest.mark.parametrize("device", [feed.H200, SIMULATED], ids=["real", "simulated"])
def test_before_a_sample_there_are_tiles_and_no_numbers(device: Device) -> None:
    card = cards_of(state(batch_feed.hello(), planned(batching())), device)[0]
    assert (card.programs, card.rows, card.cells) == (128, 16, 132)
    assert {value for _, value in card.figures} == {fmt.NA}


def test_a_batch_that_is_refused_has_no_card() -> None:
    found = state(*run(batching("model", model="llama-2-7b", cached=3000)))
    assert [card.batch for card in cards_of(found, feed.H200)] == [1, 4, 8, 64]


def test_on_a_cpu_and_of_a_model_bytes_stand_in_the_place_of_sms() -> None:
    on_cpu = cards_of(state(*run(batching(width=1024, dtype="float32"), device=feed.CPU)), feed.CPU)
    assert {card.rows for card in on_cpu} == {None}
    assert [part.name for part in on_cpu[0].parts] == ["W", "X", "Y"]
    model = cards_of(state(*run(batching("model"))), feed.H200)
    assert [part.name for part in model[0].parts] == ["weights", "KV cache"]
    assert len({card.parts[0].size for card in model}) == 1
    assert [card.parts[1].size // model[0].parts[1].size for card in model] == [1, 4, 8, 256]


@given(st.integers(1, 600), st.sampled_from([16, 32, 64, 128]), st.integers(1, 9))
def test_the_filled_rows_of_all_programs_are_the_batch_in_every_column(batch: int, rows: int, columns: int) -> None:
    blocks = math.ceil(batch / rows)
    card = Card(batch=batch, title="", parts=(), most=1, tallest=1, programs=blocks * columns, rows=rows, cells=132)
    assert sum(card.filled(program) * rows for program in range(blocks * columns)) == pytest.approx(batch * columns)
    assert card.used[0].startswith(f"{min(batch, rows)} of {rows} rows")


def test_more_rows_fill_more_of_the_same_cells(stage: BatchStage) -> None:
    stage.show_state(state(*run()), feed.H200)
    filled = [near(card.grab().toImage(), "accent") for card in stage.cards]
    assert filled == sorted(filled)
    assert filled[0] < filled[1] < filled[2] < filled[3]
    assert filled[3] > 10 * filled[0]


@pytest.mark.parametrize("size", [(110, 210), (216, 320), (176, 244), (900, 800)], ids=str)
def test_all_cells_have_a_place_within_the_card(qtbot: QtBot, size: tuple[int, int]) -> None:
    made = BatchCard(DARK)
    qtbot.addWidget(made)
    made.resize(*size)
    parts = (Bytes("W", "K", 100), Bytes("X", "Q", 1), Bytes("Y", "O", 1))
    made.show_card(Card(batch=1, title="batch 1", parts=parts, most=102, tallest=100, programs=64, rows=16, cells=132,
                        place=("64 programs",), figures=(("median time", "1 s"),) * 4))
    columns, pitch = made.grid()
    assert columns * pitch <= made.body().width() + 1e-6
    assert math.ceil(132 / columns) * pitch <= max(made.body().height(), 132) + 1e-6
    made.grab()


def test_another_theme_paints_every_card(stage: BatchStage) -> None:
    stage.show_state(state(*run()), feed.H200)
    before = stage.cards[0].grab().toImage()
    stage.set_theme(Theme.load("light"))
    assert stage.cards[0].grab().toImage() != before
    assert not stage.advance(1.0)
