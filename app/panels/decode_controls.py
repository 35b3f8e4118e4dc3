"""The controls of the decode lab: model, heads, caches, lengths; and why a lane will not run, beside what asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace
from PySide6.QtCore import Qt, Slot
from PySide6.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QToolButton, QWidget

from app import format as fmt
from app.decoding.choice import ATTENTIONS, CUSTOM, DTYPES, DecodeChoice, first_choice
from app.decoding.facts import CACHE_TITLES, titles
from app.panels.form import (
    Form,
    box,
    column,
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
from engine.decoding import MOST
from engine.protocol import CACHES, Field, Hello, LanePlan, Model

CACHE_HELP = {
    "none": "All of k and v computed again at each token", "dense": "k and v kept in one array of the whole length",
    "paged": "k and v kept in pages of 16 tokens, found by a block table", "int8": "k and v kept in 8 bits, with scales",
    "fp8": "k and v kept in 8 bits of floating point, with scales",
}
ATTENTION_HELP = {
    "MHA": "Each query head has a KV head", "GQA": "Some query heads share a KV head",
    "MQA": "All query heads share one KV head",
}


SHAPE = (
    number("layers", "Layers", 1, 128, "Blocks of attention and MLP"),
    number("hidden", "Hidden", 32, 16384, "Width of the residual stream"),
    number("heads", "Heads", 1, 128, "Query heads"),
    number("head_dim", "Head dim", 8, 256, "Width of a head", steps=(8, 16, 32, 64, 80, 96, 128, 192, 256)),
    number("context", "Context", 16, MOST["new"], "The most tokens of a sequence", "tokens"),
    number("mlp", "MLP", 32, 65536, "Inner width of the MLP"),
)
RUN = (
    number("batch", "Batch", 1, MOST["batch"], "Sequences decoded at once"),
    number("prompt", "Prompt", 1, MOST["prompt"], "Tokens that each sequence begins with", "tokens"),
    number("new", "New", 1, MOST["new"], "Tokens that are made, one a step", "tokens"),
    Field(name="dtype", title="Data type", kind="choice", default="float16", choices=DTYPES, help="Of weights and activations"),
)


class DecodeControls(Form):
    """The lanes are each ticked cache with each ticked attention."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(theme)
        self._shown: DecodeChoice | None = None
        self.models, self.shape = QComboBox(), QToolButton()
        self.caches: dict[str, QCheckBox] = {}
        self.attentions: dict[str, QCheckBox] = {}
        self.reasons: dict[str, QLabel] = {}
        self.costs: dict[str, QLabel] = {}

    def build(self, hello: Hello, choice: DecodeChoice) -> None:
        """The form for what this engine has, set to a choice."""
        self._hello = hello
        self.run.setEnabled(True)
        self.fields = {}
        self.show_rows(
            titled("Device", self.device_row(hello.devices, self._device_activated)),
            titled("Model", self._model_row(hello.models), self._shape_rows()),
            titled("Attention", self._attention_row(), self._field_rows((self._group_field(choice.model),))),
            titled("Caches to compare", self._cache_rows()),
            self._field_rows(RUN),
        )
        self.set_theme(self._theme)
        self.show_choice(choice)

    @property
    def choice(self) -> DecodeChoice | None:
        """What is chosen; None before the engine has answered."""
        return self._shown

    def show_choice(self, choice: DecodeChoice) -> None:
        """Shows a choice without saying that it changed."""
        self._shown, model = choice, choice.model
        self.show_device(choice.device)
        ids = [self.models.itemData(i).id if self.models.itemData(i) else CUSTOM for i in range(self.models.count())]
        self.models.setCurrentIndex(ids.index(model.id) if model.id in ids else 0)
        number_of(self, "group").set_steps([n for n in range(1, model.heads + 1) if model.heads % n == 0])
        number_of(self, "group").setEnabled("GQA" in choice.attentions)
        for name, most in (("prompt", model.context - 1), ("new", model.context - 1)):
            number_of(self, name).set_steps(doubling(1, max(2, min(most, MOST[name]))))
        for field in SHAPE:
            show_value(self.fields[field.name], getattr(model, field.name))
        for name in ("group", *(field.name for field in RUN)):
            show_value(self.fields[name], getattr(choice, name))
        for cache, tick in self.caches.items():
            show_value(tick, cache in choice.caches)
        for attention, tick in self.attentions.items():
            show_value(tick, attention in choice.attentions)

    def update_from(self, snapshot: Snapshot) -> None:
        state = snapshot.decode
        self.show_state(snapshot, state.peak_memory_bytes, state.memory_bytes)
        if self._shown is None:
            return
        names = titles(state)
        for cache in self.caches:
            plans = [plan for plan in state.plans.values() if plan.lane.cache == cache]
            refused = {names[plan.lane.id]: state.refusals[plan.lane.id] for plan in plans if plan.lane.id in state.refusals}
            show_reason(self.reasons[cache], _reasons(refused, len(plans)))
            self.costs[cache].setText(_cost(plans))
            self.costs[cache].setToolTip("\n".join(
                f"{names[plan.lane.id]}: predicted peak {fmt.bytes_iec(plan.peak_memory_bytes)}" for plan in plans))
        self._mark(state.plans, names)

    def _mark(self, plans: Mapping[str, LanePlan], names: Mapping[str, str]) -> None:
        """The longest sequence and the largest batch that fit, at the sliders of both."""
        assert self._shown is not None
        longest = {names[name]: plan.longest for name, plan in plans.items() if plan.longest is not None}
        batches = {names[name]: plan.largest_batch for name, plan in plans.items() if plan.largest_batch is not None}
        for name, other in (("new", self._shown.prompt), ("prompt", self._shown.new)):
            number_of(self, name).set_marks({lane: most - other for lane, most in longest.items() if most > other})
        number_of(self, "batch").set_marks({lane: most for lane, most in batches.items() if most})

    # --- building ---

    def _model_row(self, models: tuple[Model, ...]) -> QWidget:
        self.models = box("Model")
        self.models.addItem("custom", None)
        for model in models:
            self.models.addItem(model.title, model)
            self.models.setItemData(self.models.count() - 1, model.source, Qt.ItemDataRole.ToolTipRole)
        self.models.activated.connect(self._model_activated)
        return self.models

    def _shape_rows(self) -> QWidget:
        """The model's shape, folded away until wanted."""
        self.shape = QToolButton()
        self.shape.setText("Shape")
        self.shape.setCheckable(True)
        self.shape.setArrowType(Qt.ArrowType.RightArrow)
        self.shape.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        rows = self._field_rows(SHAPE)
        rows.hide()
        self.shape.toggled.connect(rows.setVisible)
        self.shape.toggled.connect(self._unfolded)
        return column(self.shape, rows, spacing=2)

    @staticmethod
    def _group_field(model: Model) -> Field:
        return Field(name="group", title="Group", kind="int", default=1, lo=1, hi=model.heads, steps=(1, model.heads),
                     help="Query heads to a KV head, of GQA")

    def _attention_row(self) -> QWidget:
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(12)
        self.attentions = {}
        for name in ATTENTIONS:
            tick = QCheckBox(name)
            tick.setToolTip(ATTENTION_HELP[name])
            tick.toggled.connect(self._ticked)
            self.attentions[name] = tick
            line.addWidget(tick)
        line.addStretch()
        return row

    def _cache_rows(self) -> QWidget:
        self.caches, self.reasons, self.costs = {}, {}, {}
        rows: list[QWidget] = []
        for cache in CACHES:
            tick, cost, reason = QCheckBox(CACHE_TITLES[cache]), QLabel(""), reason_label()
            tick.setToolTip(CACHE_HELP[cache])
            tick.toggled.connect(self._ticked)
            cost.setProperty("role", "muted")
            self.caches[cache], self.costs[cache], self.reasons[cache] = tick, cost, reason
            row = QWidget()
            line = QHBoxLayout(row)
            line.setContentsMargins(0, 0, 0, 0)
            line.addWidget(tick)
            line.addStretch()
            line.addWidget(cost)
            rows += (row, reason)
        return column(*rows)

    def _field_rows(self, fields: tuple[Field, ...]) -> QWidget:
        group, rows = grid()
        for field in fields:
            self.fields[field.name] = self.control(field, self._field_changed)
            labelled(rows, field.title, self.fields[field.name])
        return group

    # --- what the user does ---

    def _choose(self, choice: DecodeChoice, drag: int = 0) -> None:
        self.show_choice(choice)
        self.edited.emit(drag)

    @Slot(bool)
    def _unfolded(self, unfolded: bool) -> None:
        self.shape.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)

    @Slot(int)
    @Slot(str)
    def _field_changed(self, value: Any) -> None:
        assert self._shown is not None
        name, choice = self.sender().property("field"), self._shown
        if name in (field.name for field in SHAPE):
            model = replace(choice.model, id=CUSTOM, title="custom model", source="", **{name: value})
            model = replace(model, kv_heads=model.heads // max(
                n for n in range(1, min(model.heads // min(model.kv_heads, model.heads), model.heads) + 1)
                if model.heads % n == 0))
            choice = replace(choice, model=model)
        else:
            choice = replace(choice, **{name: value})
        if name == "new" and value + choice.prompt > choice.model.context:
            choice = replace(choice, prompt=max(1, choice.model.context - value))
        self._choose(choice.fitting(), self.drag())

    @Slot()
    def _ticked(self) -> None:
        assert self._shown is not None
        self._choose(replace(
            self._shown, caches=tuple(cache for cache in CACHES if self.caches[cache].isChecked()),
            attentions=tuple(name for name in ATTENTIONS if self.attentions[name].isChecked())))

    @Slot(int)
    def _model_activated(self, place: int) -> None:
        assert self._shown is not None
        model = self.models.itemData(place)
        if model is None:
            self.shape.setChecked(True)
            model = replace(self._shown.model, id=CUSTOM, title="custom model", source="")
        self._choose(self._shown.of_model(model))

    @Slot(int)
    def _device_activated(self, place: int) -> None:
        assert self._hello is not None
        assert self._shown is not None
        device = device_of(self.devices.itemData(place), self._hello)
        if device is not None and device.id != self._shown.device:
            self._choose(first_choice(device, self._hello.models))


def _reasons(refused: Mapping[str, str], lanes: int) -> str:
    """Why lanes of a cache will not run: which, where others of it do."""
    if not refused:
        return ""
    if lanes == 1 or (len(set(refused.values())) == 1 and len(refused) == lanes):
        return next(iter(refused.values()))
    return " ".join(f"{name}: {reason}" for name, reason in refused.items())


def _cost(plans: list[LanePlan]) -> str:
    """What the lanes of a cache need at most."""
    return fmt.bytes_iec(max(plan.peak_memory_bytes for plan in plans)) if plans else ""
