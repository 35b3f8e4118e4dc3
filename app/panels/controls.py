"""The controls of a lab, made from what the engine says: devices, kernels and the workload's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from app import format
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import Device, Field, Hello, Preset

SHARED = ("MHA", "GQA", "MQA")


class IntControl(QWidget):
    """A slider that snaps to useful values, and a box for any other."""

    changed = Signal(int)

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field, self.steps = field, list(field.steps)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setMinimumWidth(40)
        self.box = QSpinBox()
        self.box.setRange(field.lo or 0, field.hi or 1 << 30)
        self.box.setKeyboardTracking(False)
        self.box.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)
        self.box.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.box.setFixedWidth(60)
        unit = f" ({field.unit})" if field.unit else ""
        for widget in (self.slider, self.box):
            widget.setToolTip(f"{field.title}{unit}: {field.help}" if field.help else f"{field.title}{unit}")
            widget.setAccessibleName(field.title)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.slider, 1)
        row.addWidget(self.box)
        self.set_steps(self.steps)
        self.slider.valueChanged.connect(self._slid)
        self.box.valueChanged.connect(self._typed)

    def set_steps(self, steps: Sequence[int]) -> None:
        """The values that the slider snaps to."""
        self.steps = list(steps)
        self.slider.blockSignals(True)
        self.slider.setRange(0, len(self.steps) - 1)
        self.slider.setPageStep(1)
        self.slider.blockSignals(False)
        self.show_value(self.box.value())

    def show_value(self, value: int) -> None:
        """Shows a value without saying that it changed."""
        nearest = min(range(len(self.steps)), key=lambda i: abs(self.steps[i] - value))
        for widget, shown in ((self.slider, nearest), (self.box, value)):
            widget.blockSignals(True)
            widget.setValue(shown)
            widget.blockSignals(False)

    @Slot(int)
    def _slid(self, place: int) -> None:
        self.show_value(self.steps[place])
        self.changed.emit(self.steps[place])

    @Slot(int)
    def _typed(self, value: int) -> None:
        self.show_value(value)
        self.changed.emit(value)


class Controls(QScrollArea):
    """Everything that can be chosen. `edited` says that something was; `chosen()` says what."""

    edited = Signal()
    device_picked = Signal(str)
    run_pressed = Signal()

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._hello: Hello | None = None
        self.values: dict[str, Any] = {}
        self.devices, self.presets = QComboBox(), QComboBox()
        self.kernels: dict[str, QCheckBox] = {}
        self.fields: dict[str, IntControl | QComboBox | QCheckBox] = {}
        self.sharing: dict[str, QPushButton] = {}
        self.peak = QLabel("")
        self.run = QPushButton("Run")
        self._body = QWidget()
        self._column = QVBoxLayout(self._body)
        self._column.setContentsMargins(12, 8, 12, 12)
        self._column.setSpacing(4)
        self._column.addWidget(QLabel("Controls appear when the engine answers."))
        self._column.addStretch()
        self.setWidget(self._body)
        self.setWidgetResizable(True)
        self._body.setMinimumWidth(0)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFixedWidth(264)
        self.setAccessibleName("Controls")

    def build(self, hello: Hello, device: str, values: dict[str, Any], kernels: Sequence[str]) -> None:
        """The form for what this engine has."""
        self._hello, self.values = hello, dict(values)
        while item := self._column.takeAt(0):
            if widget := item.widget():
                widget.deleteLater()
        self._add_devices(hello.devices, device)
        self._add_kernels(hello, kernels)
        self._add_presets(hello.presets)
        self._add_fields(hello.fields)
        self._column.addSpacing(8)
        self.peak.setProperty("role", "muted")
        self.peak.setWordWrap(True)
        self._column.addWidget(self.peak)
        self.run.setProperty("primary", True)
        self.run.setShortcut("Ctrl+R")
        self.run.clicked.connect(self.run_pressed)
        self._column.addWidget(self.run)
        self._column.addStretch()
        self.show_values(self.values)

    def chosen_kernels(self) -> tuple[str, ...]:
        """The ticked kernels, in the catalog's order."""
        return tuple(name for name, box in self.kernels.items() if box.isChecked())

    def show_values(self, values: dict[str, Any]) -> None:
        """Shows a workload without saying that it changed."""
        self.values = dict(values)
        divisors = [n for n in range(1, values["heads"] + 1) if values["heads"] % n == 0]
        heads = self.fields["kv_heads"]
        assert isinstance(heads, IntControl)
        heads.set_steps(divisors)
        for name, control in self.fields.items():
            control.blockSignals(True)
            if isinstance(control, IntControl):
                control.show_value(values[name])
            elif isinstance(control, QComboBox):
                control.setCurrentText(values[name])
            else:
                control.setChecked(values[name])
            control.blockSignals(False)
        kind = "MHA" if values["kv_heads"] == values["heads"] else "MQA" if values["kv_heads"] == 1 else "GQA"
        for name, button in self.sharing.items():
            button.setChecked(name == kind)

    def update_from(self, snapshot: Snapshot) -> None:
        """What the choices cost, and what is refused."""
        running = snapshot.phase is not None and snapshot.phase.name not in ("idle", "paused")
        self.run.setText("Stop" if running else "Run")
        if snapshot.peak_memory_bytes is not None and snapshot.memory_bytes:
            self.peak.setText(f"predicted peak {format.bytes_iec(snapshot.peak_memory_bytes)} of {format.bytes_iec(snapshot.memory_bytes)}")
        for name, box in self.kernels.items():
            reason = snapshot.refusals.get(name, "")
            title = snapshot.title(name)
            box.setText(f"{title} · refused" if reason else title)
            box.setToolTip(reason or self._summary(name))

    def set_theme(self, theme: Theme) -> None:
        """Colours of the kernels' swatches."""
        self._theme = theme
        for place, box in enumerate(self.kernels.values()):
            swatch = QPixmap(10, 10)
            swatch.fill(theme.series(place))
            box.setIcon(swatch)

    def _summary(self, kernel: str) -> str:
        return next((k.summary for k in self._hello.kernels if k.id == kernel), "") if self._hello else ""

    def _title(self, text: str) -> None:
        label = QLabel(text)
        label.setProperty("role", "muted")
        self._column.addSpacing(6)
        self._column.addWidget(label)

    def _add_devices(self, devices: Sequence[Device], chosen: str) -> None:
        self._title("Device")
        self.devices = QComboBox()
        for device in devices:
            self.devices.addItem(f"{device.name} ({device.id})", device.id)
        self.devices.setCurrentIndex(max(0, self.devices.findData(chosen)))
        self.devices.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.devices.setAccessibleName("Device")
        self.devices.activated.connect(self._device_activated)
        self._column.addWidget(self.devices)

    def _add_kernels(self, hello: Hello, chosen: Sequence[str]) -> None:
        self._title("Kernels")
        self.kernels = {}
        for info in hello.kernels:
            box = QCheckBox(info.title)
            box.setChecked(info.id in chosen)
            box.toggled.connect(self.edited)
            self.kernels[info.id] = box
            self._column.addWidget(box)
        self.set_theme(self._theme)

    def _add_presets(self, presets: Sequence[Preset]) -> None:
        self._title("Preset")
        self.presets = QComboBox()
        self.presets.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.presets.addItem("custom", None)
        for preset in presets:
            self.presets.addItem(preset.title, preset)
        self.presets.setAccessibleName("Preset")
        self.presets.activated.connect(self._preset_activated)
        self._column.addWidget(self.presets)

    def _add_fields(self, fields: Sequence[Field]) -> None:
        self._title("Workload")
        grid = QWidget()
        rows = QGridLayout(grid)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setHorizontalSpacing(6)
        rows.setVerticalSpacing(4)
        rows.setColumnStretch(1, 1)
        self.fields = {}
        for field in fields:
            control = self._control(field)
            self.fields[field.name] = control
            label = QLabel(field.title)
            label.setBuddy(control)
            rows.addWidget(label, rows.rowCount(), 0)
            rows.addWidget(control, rows.rowCount() - 1, 1)
            if field.name == "kv_heads":
                rows.addWidget(self._sharing_row(), rows.rowCount(), 1)
        self._column.addWidget(grid)

    def _control(self, field: Field) -> IntControl | QComboBox | QCheckBox:
        if field.kind == "int":
            number = IntControl(field)
            number.setProperty("field", field.name)
            number.changed.connect(self._int_changed)
            return number
        if field.kind == "choice":
            choice = QComboBox()
            choice.addItems(list(field.choices))
            choice.setProperty("field", field.name)
            choice.setAccessibleName(field.title)
            choice.currentTextChanged.connect(self._text_changed)
            return choice
        box = QCheckBox()
        box.setProperty("field", field.name)
        box.setAccessibleName(field.title)
        box.toggled.connect(self._toggled)
        return box

    def _sharing_row(self) -> QWidget:
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        self.sharing = {}
        for name in SHARED:
            button = QPushButton(name)
            button.setCheckable(True)
            button.setProperty("kind", name)
            button.setMinimumWidth(0)
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.clicked.connect(self._share)
            self.sharing[name] = button
            line.addWidget(button)
        return row

    def _set(self, **changes: Any) -> None:
        values = {**self.values, **changes}
        if values["heads"] % values["kv_heads"]:  # keep the ratio where it divides, else the largest that does
            values["kv_heads"] = max(n for n in range(1, values["kv_heads"] + 1) if values["heads"] % n == 0)
        if "heads" in changes and self.values["kv_heads"] == self.values["heads"]:
            values["kv_heads"] = values["heads"]
        self.show_values(values)
        self.edited.emit()

    @Slot(int)
    def _int_changed(self, value: int) -> None:
        self._set(**{self.sender().property("field"): value})

    @Slot(str)
    def _text_changed(self, value: str) -> None:
        self._set(**{self.sender().property("field"): value})

    @Slot(bool)
    def _toggled(self, value: bool) -> None:
        changes: dict[str, Any] = {self.sender().property("field"): value}
        self._set(**changes, **({} if value else {"window": 0}))

    @Slot()
    def _share(self) -> None:
        heads = self.values["heads"]
        middle = max(n for n in range(1, heads + 1) if heads % n == 0 and n <= max(1, heads // 4))
        self._set(kv_heads={"MHA": heads, "GQA": middle, "MQA": 1}[self.sender().property("kind")])

    @Slot(int)
    def _preset_activated(self, place: int) -> None:
        preset = self.presets.itemData(place)
        if preset is not None:
            self._set(heads=preset.heads, kv_heads=preset.kv_heads, head_dim=preset.head_dim)

    @Slot(int)
    def _device_activated(self, place: int) -> None:
        self.device_picked.emit(self.devices.itemData(place))
