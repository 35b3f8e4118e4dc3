"""The controls of a lab, made from what the engine says: devices, kernels and their parameters, the workload's fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from PySide6.QtCore import Slot
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QWidget

from app.choice import Choice, offered, on_device
from app.panels.fields import IntControl
from app.panels.form import Form, box, column, grid, labelled, reason_label, show_reason, show_value, titled
from app.panels.parameters import Parameters
from app.store import Snapshot
from app.theme import Theme
from app.what_if import device_of
from engine.protocol import Field, Hello, Model

SHARED = ("MHA", "GQA", "MQA")
FAMILY = "attention"    # of the kernels that can be chosen
SWATCH_PX = 10


class Controls(Form):
    """Device, kernels and their parameters, and the workload's fields."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(theme)
        self._shown: Choice | None = None
        self._hues: dict[str, int] = {}
        self.models = QComboBox()
        self.kernels: dict[str, QCheckBox] = {}
        self.reasons: dict[str, QLabel] = {}
        self.sharing: dict[str, QPushButton] = {}
        self.parameters = Parameters()

    def build(self, hello: Hello, choice: Choice) -> None:
        """The form for what this engine has, set to a choice."""
        self._hello = hello
        self.parameters = Parameters()
        self.parameters.edited.connect(self._edited)
        self.run.setEnabled(True)
        self.show_rows(
            titled("Device", self.device_row(hello.devices, self._device_activated)),
            titled("Kernels", self._kernel_rows(hello)),
            titled("Model shape", self._model_row(hello.models)),
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
        self.show_device(choice.device)
        for name, tick in self.kernels.items():
            show_value(tick, name in choice.kernels)
        for info in self._hello.kernels if self._hello else ():
            if not info.runs and info.id in self.kernels:
                self.kernels[info.id].setVisible(offered(info, choice.device))
        for name, control in self.fields.items():
            show_value(control, values[name])
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
        self.show_state(snapshot, snapshot.peak_memory_bytes, snapshot.memory_bytes)
        if snapshot.hues is not self._hues:
            self._hues = snapshot.hues
            self._show_swatches()
        for name, label in self.reasons.items():
            show_reason(label, snapshot.refusals.get(name, "") if name in snapshot.plans else "")
        marks = {snapshot.title(plan.kernel): plan.longest_seq for plan in snapshot.plans.values() if plan.longest_seq}
        if isinstance(seq := self.fields.get("seq"), IntControl):
            seq.set_marks(marks)

    def set_theme(self, theme: Theme) -> None:
        super().set_theme(theme)
        self._show_swatches()

    def _show_swatches(self) -> None:
        """The hue of each chosen kernel; an outline for the others."""
        for name, tick in self.kernels.items():
            swatch = QPixmap(SWATCH_PX, SWATCH_PX)
            swatch.fill(self._theme.series(self._hues[name]) if name in self._hues else self._theme["border"])
            tick.setIcon(swatch)

    # --- building ---

    def _kernel_rows(self, hello: Hello) -> QWidget:
        self.kernels, self.reasons = {}, {}
        rows: list[QWidget] = []
        for info in (info for info in hello.kernels if info.family == FAMILY):
            tick, reason = QCheckBox(info.title), reason_label()
            tick.setToolTip(info.summary)
            tick.toggled.connect(self._kernels_changed)
            self.kernels[info.id], self.reasons[info.id] = tick, reason
            rows += (tick, reason)
        return column(*rows)

    def _model_row(self, models: Sequence[Model]) -> QWidget:
        self.models = box("Model shape")
        self.models.addItem("custom", None)
        for model in models:
            self.models.addItem(f"{model.title} ({model.heads}:{model.kv_heads}, D {model.head_dim})", model)
        self.models.activated.connect(self._model_activated)
        return self.models

    def _field_rows(self, fields: Sequence[Field]) -> QWidget:
        group, rows = grid()
        self.fields = {}
        for field in fields:
            self.fields[field.name] = self.control(field, self._field_changed)
            labelled(rows, field.title, self.fields[field.name])
            if field.name == "kv_heads":
                rows.addWidget(self._sharing_row(), rows.rowCount(), 0, 1, 2)
        return group

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

    @Slot(int)
    @Slot(str)
    @Slot(bool)
    def _field_changed(self, value: Any) -> None:
        self._set(self.drag(), **{self.sender().property("field"): value})

    @Slot()
    def _kernels_changed(self) -> None:
        assert self._shown is not None
        chosen = tuple(name for name, tick in self.kernels.items() if tick.isChecked())
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
        device = device_of(self.devices.itemData(place), self._hello)
        if device is not None and device.id != self._shown.device:
            self._choose(on_device(self._shown, device, self._hello))
