"""The device strip: every reading or why it is missing, at places that do not move."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.panels.device_strip import DeviceStrip, Field, Readings, fields_of, pill
from app.store import Snapshot, Store
from app.theme import Theme
from engine.protocol import DeviceSample, Event, Phase
from kernels.contract import Device
from tests.app import feed

LOST = DeviceSample(
    t_ns=40 * 10**9, device="cuda:0", utilisation=1.0, throttle=("power cap",), missing={"power_w": "a vGPU hides it"},
)


def snapshot(*events: Event) -> Snapshot:
    store = Store()
    for event in events:
        store.reduce(event)
    return store.snapshot()


def said(shown: Snapshot) -> str:
    return " | ".join(f"{field.label} {field.value}".strip() for field in fields_of(shown)).replace(fmt.SPACE, " ")


def test_a_gpu_is_told_in_full() -> None:
    text = said(snapshot(*feed.run(seconds=1))).replace(fmt.THIN, " ")
    assert text.startswith("NVIDIA H200 · 132 SMs | busy 9")
    assert "HBM 12.4 of 140 GiB | DRAM 3" in text
    assert text.endswith("1 755 MHz | 54 °C | no throttling")


def test_a_cpu_says_that_it_is_one_and_shows_what_it_has() -> None:
    text = said(snapshot(*feed.run(device=feed.CPU, seconds=1)))
    assert text.startswith("AMD EPYC 9B14 · CPU · 2 cores | load 9")
    assert text.endswith("RAM 5.00 of 16.0 GiB")


def test_what_is_missing_is_not_zero_and_says_why() -> None:
    fields = fields_of(snapshot(*feed.run(seconds=1), LOST))
    missing = [field for field in fields if field.value == fmt.NA]
    assert len(missing) == 5
    assert any(field.tip == "n/a: a vGPU hides it" for field in missing)
    assert all(field.tip.startswith("n/a: ") for field in missing)


def test_throttling_warns_by_word_and_sign() -> None:
    field = fields_of(snapshot(*feed.run(seconds=1), LOST))[-1]
    assert (field.value, field.warn) == ("⚠ power cap", True)


def test_before_the_first_reading_nothing_is_claimed() -> None:
    assert said(Snapshot()) == "looking for devices…"
    fields = fields_of(snapshot(feed.hello(), feed.planned()))
    assert [field.value for field in fields[1:]] == [fmt.NA] * (len(fields) - 1)
    assert fields[1].tip == "n/a: not read yet"


@pytest.mark.parametrize(("name", "live", "expected"), [
    ("measuring", True, "● live"), ("compiling", True, "○ compiling"), ("measuring", False, "○ view paused"),
])
def test_the_pill(name: str, live: bool, expected: str) -> None:
    phase = Phase(generation=1, name=name)  # type: ignore[arg-type]  # a literal from the parameters
    assert pill(Snapshot(live=live, phase=phase)) == expected
    assert pill(Snapshot()) == "○ idle"


def places(readings: Readings) -> list[tuple[Field, float, float]]:
    return [(field, area.left(), area.right()) for field, area in readings.places()[0]]


@pytest.mark.parametrize("width", [240, 400, 640, 900, 1024, 1440, 2560])
def test_fields_never_overlap_and_never_leave_the_strip(qtbot: QtBot, width: int) -> None:
    readings = Readings(Theme.load("dark"))
    qtbot.addWidget(readings)
    readings.resize(width, 28)
    readings.show_fields(fields_of(snapshot(*feed.run(seconds=1))))
    spans = places(readings)
    assert spans[0][0].rank == 0
    assert all(right < left for (_, _, right), (_, left, _) in pairwise(spans))
    assert spans[-1][2] <= width


def test_a_wide_strip_shows_everything_with_graphs_and_a_narrow_one_what_matters_most(qtbot: QtBot) -> None:
    readings = Readings(Theme.load("dark"))
    qtbot.addWidget(readings)
    fields = fields_of(snapshot(*feed.run(seconds=1)))
    readings.show_fields(fields)
    readings.resize(2560, 28)
    shown, graphs = readings.places()
    assert (len(shown), graphs) == (len(fields), True)
    readings.resize(500, 28)
    shown, graphs = readings.places()
    assert not graphs
    assert [field.rank for field, _ in shown] == sorted(field.rank for field, _ in shown)
    assert max(field.rank for field, _ in shown) == len(shown) - 1


def test_nothing_moves_when_a_number_changes(qtbot: QtBot) -> None:
    readings = Readings(Theme.load("light"))
    qtbot.addWidget(readings)
    readings.resize(1440, 28)
    lefts = []
    for sample in (
        DeviceSample(t_ns=1, device="cuda:0", utilisation=0.04, memory_used_bytes=2**29, memory_total_bytes=150 * 10**9,
                     dram_utilisation=0.0, power_w=70, sm_clock_hz=345e6, temperature_c=31, throttle=()),
        DeviceSample(t_ns=2, device="cuda:0", utilisation=1.0, memory_used_bytes=140 * 10**9, memory_total_bytes=150 * 10**9,
                     dram_utilisation=1.0, power_w=1000, sm_clock_hz=1980e6, temperature_c=100, throttle=()),
    ):
        readings.show_fields(fields_of(snapshot(feed.hello(), feed.planned(), sample)))
        lefts.append([left for _, left, _ in places(readings)])
    assert lefts[0] == lefts[1]


def test_it_draws_and_speaks_in_both_themes(qtbot: QtBot) -> None:
    strip = DeviceStrip(Theme.load("dark"))
    qtbot.addWidget(strip)
    strip.resize(1024, 28)
    strip.update_from(snapshot(*feed.run(seconds=1), LOST))
    dark = strip.grab().toImage()
    strip.set_theme(Theme.load("light"))
    assert strip.grab().toImage() != dark
    assert strip.accessibleDescription() == strip.summary()
    assert "power cap" in strip.summary()
    assert strip.height() == 28


def test_the_pill_asks_for_now(qtbot: QtBot) -> None:
    strip = DeviceStrip(Theme.load("dark"))
    qtbot.addWidget(strip)
    strip.update_from(replace(snapshot(*feed.run(seconds=1)), live=False))
    with qtbot.waitSignal(strip.go_live):
        strip._pill.click()


def test_a_long_name_is_elided_before_a_reading_is_lost(qtbot: QtBot) -> None:
    long = Device(id="cpu", kind="cpu", name="A processor whose maker could not stop " * 4, sms=2)
    readings = Readings(Theme.load("dark"))
    qtbot.addWidget(readings)
    readings.resize(700, 28)
    readings.show_fields(fields_of(Snapshot(device=long)))
    spans = places(readings)
    assert len(spans) == 3
    assert spans[-1][2] <= 700
