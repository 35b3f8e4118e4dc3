"""The bar beneath the scenes: to the start, back, play, on, to the end; the scrubber; speed, program and wave."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QSize, Qt, Signal, Slot
from PySide6.QtGui import QMouseEvent, QPainter, QPaintEvent, QPolygonF, QResizeEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSlider, QSpinBox, QStyle, QToolButton, QWidget

from app import format as fmt
from app.theme import Theme
from app.tiles.playback import DEFAULT_SPEED, SPEEDS, TOGETHER

STEPS = 10_000      # of the scrubber
NARROW, TIGHT, LEAST = 1000, 670, 560    # narrow: the waves stand in the scenes alone; tight: no buttons for the ends
ABOUT_SPEED = (f"Up to {TOGETHER} steps a second tiles travel and the kernels step together.\n"
               "Faster, both run in scheduled time: the fast one is done first and waits.")
# Shapes in a square of 12: triangles as points, bars as (left, width).
SHAPES: dict[str, tuple[tuple[tuple[tuple[float, float], ...], ...], tuple[tuple[float, float], ...]]] = {
    "start": ((((11, 1), (11, 11), (4, 6)),), ((1, 2),)),
    "back": ((((9, 1), (9, 11), (2, 6)),), ()),
    "play": ((((2, 0), (2, 12), (11, 6)),), ()),
    "pause": ((), ((2, 3), (7, 3))),
    "on": ((((3, 1), (3, 11), (10, 6)),), ()),
    "end": ((((1, 1), (1, 11), (8, 6)),), ((9, 2),)),
}


def wave_text(wave: int, waves: int) -> str:
    """Which wave, from 0, of how many."""
    return f"wave {fmt.count(wave + 1)} of {fmt.count(waves)}"


class Button(QToolButton):
    """A tool button with one of the shapes, crisp at any scale."""

    def __init__(self, shape: str, name: str, theme: Theme) -> None:
        super().__init__()
        self.theme = theme
        self._shape = ""
        self.setFixedSize(QSize(26, 24))
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.show_shape(shape, name)

    def show_shape(self, shape: str, name: str) -> None:
        """Another shape, and what it does."""
        if shape != self._shape:
            self._shape = shape
            self.setAccessibleName(name.partition(" (")[0])
            self.setToolTip(name)
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        super().paintEvent(event)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self.theme["text" if self.isEnabled() else "disabled"])
        painter.translate((self.width() - 12) / 2, (self.height() - 12) / 2)
        triangles, bars = SHAPES[self._shape]
        for points in triangles:
            painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in points]))
        for left, width in bars:
            painter.drawRect(int(left), 1, int(width), 10)


class Scrubber(QSlider):
    """A press on the groove goes there, and a drag goes on from there."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if event.button() is Qt.MouseButton.LeftButton:
            handle = self.style().pixelMetric(QStyle.PixelMetric.PM_SliderLength, None, self)
            at, room = round(event.position().x() - handle / 2), self.width() - handle
            self.setValue(QStyle.sliderValueFromPosition(self.minimum(), self.maximum(), at, room))
        super().mousePressEvent(event)


