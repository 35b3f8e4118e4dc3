"""The device in one line: what it is, how busy, how full, how hot; and whether what is on screen is now."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QFont, QFontMetricsF, QHelpEvent, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QToolButton, QToolTip, QWidget

from app import format as fmt
from app.series import FloatArray
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import Device, DeviceSample

HEIGHT, PAD, GAP, INNER, GRAPH = 28, 8.0, 12.0, 5.0, 44.0
SPARK = 44          # samples: a pixel each
PILL_PX = 104
SIMULATED = (4, 5)  # ranks of the readings that a simulated GPU has beside the first three: clock and DRAM
NAME_PX = 140       # what is left at least of a long name while other readings stand beside it
LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


@dataclass(frozen=True, eq=False, kw_only=True)
class Field:
    """One reading. `widest` is the widest value it may have, so that nothing moves when it changes.

    A `spark` (values of 0 to 1) or a `bar` (0 to 1) stands beside it. Fields of a higher `rank` give way first.
    """

    label: str
    value: str
    widest: str
    rank: int
    tip: str = ""
    spark: FloatArray | None = None
    bar: float | None = None
    warn: bool = False

    def width(self, theme: Theme, graphs: bool) -> float:
        """In pixels, with or without its graph."""
        label = QFontMetricsF(theme.sans()).horizontalAdvance(self.label) + INNER if self.label else 0.0
        graph = GRAPH + INNER if graphs and (self.spark is not None or self.bar is not None) else 0.0
        metrics = QFontMetricsF(self.font(theme))
        return label + max(metrics.horizontalAdvance(text) for text in (self.value, self.widest)) + graph

    def font(self, theme: Theme) -> QFont:
        """Of the value: the name in words, all else in tabular digits."""
        return theme.sans(semibold=True) if self.rank == 0 else theme.mono()


class DeviceStrip(QWidget):
    """`go_live` is what the pill asks for while the view is paused."""

    go_live = Signal()

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._readings = Readings(theme)
        self._drawn: tuple[object, ...] = ()
        self._pill = QToolButton()
        self._pill.setFixedWidth(PILL_PX)
        self._pill.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._pill.clicked.connect(self.go_live)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 4, 0)
        row.setSpacing(4)
        row.addWidget(self._readings, 1)
        row.addWidget(self._pill)
        self.setFixedHeight(HEIGHT)
        self.setAccessibleName("Device")
        self.update_from(Snapshot())

    def update_from(self, snapshot: Snapshot) -> None:
        """Shows the newest readings; does nothing where they are on screen already."""
        needed = (snapshot.telemetry, snapshot.device, snapshot.phase, snapshot.live)
        if self._drawn and all(new is old for new, old in zip(needed, self._drawn, strict=True)):
            return
        self._drawn = needed
        self._readings.show_fields(fields_of(snapshot))
        self._pill.setText(pill(snapshot))
        self._pill.setProperty("role", "live" if snapshot.live and self._pill.text().startswith("●") else "pill")
        self._pill.style().polish(self._pill)
        self._pill.setToolTip("Return to now" if not snapshot.live else "The view follows the newest sample")
        self.setAccessibleDescription(self.summary())

    def set_theme(self, theme: Theme) -> None:
        """Draws the same in another theme."""
        self._readings.set_theme(theme)

    def summary(self) -> str:
        """All readings in one sentence."""
        readings = (f"{field.label} {field.value}".strip() for field in self._readings.fields)
        return f"{', '.join((*readings, self._pill.text()))}."


class Readings(QWidget):
    """The fields, painted: labels muted, values in tabular digits, at places that depend on the width alone."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self.fields: list[Field] = []
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(HEIGHT)

    def show_fields(self, fields: list[Field]) -> None:
        """Draws `fields`, the first of which is the name."""
        self.fields = fields
        self.update()

    def set_theme(self, theme: Theme) -> None:
        """Draws the same in another theme."""
        self._theme = theme
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(600, HEIGHT)

    def places(self) -> tuple[list[tuple[Field, QRectF]], bool]:
        """The fields that have room, where they stand, and whether their graphs do too.

        Graphs give way first, then the end of a long name, then whole readings.
        """
        kept = sorted(self.fields, key=lambda field: field.rank)
        graphs = self._room_for_name(kept, True) >= kept[0].width(self._theme, True) if kept else True
        while len(kept) > 1 and self._room_for_name(kept, graphs) < min(NAME_PX, kept[0].width(self._theme, graphs)):
            kept.pop()
        left, places = PAD, []
        for field in (field for field in self.fields if field in kept):
            width = field.width(self._theme, graphs)
            if field is kept[0]:
                width = min(width, max(0.0, self._room_for_name(kept, graphs)))
            places.append((field, QRectF(left, 0, width, HEIGHT)))
            left += width + 2 * GAP
        return places, graphs

    def _room_for_name(self, fields: list[Field], graphs: bool) -> float:
        """What `fields` leave of the width to the first of them."""
        others = sum(field.width(self._theme, graphs) + 2 * GAP for field in fields[1:])
        return self.width() - 2 * PAD - others

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter = QPainter(self)
        places, graphs = self.places()
        for i, (field, area) in enumerate(places):
            if i:
                painter.fillRect(QRectF(area.left() - GAP, 7, 1, HEIGHT - 14), self._theme["border"])
            self._paint_field(painter, field, QRectF(area), graphs)

    def _paint_field(self, painter: QPainter, field: Field, area: QRectF, graphs: bool) -> None:
        if field.label:
            painter.setFont(self._theme.sans())
            painter.setPen(self._theme["muted"])
            painter.drawText(area, LEFT, field.label)
            area.setLeft(area.left() + QFontMetricsF(painter.font()).horizontalAdvance(field.label) + INNER)
        if graphs and (field.spark is not None or field.bar is not None):
            graph = QRectF(area.right() - GRAPH, 8, GRAPH, HEIGHT - 16)
            area.setRight(graph.left() - INNER)
            self._paint_graph(painter, field, graph)
        painter.setFont(field.font(self._theme))
        painter.setPen(self._theme["warning" if field.warn else "muted" if field.value == fmt.NA else "text"])
        text = QFontMetricsF(painter.font()).elidedText(field.value, Qt.TextElideMode.ElideRight, area.width() + 1)
        painter.drawText(area, LEFT if field.value == fmt.NA or not field.label else RIGHT, text)

    def _paint_graph(self, painter: QPainter, field: Field, area: QRectF) -> None:
        if field.bar is not None:
            painter.fillRect(area, self._theme["hover"])
            filled = QRectF(area.left(), area.top(), round(area.width() * field.bar), area.height())
            painter.fillRect(filled, self._theme["edge"])
        if field.spark is not None and len(field.spark):
            first = area.right() - len(field.spark) + 1
            points = [QPointF(first + i, area.bottom() - area.height() * value) for i, value in enumerate(field.spark)]
            painter.fillRect(QRectF(area.left(), area.bottom(), area.width(), 1), self._theme["border"])
            painter.setPen(QPen(self._theme["accent"], 1))
            painter.drawPolyline(QPolygonF(points))

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            at = QPointF(event.pos())
            tip = next((field.tip for field, area in self.places()[0] if area.contains(at)), "")
            QToolTip.showText(event.globalPos(), tip, self)
            return True
        return super().event(event)


