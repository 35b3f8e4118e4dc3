"""Plots to operate: built, sized and fed, with every word that they write and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from msgspec.structs import replace as changed
from PySide6.QtCore import QPoint, QPointF, QRectF, Qt
from PySide6.QtGui import QPainter, QPixmap
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.plots import Plot, PlotView, plots
from app.plots.curves import CurveChart
from app.plots.rows import RowChart
from app.plots.strip import StripView
from app.plots.words import Word
from app.store import Snapshot, Store
from app.theme import Theme
from engine.protocol import Checked, DeviceSample, Event, KernelSample, MemorySample, Predicted, Refused
from kernels.contract import AttentionWorkload
from tests.app import feed

DARK, LIGHT = Theme.load("dark"), Theme.load("light")
SIX = ("naive", "flash", "sdpa_cudnn", "sdpa_efficient", "sdpa_flash", "sdpa_math")
GQA = AttentionWorkload(batch=1, seq=8192, heads=32, kv_heads=8, head_dim=128)
MQA = AttentionWorkload(batch=128, seq=65536, heads=64, kv_heads=1, head_dim=256)
HUGE = AttentionWorkload(batch=4096, seq=1 << 20, heads=1024, kv_heads=1024, head_dim=256)
TINY = AttentionWorkload(batch=1, seq=1, heads=1, kv_heads=1, head_dim=8, dtype="float32")
# What the window gives them: in its grid and as tabs at 1440x900, 1024x700, 1920x1080 and 900x600, and in full view.
GRID = [(264, 132), (408, 164)]
TABS = [(350, 241), (542, 306), (726, 113), (602, 113)]
FULL = [(896, 796), (1376, 976)]


@lru_cache
def known() -> dict[str, Plot]:
    """Every plot of kernels by its id."""
    return {name: plot for name, plot in plots().items() if not {"decode", "batch"} & set(plot.needs)}


@lru_cache
def known_of_decoding() -> dict[str, Plot]:
    """Every plot of a decoding by its id."""
    return {name: plot for name, plot in plots().items() if "decode" in plot.needs}


@lru_cache
def known_of_batching() -> dict[str, Plot]:
    """Every plot of a batching by its id."""
    return {name: plot for name, plot in plots().items() if "batch" in plot.needs}


def snapshot(*events: Event) -> Snapshot:
    """What a store makes of some events."""
    store = Store()
    for event in events:
        store.reduce(event)
    return store.snapshot()


def one_sample() -> list[Event]:
    return [feed.hello(), feed.planned(), feed.sample("flash", 1.0, 2e6), feed.device_sample(1.0)]


def reading_without(**missing: None) -> DeviceSample:
    """A reading of the device without some of its fields."""
    return changed(feed.device_sample(3.6), missing=dict.fromkeys(missing, "not offered"), **missing)


def check_failed() -> list[Event]:
    bad = Checked(generation=1, kernel="flash", ok=False, max_error=0.5, tolerance=2e-2, rows=64)
    return [*feed.run(seconds=2), bad]


def refused() -> list[Event]:
    return [
        feed.hello(), feed.planned(SIX, refused={"naive": "naive needs 300 GiB and 140 GiB are there."}),
        Refused(generation=1, kernel="sdpa_cudnn", reason="cuDNN is not here."), feed.sample("flash", 1.0, 2.3e6),
    ]


def too_large() -> list[Event]:
    workload = AttentionWorkload(batch=64, seq=65536)
    return [feed.hello(), feed.planned(SIX, workload), MemorySample(generation=1, owners={"Q K V O": 3 << 30})]


def foretold() -> list[Event]:
    """What is predicted before anything runs, of one kernel not at all."""
    return [feed.hello(), feed.planned(SIX), *(feed.predicted(kernel) for kernel in SIX[:-1]),
            Predicted(generation=1, kernel=SIX[-1], refused="its tiles do not fit.")]


def simulated() -> list[Event]:
    """A run on a simulated GPU takes what is predicted."""
    return [changed(event, time_ns=0.96 * feed.MEDIANS_NS[event.kernel], provenance="simulated")
            if isinstance(event, KernelSample) else event for event in feed.run(SIX, seconds=3)]


def new_generation() -> list[Event]:
    return [*feed.run(seconds=2), feed.planned(workload=GQA, generation=2, t_s=3.0)]


def extremes() -> list[Event]:
    return [
        feed.hello(), feed.planned(SIX), feed.sample("naive", 1.0, 3.2e14), feed.sample("flash", 1.1, 1.0),
        feed.sample("sdpa_math", 1.2, 1e3),
        changed(feed.device_sample(1.3), power_w=1e6, utilisation=0.0, dram_utilisation=1.0),
    ]


FEEDS: dict[str, Callable[[], list[Event]]] = {
    "nothing": list, "hello": lambda: [feed.hello()], "planned": lambda: [feed.hello(), feed.planned(SIX)],
    "one sample": one_sample, "two kernels": lambda: feed.run(seconds=8), "six kernels": lambda: feed.run(SIX, seconds=31),
    "gqa": lambda: feed.run(SIX, seconds=2, workload=GQA), "mqa": lambda: feed.run(seconds=2, workload=MQA),
    "huge": lambda: feed.run(seconds=2, workload=HUGE), "tiny": lambda: feed.run(seconds=2, workload=TINY),
    "cpu": lambda: feed.run(seconds=2, device=feed.CPU, slower=100), "check failed": check_failed, "refused": refused,
    "foretold": foretold, "simulated": simulated, "too large": too_large, "new generation": new_generation,
    "extremes": extremes,
    "unread": lambda: [*feed.run(seconds=2), reading_without(power_w=None, utilisation=None, dram_utilisation=None)],
}


@lru_cache
def fed(name: str) -> Snapshot:
    """The snapshot of a feed."""
    return snapshot(*FEEDS[name]())


def paused(shown: Snapshot) -> Snapshot:
    return replace(shown, live=False)


def view(qtbot: QtBot, plot: str, size: tuple[int, int] = (408, 164), theme: Theme = DARK) -> PlotView:
    """A plot on screen, in a window that leaves it any size."""
    window, made = QWidget(), plots()[plot].build(theme)
    qtbot.addWidget(window, before_close_func=lambda _: window.hide())  # which keeps it until then
    made.setParent(window)
    window.setStyleSheet(theme.stylesheet())
    window.resize(1400, 1000)
    made.resize(*size)
    window.show()
    return made


def show(made: PlotView, shown: Snapshot) -> None:
    """Feeds it, and has Qt lay out what follows from that."""
    made.update_from(shown)
    settle()


def settle() -> None:
    for _ in range(3):  # a label changes a width, that a layout, and that a graph
        QApplication.sendPostedEvents()


class Written(NamedTuple):
    """A text and the box of its glyphs, in the view's coordinates."""

    text: str
    ink: QRectF