class ProgramBox(QSpinBox):
    """`program 17 of 8 192`, from 1; narrow, without how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.setKeyboardTracking(False)
        self.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.setRange(1, 1)

    def set_room(self, width: int, most: int) -> None:
        """The words that a bar of that width has room for; its own width does not change with the range up to `most`."""
        self.setPrefix("program " if width >= TIGHT else "")
        self.setSuffix(f" of {fmt.count(self.maximum())}" if width >= NARROW else "")
        widest = f"{self.prefix()}{fmt.count(most)}" + (f" of {fmt.count(most)}" if width >= NARROW else "")
        self.setFixedWidth(self.lineEdit().fontMetrics().horizontalAdvance(widest) + 44)

    def textFromValue(self, value: int) -> str:  # noqa: N802
        return fmt.count(value)

    def valueFromText(self, text: str) -> int:  # noqa: N802
        digits = "".join(character for character in text.removesuffix(self.suffix()) if character.isdigit())
        return int(digits or 1)


class Transport(QWidget):
    """Says what is asked for; shows what it is told. Nothing in it moves as numbers change.

    Args:
        speeds, default: in steps a second. about: what is said of them.
        programs: whether one of many programs is followed.
    """

    stepped = Signal(int)
    sought = Signal(float)
    play_pressed = Signal()
    speed_picked = Signal(float)
    program_picked = Signal(int)    # from 0

    def __init__(
        self, theme: Theme, speeds: Sequence[int] = SPEEDS, default: int = DEFAULT_SPEED, *, programs: bool = True,
        about: str = ABOUT_SPEED,
    ) -> None:
        super().__init__()
        self._speeds, self._programs = tuple(speeds), programs
        self.start, self.back = Button("start", "To the start (Home)", theme), Button("back", "Step back (,)", theme)
        self.play = Button("play", "Play", theme)
        self.on, self.end = Button("on", "Step (.)", theme), Button("end", "To the end (End)", theme)
        self.buttons = (self.start, self.back, self.play, self.on, self.end)
        self.slider, self.speed, self.program = Scrubber(), QComboBox(), ProgramBox()
        self.time, self.wave = QLabel(""), QLabel("")
        self._most_programs = 1
        self._lay_out(default, about)
        self._wire()
        self.set_theme(theme)

    def set_theme(self, theme: Theme) -> None:
        """Colours of the shapes, type of the readings."""
        for button in self.buttons:
            button.theme = theme
            button.update()

    def reserve(self, time: str, programs: int, waves: int) -> None:
        """Keeps room for the widest readings of these plans."""
        self._most_programs = programs
        self.time.setFixedWidth(self.time.fontMetrics().horizontalAdvance(time) + 4)
        self.wave.setFixedWidth(self.wave.fontMetrics().horizontalAdvance(wave_text(waves - 1, waves)) + 4)
        self.program.set_room(self.width(), programs)

    def show_time(self, fraction: float, text: str) -> None:
        """Where the clock stands."""
        self.slider.blockSignals(True)
        if not self.slider.isSliderDown():
            self.slider.setValue(round(fraction * STEPS))
        self.slider.blockSignals(False)
        self.time.setText(text)

    def show_program(self, kernel: str, program: int, programs: int, wave: str) -> None:
        """Which program of the chosen kernel is followed, from 0."""
        self.program.blockSignals(True)
        self.program.setRange(1, programs)
        self.program.set_room(self.width(), self._most_programs)
        self.program.setValue(program + 1)
        self.program.setAccessibleName(f"Program of {kernel} that is followed")
        self.program.setToolTip(f"The program of {kernel} that is followed")
        self.program.blockSignals(False)
        self.wave.setText(wave)

    def show_playing(self, playing: bool) -> None:
        """Play or pause."""
        self.play.show_shape("pause", "Pause") if playing else self.play.show_shape("play", "Play")

    def show_speed(self, speed: float) -> None:
        """The nearest of the choices."""
        nearest = min(range(len(self._speeds)), key=lambda i: abs(self._speeds[i] - speed))
        self.speed.blockSignals(True)
        self.speed.setCurrentIndex(nearest)
        self.speed.blockSignals(False)

    def _lay_out(self, default: int, about: str) -> None:
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 4, 0)
        row.setSpacing(2)
        for button in self.buttons:
            row.addWidget(button)
        row.addSpacing(6)
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(STEPS // 20)
        self.slider.setSingleStep(STEPS // 200)
        self.slider.setMinimumWidth(40)
        self.slider.setAccessibleName("Scheduled time")
        row.addWidget(self.slider, 1)
        row.addSpacing(6)
        self.time.setAccessibleName("Scheduled time")
        row.addWidget(self.time)
        row.addSpacing(6)
        for speed in self._speeds:
            self.speed.addItem(f"{fmt.count(speed)} step{'' if speed == 1 else 's'}/s", speed)
        self.speed.setFixedWidth(116)
        self.speed.setAccessibleName("Speed")
        self.speed.setToolTip(about)
        row.addWidget(self.speed)
        row.addSpacing(6)
        row.addWidget(self.program)
        row.addSpacing(6)
        self.wave.setProperty("role", "muted")
        row.addWidget(self.wave)
        self.show_speed(default)
        self.program.setVisible(self._programs)
        self.wave.setVisible(self._programs)

    def _wire(self) -> None:
        self.start.clicked.connect(self._to_start)
        self.back.clicked.connect(self._step_back)
        self.play.clicked.connect(self.play_pressed)
        self.on.clicked.connect(self._step_on)
        self.end.clicked.connect(self._to_end)
        self.slider.valueChanged.connect(self._slid)
        self.speed.currentIndexChanged.connect(self._speed_changed)
        self.program.valueChanged.connect(self._program_changed)

    @Slot()
    def _to_start(self) -> None:
        self.sought.emit(0.0)

    @Slot()
    def _to_end(self) -> None:
        self.sought.emit(1.0)

    @Slot()
    def _step_back(self) -> None:
        self.stepped.emit(-1)

    @Slot()
    def _step_on(self) -> None:
        self.stepped.emit(1)

    @Slot(int)
    def _slid(self, value: int) -> None:
        self.sought.emit(value / STEPS)

    @Slot(int)
    def _speed_changed(self, index: int) -> None:
        self.speed_picked.emit(float(self._speeds[index]))

    @Slot(int)
    def _program_changed(self, value: int) -> None:
        self.program_picked.emit(value - 1)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: ARG002, N802
        self.wave.setVisible(self._programs and self.width() >= NARROW)
        self.start.setVisible(self.width() >= TIGHT)
        self.end.setVisible(self.width() >= TIGHT)
        self.program.set_room(self.width(), self._most_programs)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        return QSize(LEAST, super().minimumSizeHint().height())