def fields_of(snapshot: Snapshot) -> list[Field]:
    """The readings of the device, GPU or CPU; what it does not offer is n/a, with the reason as its tip."""
    device, last = snapshot.device, snapshot.telemetry.last
    if device is None:
        return [Field(label="", value="looking for devices…", widest="", rank=0)]
    last = last or DeviceSample(device=device.id, missing=dict.fromkeys(DeviceSample.__struct_fields__, "not read yet"))
    fields = [_name(device), _busy(snapshot, device, last), _memory(device, last)]
    return fields if device.kind == "cpu" else [*fields, *_gpu(last, device.kind == "sim")]


def _name(device: Device) -> Field:
    unit = "cores" if device.kind == "cpu" else "SMs"
    count = f" · {fmt.count(device.sms)} {unit}" if device.sms is not None else ""
    kind = " · CPU" if device.kind == "cpu" else ""  # the name of a simulated one says so
    driver = f", driver {device.driver}" if device.driver else ""
    value = f"{device.name}{kind}{count}"
    return Field(label="", value=value, widest="", rank=0, tip=f"{device.id}: {device.name}{driver}")


def _busy(snapshot: Snapshot, device: Device, last: DeviceSample) -> Field:
    share = snapshot.telemetry.utilisation[-SPARK:]
    label = "load" if device.kind == "cpu" else "busy"
    tip = "share of time in which a core worked" if device.kind == "cpu" else "share of time in which a kernel ran"
    return Field(
        label=label, value=fmt.percent(last.utilisation), widest=f"100{fmt.SPACE}%", rank=1,
        tip=_tip(last, "utilisation", tip), spark=share[share == share].clip(0.0, 1.0),  # equal to itself: not missing
    )


