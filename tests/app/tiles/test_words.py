"""No word of a scene is cut or lies on another, at any size it may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter
from pytestqt.qtbot import QtBot

from app.theme import Theme
from app.tiles import hbm_floor, labels, ledger, paint, scene, sram_room
from app.tiles.sram_room import capped
from app.tiles.theatre import Theatre
from kernels.contract import AttentionWorkload, Device
from tests.app.feed import CPU, H200, WORKLOAD, planned

SIZES = [(width, height) for width in (380, 440, 560, 700) for height in (240, 284, 300, 380, 420, 480)]
GROUPED = AttentionWorkload(batch=2, seq=65536, heads=32, kv_heads=8, head_dim=128)
DECODE = AttentionWorkload(batch=8, seq=1, seq_kv=8192, heads=32, kv_heads=8, head_dim=128)
SHORT = AttentionWorkload(batch=1, seq=100, seq_kv=130, heads=2, kv_heads=1, head_dim=64, causal=False)
ON_CPU = AttentionWorkload(batch=1, seq=512, heads=4, kv_heads=4, head_dim=64, dtype="float32")
BACKWARD = AttentionWorkload(batch=4, seq=2048, heads=16, kv_heads=4, head_dim=128, pass_="backward")


class Ink:
    """What was written since it was last cleared: text and where, and what was elided."""

    def __init__(self) -> None:
        self.written: list[tuple[str, QRectF]] = []
        self.cut: list[str] = []

    def words(self, painter: QPainter, area: QRectF, align: Qt.AlignmentFlag, colour: QColor, *texts: str) -> float:
        width = paint.words(painter, area, align, colour, *texts)
        metrics = QFontMetricsF(painter.font())
        text = next((text for text in texts if abs(metrics.horizontalAdvance(text) - width) < 0.01), None)
        if text is None:
            self.cut.append(texts[-1])
        elif text:
            self.note(text, area, align, width)
        return width

    def lines(self, painter: QPainter, area: QRectF, colour: QColor, texts: tuple[str, ...], pitch: float) -> bool:
        done = paint.lines(painter, area, colour, texts, pitch)
        if done:
            width = max(QFontMetricsF(painter.font()).horizontalAdvance(text) for text in texts)
            self.note(" ".join(texts), area, Qt.AlignmentFlag.AlignCenter, width, len(texts) * pitch)
        return done

    def note(self, text: str, area: QRectF, align: Qt.AlignmentFlag, width: float, height: float = 11.0) -> None:
        left = area.left()
        if align & Qt.AlignmentFlag.AlignRight:
            left = area.right() - width
        elif align & Qt.AlignmentFlag.AlignHCenter:
            left = area.center().x() - width / 2
        self.written.append((text, QRectF(left, area.center().y() - height / 2, width, height)))

    def overlaps(self) -> list[str]:
        found: list[str] = []
        for i, (text, box) in enumerate(self.written):
            found += [f"{text} / {other}" for other, its in self.written[i + 1:] if box.intersects(its)]
        return found


@pytest.fixture
def ink(monkeypatch: pytest.MonkeyPatch) -> Ink:
    recorded = Ink()
    for module in (hbm_floor, labels, ledger, scene, sram_room):
        for name in ("words", "lines"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(recorded, name))
    return recorded


@pytest.mark.parametrize(("workload", "device"), [
    (WORKLOAD, H200), (GROUPED, H200), (DECODE, H200), (SHORT, H200), (ON_CPU, CPU),
], ids=["training", "grouped", "decode", "short", "cpu"])
def test_words_have_room(qtbot: QtBot, ink: Ink, workload: AttentionWorkload, device: Device) -> None:
    assert not faults_of(qtbot, ink, ("naive", "flash"), workload, device)


def test_words_of_a_backward_pass_lie_apart(qtbot: QtBot, ink: Ink) -> None:
    """Its thirteen slots have no room for all their words on a narrow stage: those are cut."""
    faults = faults_of(qtbot, ink, ("flash", "flash_hopper"), BACKWARD, H200)
    assert {what for _, _, what, _ in faults} <= {"cut"}
    assert not [fault for fault in faults if fault[0][0] >= 560 and fault[3] in ("dS", "dS0", "dS1", "dP")]


def faults_of(
    qtbot: QtBot, ink: Ink, kernels: tuple[str, ...], workload: AttentionWorkload, device: Device
) -> list[tuple[tuple[int, int], float, str, str]]:
    """Words that are cut, outside of the scene or on others, at every size and some places."""
    made = Theatre(Theme.load("dark"))
    qtbot.addWidget(made)
    made.show_plans(list(planned(kernels, workload, device).plans), device, workload)
    faults = []
    for place in (0.0, 0.1, 0.55, 0.95, 1.0):
        made.seek(place)
        if place:
            made.choose_program(10**9)
            made.step(7)
        for one in made.scenes:
            for size in SIZES:
                one.resize(*size)
                ink.written, ink.cut = [], []
                one.grab()
                inside = QRectF(one.rect())
                faults += [(size, place, "cut", text) for text in ink.cut]
                faults += [(size, place, "outside", text) for text, box in ink.written if not inside.contains(box)]
                faults += [(size, place, "overlap", pair) for pair in ink.overlaps()]
                assert len(ink.written) > 20
    return faults


@given(st.lists(st.floats(1, 200), min_size=1, max_size=20), st.floats(1, 2000))
def test_widths_are_cut_to_the_room_and_the_short_stay_whole(widths: list[float], room: float) -> None:
    cut = capped(widths, room)
    assert sum(cut) <= room * 1.0001 or cut == widths
    assert all(new <= old for new, old in zip(cut, widths, strict=True))
    shortened = [new for new, old in zip(cut, widths, strict=True) if new < old]
    assert all(new == max(cut) for new in shortened)
    if sum(widths) > room:
        assert sum(cut) == pytest.approx(room)