def written(made: PlotView) -> list[Written]:
    """Everything that is written in a plot."""
    found = [Written(word.text, _moved(word.ink(), made.header.pos())) for word in made.header.words()]
    at = made.canvas.pos()
    if made.is_empty:
        return found
    if isinstance(made.canvas, RowChart | CurveChart):
        return found + [Written(word.text, _moved(word.ink(), at)) for word in made.canvas.words()]
    assert isinstance(made, StripView)
    found += [Written(word.text, _moved(word.ink(), at + made.labels.pos())) for word in made.labels.words()]
    return found + _of_axes(made)


def _moved(box: QRectF, by: QPoint) -> QRectF:
    return box.translated(QPointF(by))


def _of_axes(made: StripView) -> list[Written]:
    found, canvas = [], QPixmap(1, 1)
    for name in ("left", "bottom"):
        axis = made.graph.getAxis(name)
        painter = QPainter(canvas)
        _, _, texts = axis.generateDrawSpecs(painter)
        painter.end()
        for box, _, text in texts:
            area = QRectF(made.graph.mapFromScene(axis.mapRectToScene(box)).boundingRect())
            ink = Word(text, area, made.theme.sans(11), made.theme["muted"], Qt.AlignmentFlag.AlignCenter).ink()
            found.append(Written(text, _moved(ink, made.canvas.pos() + made.graph.pos())))
    return found


def faults(made: PlotView) -> list[str]:
    """What is cut, outside or on something else."""
    words, inside = written(made), QRectF(made.rect())
    found = [f"cut: {word.text}" for word in words if "…" in word.text]
    found += [f"outside: {word.text}" for word in words if not inside.contains(word.ink)]
    for i, (text, ink) in enumerate(words):
        found += [f"overlap: {text} / {other}" for other, its in words[i + 1:] if ink.intersects(its)]
    return found


def said(text: str) -> str:
    """With ordinary spaces."""
    return text.replace(fmt.SPACE, " ").replace(fmt.THIN, " ")
