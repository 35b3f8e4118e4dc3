"""What the forms of all labs share: they scroll; beneath stand what the choice costs and the button that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace
from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from app import format as fmt
from app.panels.fields import IntControl
from app.panels.what_if import WhatIfControls
from app.store import Snapshot
from app.theme import Theme
from app.what_if import AT, simulated, what_if
from engine.protocol import Device, Field, Hello

WIDTH_PX = 268
Control = IntControl | QComboBox | QCheckBox


class Form(QWidget):
    """`edited` carries a number that all edits of one drag share, and 0 for any other edit."""

    edited = Signal(int)
    run_pressed = Signal()

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._hello: Hello | None = None
        self._drags = 0
        self.devices, self.what_if = QComboBox(), WhatIfControls(theme)
        self.fields: dict[str, Control] = {}
        self.peak, self.run = QLabel(""), QPushButton("Run")
        self.peak.setProperty("role", "muted")
        self.peak.setWordWrap(True)
        self.run.setProperty("primary", True)
        self.run.setEnabled(False)
        self.run.clicked.connect(self.run_pressed)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(self._scroll, 1)
        rows.addWidget(column(self.peak, self.run, margins=(12, 8, 12, 12), spacing=8))
        self.show_rows(QLabel("Controls appear here once the engine answers."))
        self.setMinimumWidth(WIDTH_PX)
        self.setAccessibleName("Controls")

    def build(self, hello: Hello, choice: Any) -> None:
        """The form for what this engine has, set to a choice."""
        raise NotImplementedError

    @property
    def choice(self) -> Any:
        """What is chosen; None before the engine has answered."""
        raise NotImplementedError

    def show_choice(self, choice: Any) -> None:
        """Shows a choice without saying that it changed."""
        raise NotImplementedError

    def update_from(self, snapshot: Snapshot) -> None:
        """What the choice costs, what is refused, and where on a slider something stops fitting."""
        raise NotImplementedError

    def set_theme(self, theme: Theme) -> None:
        """Colours of swatches and marks."""
        self._theme = theme
        self.what_if.set_theme(theme)
        for control in self.fields.values():
            if isinstance(control, IntControl):
                control.set_theme(theme)

    # --- for the forms ---

    def show_rows(self, *rows: QWidget) -> None:
        """The rows of the form, from the top."""
        rest = QWidget()
        rest.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.MinimumExpanding)
        self._scroll.setWidget(column(*rows, rest, margins=(12, 8, 12, 0), spacing=8))

    def show_state(self, snapshot: Snapshot, peak_bytes: int | None, memory_bytes: int | None) -> None:
        """Whether it runs, and what it is predicted to need."""
        known, choice = snapshot.device, self.choice
        if self.what_if.base is None and known is not None and choice is not None and known.id == what_if(choice.device).base:
            self.what_if.show_device(choice.device, known)  # one in a file, of which the engine has told
        running = snapshot.phase is not None and snapshot.phase.name not in ("idle", "paused")
        self.run.setText("Stop" if running else "Run")
        if peak_bytes is not None and memory_bytes:
            needed, whole = fmt.bytes_iec(peak_bytes), fmt.bytes_iec(memory_bytes)
            self.peak.setText(f"predicted peak {needed} of {whole} free")

    def device_row(self, devices: Sequence[Device], activated: Callable[[int], None]) -> QWidget:
        """The choice of a device, and what differs of a simulated one."""
        self.devices, self.what_if = box("Device"), WhatIfControls(self._theme)
        for device in (device for device in devices if AT not in device.id):
            self.devices.addItem(device.name if device.kind == "sim" else f"{device.name} ({device.id})", device.id)
        self.devices.activated.connect(activated)
        self.what_if.changed.connect(self._what_if_changed)
        self.what_if.drag_began.connect(self._drag_began)
        return column(self.devices, self.what_if)

    def show_device(self, device: str) -> None:
        """Shows the device of a choice."""
        base = what_if(device).base if simulated(device) else device
        if self.devices.findData(base) < 0:    # one in a file
            self.devices.addItem(base, base)
        self.devices.setCurrentIndex(self.devices.findData(base))
        known = next((one for one in self._hello.devices if one.id == base), None) if self._hello else None
        self.what_if.show_device(device, known)

    def control(self, field: Field, changed: Callable[[Any], None]) -> Control:
        """The control of a field; `changed` takes its new value, and finds which field it is by `sender()`."""
        made: Control
        if field.kind == "int":
            made = IntControl(field, self._theme)
            made.changed.connect(changed)
            made.slider.sliderPressed.connect(self._drag_began)
        elif field.kind == "choice":
            made = box(field.title)
            made.addItems(list(field.choices))
            made.currentTextChanged.connect(changed)
        else:
            made = QCheckBox()
            made.toggled.connect(changed)
        made.setProperty("field", field.name)
        made.setAccessibleName(field.title)
        if field.kind != "int":
            made.setToolTip(field.help)
        return made

    def drag(self) -> int:
        """The number of the drag that the sender is in; 0 where it is in none."""
        sender = self.sender()
        return self._drags if isinstance(sender, IntControl) and sender.dragging else 0

    @Slot(str)
    def _what_if_changed(self, device: str) -> None:
        self.show_choice(replace(self.choice, device=device))
        self.edited.emit(self._drags if self.what_if.dragging else 0)

    @Slot()
    def _drag_began(self) -> None:
        self._drags += 1


def number_of(form: Form, name: str) -> IntControl:
    """The slider of a field. Raises: KeyError where there is none of that name."""
    control = form.fields[name]
    assert isinstance(control, IntControl)
    return control


def column(*rows: QWidget, margins: tuple[int, int, int, int] = (0, 0, 0, 0), spacing: int = 0) -> QWidget:
    """Widgets beneath each other."""
    group = QWidget()
    layout = QVBoxLayout(group)
    layout.setContentsMargins(*margins)
    layout.setSpacing(spacing)
    for row in rows:
        layout.addWidget(row)
    return group


def titled(text: str, *rows: QWidget) -> QWidget:
    """Widgets beneath a title."""
    title = QLabel(text)
    title.setProperty("role", "muted")
    return column(title, *rows, spacing=2)


def grid() -> tuple[QWidget, QGridLayout]:
    """Rows of a label and a control."""
    group = QWidget()
    rows = QGridLayout(group)
    rows.setContentsMargins(0, 0, 0, 0)
    rows.setVerticalSpacing(2)
    rows.setHorizontalSpacing(8)
    rows.setColumnStretch(1, 1)
    return group, rows


def labelled(rows: QGridLayout, title: str, control: QWidget) -> QLabel:
    """Another row of a grid; its label."""
    label = QLabel(title)
    label.setBuddy(control)
    rows.addWidget(label, rows.rowCount(), 0)
    rows.addWidget(control, rows.rowCount() - 1, 1)
    return label


def doubling(lo: int, hi: int) -> tuple[int, ...]:
    """Powers of two and halfway between them, from lo to hi."""
    found = {lo, hi} | {1 << k for k in range(hi.bit_length())} | {3 << k for k in range(hi.bit_length()) if k}
    return tuple(sorted(value for value in found if lo <= value <= hi))


def number(name: str, title: str, lo: int, hi: int, help: str, unit: str = "", steps: tuple[int, ...] = ()) -> Field:
    """A field of a whole number. `steps`: what its slider snaps to; left out, doubling."""
    return Field(name=name, title=title, kind="int", default=lo, lo=lo, hi=hi, unit=unit, help=help,
                 steps=steps or doubling(lo, hi))


def reason_label() -> QLabel:
    """Beneath a tick box, why it will not run: hidden until there is a reason."""
    reason = QLabel("")
    reason.setProperty("role", "warning")
    reason.setWordWrap(True)
    reason.setContentsMargins(24, 0, 0, 4)
    reason.hide()
    return reason


def show_reason(label: QLabel, reason: str) -> None:
    """Says it, or nothing."""
    if reason != label.text():
        label.setText(reason)
        label.setVisible(bool(reason))


def box(title: str) -> QComboBox:
    """A choice that may be narrow."""
    made = QComboBox()
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(6)
    made.setAccessibleName(title)
    return made


def show_value(control: Control, value: Any) -> None:
    """Shows a value without saying that it changed."""
    control.blockSignals(True)
    if isinstance(control, IntControl):
        control.show_value(value)
    elif isinstance(control, QComboBox):
        control.setCurrentText(value)
    else:
        control.setChecked(value)
    control.blockSignals(False)
