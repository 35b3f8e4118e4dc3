"""The controls of the batching lab: what is batched, and its size; what means nothing to the work is not there."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from PySide6.QtCore import Qt, Slot
from PySide6.QtWidgets import QComboBox, QLabel, QWidget

from app import format as fmt
from app.batching.choice import MEANT, SIZES, BatchChoice, first_choice
from app.batching.facts import WORKS
from app.decoding.choice import DTYPES
from app.panels.form import (
    Form,
    box,
    doubling,
    grid,
    labelled,
    number,
    number_of,
    reason_label,
    show_reason,
    show_value,
    titled,
)
from app.store import Snapshot
from app.theme import Theme
from app.what_if import device_of
from engine.batching.work import LIMITS
from engine.protocol import Field, Hello, Model

WORK_HELP = {
    "linear": "Rows of X times the square W", "rnn": "Steps of h = tanh(W h), one after the other",
    "model": "A decoding step of a model, each sequence with a cache of its own",
}
WIDEST, MOST_STEPS = 16384, 64   # of the sliders; the boxes take more
WIDTHS = tuple(step for step in doubling(64, WIDEST) if step % 16 == 0)
FIELDS = (
    number("width", "Width", *LIMITS["width"], "Of X, and of the square W", steps=WIDTHS),
    number("steps", "Steps", *LIMITS["steps"], "Products one after the other", steps=doubling(LIMITS["steps"][0], MOST_STEPS)),
    number("cached", "Cached", *LIMITS["cached"], "Tokens that each sequence has in its cache", "tokens"),
    Field(name="dtype", title="Data type", kind="choice", default="bfloat16", choices=DTYPES, help="Of all numbers"),
)


class BatchControls(Form):
    """The batch sizes are always 1 to 256."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(theme)
        self._shown: BatchChoice | None = None
        self.works, self.models, self.reason = QComboBox(), QComboBox(), QLabel()
        self._rows: dict[str, tuple[QWidget, QWidget]] = {}     # field -> its label and control

    def build(self, hello: Hello, choice: BatchChoice) -> None:
        """The form for what this engine has, set to a choice."""
        self._hello = hello
        self.run.setEnabled(True)
        self.works, self.reason = box("Work"), reason_label()
        for work, title in WORKS.items():
            self.works.addItem(title, work)
            self.works.setItemData(self.works.count() - 1, WORK_HELP[work], Qt.ItemDataRole.ToolTipRole)
        self.works.activated.connect(self._work_activated)
        self.show_rows(
            titled("Device", self.device_row(hello.devices, self._device_activated)), titled("Work", self.works),
            self._sizes(hello.models), self.reason)
        self.set_theme(self._theme)
        self.show_choice(choice)

    @property
    def choice(self) -> BatchChoice | None:
        """What is chosen; None before the engine has answered."""
        return self._shown

    def show_choice(self, choice: BatchChoice) -> None:
        """Shows a choice without saying that it changed."""
        self._shown = choice
        self.show_device(choice.device)
        self.works.setCurrentIndex(self.works.findData(choice.work))
        known = [self.models.itemData(i).id for i in range(self.models.count())]
        self.models.setPlaceholderText(choice.model.title)
        self.models.setCurrentIndex(known.index(choice.model.id) if choice.model.id in known else -1)
        number_of(self, "cached").set_steps(doubling(1, choice.model.context - 1) if choice.model.context > 2 else (1, 1))
        for field in FIELDS:
            show_value(self.fields[field.name], getattr(choice, field.name))
        for name, row in self._rows.items():
            for part in row:
                part.setVisible(name in MEANT[choice.work])

    def update_from(self, snapshot: Snapshot) -> None:
        state = snapshot.batch
        self.show_state(snapshot, state.peak_memory_bytes, state.memory_bytes)
        refused = {batch: plan.refused for batch, plan in state.plans.items() if plan.refused}
        said = f"batch {', '.join(map(fmt.count, refused))}: {refused[min(refused)]}" if refused else ""
        show_reason(self.reason, said)

    def _sizes(self, models: tuple[Model, ...]) -> QWidget:
        group, rows = grid()
        self.models, self.fields = box("Model"), {}
        for model in models:
            self.models.addItem(model.title, model)
            self.models.setItemData(self.models.count() - 1, model.source, Qt.ItemDataRole.ToolTipRole)
        self.models.activated.connect(self._model_activated)
        self._rows = {"model": (labelled(rows, "Model", self.models), self.models)}
        for field in FIELDS:
            control = self.fields[field.name] = self.control(field, self._field_changed)
            self._rows[field.name] = (labelled(rows, field.title, control), control)
        return group

    # --- what the user does ---

    def _choose(self, drag: int = 0, **changes: Any) -> None:
        assert self._shown is not None
        self.show_choice(replace(self._shown, **changes))
        self.edited.emit(drag)

    @Slot(int)
    @Slot(str)
    def _field_changed(self, value: Any) -> None:
        assert self._shown is not None
        name = self.sender().property("field")
        if name == "width":
            value = max(LIMITS["width"][0], value - value % 16)
        if name == "cached":
            value = min(value, self._shown.model.context - 1)
        self._choose(self.drag() if name in SIZES else 0, **{name: value})

    @Slot(int)
    def _work_activated(self, place: int) -> None:
        self._choose(work=self.works.itemData(place))

    @Slot(int)
    def _model_activated(self, place: int) -> None:
        assert self._shown is not None
        model = self.models.itemData(place)
        self._choose(model=model, cached=self._shown.of_model(model).cached)

    @Slot(int)
    def _device_activated(self, place: int) -> None:
        assert self._hello is not None
        assert self._shown is not None
        device = device_of(self.devices.itemData(place), self._hello)
        if device is not None and device.id != self._shown.device:
            first = first_choice(device, self._hello.models)
            self.show_choice(replace(first, work=self._shown.work))
            self.edited.emit(0)
