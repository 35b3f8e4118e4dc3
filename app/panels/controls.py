"""The controls of a lab, made from what the engine says: devices, kernels and their parameters, the workload's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
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
    QVBoxLayout,
    QWidget,
)

from app import format as fmt
from app.choice import Choice, first_choice
from app.panels.fields import IntControl
from app.panels.parameters import Parameters
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import Device, Family, Field, Hello, Model

SHARED = ("MHA", "GQA", "MQA")
WIDTH_PX = 268
SWATCH_PX = 10
Control = IntControl | QComboBox | QCheckBox


class Controls(QWidget):
    """Everything that can be chosen, and beneath it, always in sight, what it costs and the button that runs it.

    `edited` carries a number that all edits of one drag share, and 0 for any other edit.
    """

    edited = Signal(int)
    run_pressed = Signal()

    def __init__(self, theme: Theme, family: Family = "attention") -> None:
        """`family`: of the kernels that can be chosen."""
        super().__init__()
        self._theme, self._family = theme, family
        self._hello: Hello | None = None
        self._shown: Choice | None = None
        self._drags = 0
        self._hues: dict[str, int] = {}
        self.devices, self.models = QComboBox(), QComboBox()
        self.kernels: dict[str, QCheckBox] = {}
        self.reasons: dict[str, QLabel] = {}
        self.fields: dict[str, Control] = {}
        self.sharing: dict[str, QPushButton] = {}
        self.parameters = Parameters()
        self.peak, self.run = QLabel(""), QPushButton("Run")
        self.peak.setProperty("role", "muted")
        self.peak.setWordWrap(True)
        self.run.setProperty("primary", True)
        self.run.setEnabled(False)
        self.run.clicked.connect(self.run_pressed)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._scroll, 1)
        column.addWidget(_column(self.peak, self.run, margins=(12, 8, 12, 12), spacing=8))
        self._show_form(QLabel("Controls appear here once the engine answers."))
        self.setMinimumWidth(WIDTH_PX)
        self.setAccessibleName("Controls")

    def build(self, hello: Hello, choice: Choice) -> None:
        """The form for what this engine has, set to a choice."""
        self._hello = hello
        self.parameters = Parameters()
        self.parameters.edited.connect(self._edited)
        self.run.setEnabled(True)
        self._show_form(
            self._titled("Device", self._device_row(hello.devices)),
            self._titled("Kernels", self._kernel_rows(hello)),
            self._titled("Model shape", self._model_row(hello.models)),
            self._field_rows(hello.fields), self.parameters,
        )
        self.set_theme(self._theme)
        self.show_choice(choice)

    @property
    def choice(self) -> Choice | None:
        """What is chosen; None before the engine has answered."""
        return self._shown

    def show_choice(self, choice: Choice) -> None:
        """Shows a choice without saying that it changed."""
        self._shown = choice
        values = choice.values()
        heads = values["heads"]
        kv_heads = self.fields["kv_heads"]
        assert isinstance(kv_heads, IntControl)
        kv_heads.set_steps([n for n in range(1, heads + 1) if heads % n == 0])
        self.devices.setCurrentIndex(self.devices.findData(choice.device))
        for name, box in self.kernels.items():
            _quietly(box, lambda box=box, name=name: box.setChecked(name in choice.kernels))
        for name, control in self.fields.items():
            _quietly(control, lambda control=control, name=name: _set(control, values[name]))
        for kind, button in self.sharing.items():
            button.setChecked(kind == choice.workload.sharing)
        shape = (heads, values["kv_heads"], values["head_dim"])
        models = [self.models.itemData(i) for i in range(self.models.count())]
        same = [i for i, p in enumerate(models) if p and (p.heads, p.kv_heads, p.head_dim) == shape]
        if self.models.currentIndex() not in same:  # two models may have one shape
            self.models.setCurrentIndex(same[0] if same else 0)
        if self._hello:
            self.parameters.show_for([info for info in self._hello.kernels if info.id in choice.kernels], choice.params,
                                     choice.workload.pass_)

    def update_from(self, snapshot: Snapshot) -> None:
        """What the choice costs, what is refused, and where on the slider a kernel stops fitting."""
        running = snapshot.phase is not None and snapshot.phase.name not in ("idle", "paused")
        self.run.setText("Stop" if running else "Run")
        if snapshot.peak_memory_bytes is not None and snapshot.memory_bytes:
            needed, whole = fmt.bytes_iec(snapshot.peak_memory_bytes), fmt.bytes_iec(snapshot.memory_bytes)
            self.peak.setText(f"predicted peak {needed} of {whole} free")
        if snapshot.hues is not self._hues:
            self._hues = snapshot.hues
            self._show_swatches()
        for name, label in self.reasons.items():
            reason = snapshot.refusals.get(name, "") if name in snapshot.plans else ""
            if reason != label.text():
                label.setText(reason)
                label.setVisible(bool(reason))
        marks = {snapshot.title(plan.kernel): plan.longest_seq for plan in snapshot.plans.values() if plan.longest_seq}
        if isinstance(seq := self.fields.get("seq"), IntControl):
            seq.set_marks(marks)

    def set_theme(self, theme: Theme) -> None:
        """Colours of the kernels' swatches and of the marks."""
        self._theme = theme
        self._show_swatches()
        for control in self.fields.values():
            if isinstance(control, IntControl):
                control.set_theme(theme)

    def _show_swatches(self) -> None:
        """The hue of each chosen kernel; an outline for the others."""
        for name, box in self.kernels.items():
            swatch = QPixmap(SWATCH_PX, SWATCH_PX)
            swatch.fill(self._theme.series(self._hues[name]) if name in self._hues else self._theme["border"])
            box.setIcon(swatch)

    # --- building ---

    def _show_form(self, *rows: QWidget) -> None:
        rest = QWidget()
        rest.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.MinimumExpanding)
        self._scroll.setWidget(_column(*rows, rest, margins=(12, 8, 12, 0), spacing=8))

    @staticmethod
    def _titled(text: str, *rows: QWidget) -> QWidget:
        title = QLabel(text)
        title.setProperty("role", "muted")
        return _column(title, *rows, spacing=2)

    def _device_row(self, devices: Sequence[Device]) -> QWidget:
        self.devices = _box("Device")
        for device in devices:
            self.devices.addItem(f"{device.name} ({device.id})", device.id)
        self.devices.activated.connect(self._device_activated)
        return self.devices

    def _kernel_rows(self, hello: Hello) -> QWidget:
        self.kernels, self.reasons = {}, {}
        rows: list[QWidget] = []
        for info in (info for info in hello.kernels if info.family == self._family):
            box, reason = QCheckBox(info.title), QLabel("")
            box.setToolTip(info.summary)
            box.toggled.connect(self._kernels_changed)
            reason.setProperty("role", "warning")
            reason.setWordWrap(True)
            reason.setContentsMargins(24, 0, 0, 4)
            reason.hide()
            self.kernels[info.id], self.reasons[info.id] = box, reason
            rows += (box, reason)
        return _column(*rows)

    def _model_row(self, models: Sequence[Model]) -> QWidget:
        self.models = _box("Model shape")
        self.models.addItem("custom", None)
        for model in models:
            self.models.addItem(f"{model.title} ({model.heads}:{model.kv_heads}, D {model.head_dim})", model)
        self.models.activated.connect(self._model_activated)
        return self.models

    def _field_rows(self, fields: Sequence[Field]) -> QWidget:
        grid = QWidget()
        rows = QGridLayout(grid)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setVerticalSpacing(2)
        rows.setHorizontalSpacing(8)
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
                rows.addWidget(self._sharing_row(), rows.rowCount(), 0, 1, 2)
        return grid

    def _control(self, field: Field) -> Control:
        control: Control
        if field.kind == "int":
            control = IntControl(field, self._theme)
            control.changed.connect(self._field_changed)
            control.slider.sliderPressed.connect(self._drag_began)
        elif field.kind == "choice":
            control = _box(field.title)
            control.addItems(list(field.choices))
            control.currentTextChanged.connect(self._field_changed)
        else:
            control = QCheckBox()
            control.toggled.connect(self._field_changed)
        control.setProperty("field", field.name)
        control.setAccessibleName(field.title)
        if field.kind != "int":
            control.setToolTip(field.help)
        return control

    def _sharing_row(self) -> QWidget:
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 4)
        line.setSpacing(4)
        self.sharing = {}
        for kind in SHARED:
            button = QPushButton(kind)
            button.setCheckable(True)
            button.setProperty("kind", kind)
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.clicked.connect(self._share)
            self.sharing[kind] = button
            line.addWidget(button)
        return row

    # --- what the user does ---

    def _choose(self, choice: Choice, drag: int = 0) -> None:
        self.show_choice(choice)
        self.edited.emit(drag)

    def _set(self, drag: int = 0, **changes: Any) -> None:
        assert self._shown is not None
        before = self._shown.values()
        values = {**before, **changes}
        if "heads" in changes and "kv_heads" not in changes and before["kv_heads"] == before["heads"]:
            values["kv_heads"] = values["heads"]
        if values["heads"] % values["kv_heads"]:  # the largest that divides
            values["kv_heads"] = max(n for n in range(1, values["kv_heads"] + 1) if values["heads"] % n == 0)
        if not values["causal"]:
            values["window"] = 0
        if changes.get("window"):
            values["causal"] = True
        values["head_dim"] -= values["head_dim"] % 8
        self._choose(self._shown.with_values(values), drag)

    @Slot()
    def _drag_began(self) -> None:
        self._drags += 1

    @Slot(int)
    @Slot(str)
    @Slot(bool)
    def _field_changed(self, value: Any) -> None:
        control = self.sender()
        dragging = isinstance(control, IntControl) and control.dragging
        self._set(self._drags if dragging else 0, **{control.property("field"): value})

    @Slot()
    def _kernels_changed(self) -> None:
        assert self._shown is not None
        chosen = tuple(name for name, box in self.kernels.items() if box.isChecked())
        self._choose(msgspec.structs.replace(self._shown, kernels=chosen))

    @Slot()
    def _edited(self) -> None:
        assert self._shown is not None
        self._choose(msgspec.structs.replace(self._shown, params=self.parameters.values()))

    @Slot()
    def _share(self) -> None:
        assert self._shown is not None
        heads = self._shown.workload.heads
        quarter = max(n for n in range(1, heads + 1) if heads % n == 0 and n <= max(1, heads // 4))
        self._set(kv_heads={"MHA": heads, "GQA": quarter, "MQA": 1}[self.sender().property("kind")])

    @Slot(int)
    def _model_activated(self, place: int) -> None:
        model = self.models.itemData(place)
        if model is not None:
            self._set(heads=model.heads, kv_heads=model.kv_heads, head_dim=model.head_dim)

    @Slot(int)
    def _device_activated(self, place: int) -> None:
        assert self._hello is not None
        assert self._shown is not None
        device = next(d for d in self._hello.devices if d.id == self.devices.itemData(place))
        if device.id != self._shown.device:
            self._choose(first_choice(device))


def _column(*rows: QWidget, margins: tuple[int, int, int, int] = (0, 0, 0, 0), spacing: int = 0) -> QWidget:
    group = QWidget()
    column = QVBoxLayout(group)
    column.setContentsMargins(*margins)
    column.setSpacing(spacing)
    for row in rows:
        column.addWidget(row)
    return group


def _box(title: str) -> QComboBox:
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    box.setAccessibleName(title)
    return box


def _set(control: Control, value: Any) -> None:
    if isinstance(control, IntControl):
        control.show_value(value)
    elif isinstance(control, QComboBox):
        control.setCurrentText(value)
    else:
        control.setChecked(value)


def _quietly(widget: QWidget, change: Any) -> None:
    widget.blockSignals(True)
    change()
    widget.blockSignals(False)