def _memory(device: Device, last: DeviceSample) -> Field:
    used, total = last.memory_used_bytes, last.memory_total_bytes or device.memory_bytes
    known = used is not None and total
    value = f"{fmt.gib(used)} of {fmt.gib(total)}{fmt.SPACE}GiB" if known else fmt.NA
    return Field(
        label=device.memory_name, value=value, widest=f"0.000 of {fmt.gib(total)}{fmt.SPACE}GiB", rank=2,
        tip=_tip(last, "memory_used_bytes", f"{fmt.exact(used)} of {fmt.exact(total)} B in use on the device"),
        bar=min(1.0, used / total) if used is not None and total else None,
    )


def _gpu(last: DeviceSample, simulated: bool) -> list[Field]:
    """What only a GPU reports; of a simulated one, what is simulated."""
    limit = f" of {fmt.power_w(last.power_limit_w)}" if last.power_limit_w is not None else ""
    reasons = last.throttle
    text = fmt.NA if reasons is None else ", ".join(reasons) if reasons else "no throttling"
    fields = [
        Field(label="DRAM", value=fmt.percent(last.dram_utilisation), widest=f"100{fmt.SPACE}%", rank=5,
              tip=_tip(last, "dram_utilisation", "share of peak memory bandwidth")),
        Field(label="", value=fmt.power_w(last.power_w), widest=f"0{fmt.THIN}000{fmt.SPACE}W", rank=3,
              tip=_tip(last, "power_w", f"{fmt.power_w(last.power_w)}{limit}")),
        Field(label="", value=fmt.clock_hz(last.sm_clock_hz), widest=f"0{fmt.THIN}000{fmt.SPACE}MHz", rank=4,
              tip=_tip(last, "sm_clock_hz", f"SM clock; memory clock {fmt.clock_hz(last.memory_clock_hz)}")),
        Field(label="", value=fmt.temperature_c(last.temperature_c), widest=f"100{fmt.SPACE}°C", rank=7,
              tip=_tip(last, "temperature_c", "GPU temperature")),
        Field(label="", value=text if not reasons else f"⚠ {text}", widest="no throttling", rank=6,
              tip=_tip(last, "throttle", f"why clocks are held back: {text}"), warn=bool(reasons)),
    ]
    return [field for field in fields if field.rank in SIMULATED] if simulated else fields


def _tip(last: DeviceSample, name: str, text: str) -> str:
    """`text` and its source; where the reading is missing, why."""
    if getattr(last, name) is not None:
        return f"{text} ({last.source})"
    return f"n/a: {last.missing.get(name, 'this device does not report it')}"


def pill(snapshot: Snapshot) -> str:
    """Whether the view follows the newest data, and whether there is any."""
    if not snapshot.live:
        return "○ view paused"
    phase = snapshot.phase.name if snapshot.phase else "idle"
    return "● live" if phase == "measuring" else f"○ {phase}"
