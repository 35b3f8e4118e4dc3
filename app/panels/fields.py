"""A number in a form: a slider that snaps to useful values, marked where something stops fitting, and a box for any other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from PySide6.QtCore import QPointF, Qt, Signal, Slot
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QSlider, QSpinBox, QStyle, QStyleOptionSlider, QWidget

from app import format as fmt
from app.theme import Theme
from engine.protocol import Field

BOX_PX = 60


class MarkedSlider(QSlider):
    """A slider over the places of some values, with a tick at each mark; all else of it is Qt's."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.theme = theme
        self.steps: list[int] = []
        self.marks: tuple[int, ...] = ()
        self.setMinimumWidth(40)
        self.setPageStep(1)

    def place(self, value: int) -> float | None:
        """Where a value lies between the steps; None beyond their ends."""
        if not self.steps or not self.steps[0] <= value < self.steps[-1]:
            return None
        at = bisect_right(self.steps, value) - 1
        return at + (value - self.steps[at]) / (self.steps[at + 1] - self.steps[at])

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        super().paintEvent(event)
        option = QStyleOptionSlider()
        self.initStyleOption(option)
        groove = self.style().subControlRect(
            QStyle.ComplexControl.CC_Slider, option, QStyle.SubControl.SC_SliderGroove, self)
        handle = self.style().pixelMetric(QStyle.PixelMetric.PM_SliderLength, option, self)
        painter = QPainter(self)
        painter.setPen(QPen(self.theme["waste"], 2))
        for mark in self.marks:
            place = self.place(mark)
            if place is not None and self.maximum():
                x = groove.left() + handle / 2 + (groove.width() - handle) * place / self.maximum()
                painter.drawLine(QPointF(x, self.height() / 2 - 7), QPointF(x, self.height() / 2 + 7))


class IntControl(QWidget):
    """`changed` carries the new value; `dragging` says that more of the same drag may follow."""

    changed = Signal(int)

    def __init__(self, field: Field, theme: Theme) -> None:
        super().__init__()
        self.field = field
        self.slider = MarkedSlider(theme)
        self.box = QSpinBox()
        self.box.setRange(field.lo or 0, field.hi or 1 << 30)
        self.box.setSpecialValueText(field.zero)
        self.box.setKeyboardTracking(False)
        self.box.setProperty("plain", True)  # without buttons: the slider stands beside it
        self.box.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.box.setFixedWidth(BOX_PX)
        for widget in (self.slider, self.box):
            widget.setAccessibleName(field.title)
        self.setFocusProxy(self.slider)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.slider, 1)
        row.addWidget(self.box)
        self.set_steps(field.steps)
        self.set_marks({})
        self.slider.valueChanged.connect(self._slid)
        self.box.valueChanged.connect(self._typed)

    @property
    def dragging(self) -> bool:
        """Whether the slider is held."""
        return self.slider.isSliderDown()

    def set_steps(self, steps: Sequence[int]) -> None:
        """The values that the slider snaps to."""
        self.slider.steps = list(steps)
        self.slider.blockSignals(True)
        self.slider.setRange(0, len(steps) - 1)
        self.slider.blockSignals(False)
        self.show_value(self.box.value())

    def set_marks(self, marks: dict[str, int]) -> None:
        """Where something stops fitting: what -> the largest value that fits."""
        unit = f" {self.field.unit}" if self.field.unit else ""
        lines = [f"{self.field.title}: {self.field.help}" if self.field.help else self.field.title]
        lines += [f"{what} fits up to {fmt.count(value)}{unit}" for what, value in marks.items()]
        self.slider.marks = tuple(marks.values())
        self.slider.update()
        for widget in (self.slider, self.box):
            widget.setToolTip("\n".join(lines))

    def set_theme(self, theme: Theme) -> None:
        """The colour of the marks."""
        self.slider.theme = theme
        self.slider.update()

    def show_value(self, value: int) -> None:
        """Shows a value without saying that it changed."""
        steps = self.slider.steps
        nearest = min(range(len(steps)), key=lambda i: abs(steps[i] - value))
        self.slider.blockSignals(True)
        self.slider.setValue(nearest)
        self.slider.blockSignals(False)
        self.box.blockSignals(True)
        self.box.setValue(value)
        self.box.blockSignals(False)

    @Slot(int)
    def _slid(self, place: int) -> None:
        self.show_value(self.slider.steps[place])
        self.changed.emit(self.slider.steps[place])

    @Slot(int)
    def _typed(self, value: int) -> None:
        self.show_value(value)
        self.changed.emit(value)
