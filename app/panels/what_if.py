"""The sliders beneath a simulated GPU: what if it had another clock, more bandwidth, more SRAM, fewer SMs."""

from __future__ import annotations

from PySide6.QtCore import Signal, Slot
from PySide6.QtWidgets import QGridLayout, QLabel, QWidget

from app.panels.fields import IntControl
from app.theme import Theme
from app.what_if import LEAST_PERCENT, MOST_PERCENT, MOST_SMS, WhatIf, simulated, what_if
from engine.protocol import Device, Field

PERCENTS = (25, 35, 50, 60, 70, 80, 90, 100, 110, 120, 135, 150, 175, 200, 250, 300, 400)
EIGHTHS = (1, 2, 3, 4, 6, 8, 10, 12, 16)    # of the GPU's own SMs, that the slider snaps to


def _percent(name: str, title: str, help: str) -> Field:
    return Field(name=name, title=title, kind="int", default=100, lo=LEAST_PERCENT, hi=MOST_PERCENT, unit="%", help=help,
                 steps=PERCENTS)


FIELDS = (
    _percent("clock", "Clock %", "of the SMs, and so of all that they do, in percent of the GPU's own"),
    _percent("bandwidth", "Bandwidth %", "of HBM, in percent of the GPU's own"),
    _percent("sram", "SRAM %", "shared memory of an SM, in percent of the GPU's own"),
    Field(name="sms", title="SMs", kind="int", default=1, lo=1, hi=MOST_SMS, help="streaming multiprocessors", steps=(1, 2)),
)


class WhatIfControls(QWidget):
    """Hidden where the device is real. `changed` carries the id of the GPU that the sliders describe."""

    changed = Signal(str)
    drag_began = Signal()

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._shown = WhatIf("")
        self.base: Device | None = None     # what is known of the GPU's own figures
        self._labels: dict[str, QLabel] = {}
        rows = QGridLayout(self)
        rows.setContentsMargins(0, 4, 0, 0)
        rows.setVerticalSpacing(2)
        rows.setHorizontalSpacing(8)
        rows.setColumnStretch(1, 1)
        self.controls: dict[str, IntControl] = {}
        for place, field in enumerate(FIELDS):
            control = IntControl(field, theme)
            control.setProperty("field", field.name)
            control.changed.connect(self._changed)
            control.slider.sliderPressed.connect(self.drag_began)
            label = QLabel(field.title)
            label.setBuddy(control)
            rows.addWidget(label, place, 0)
            rows.addWidget(control, place, 1)
            self.controls[field.name], self._labels[field.name] = control, label
        self.setAccessibleName("What if")
        self.hide()

    @property
    def dragging(self) -> bool:
        """Whether a slider is held."""
        return any(control.dragging for control in self.controls.values())

    def show_device(self, device: str, base: Device | None) -> None:
        """Shows what differs of a device, without saying that it changed. `base`: what is known of the GPU's own figures."""
        self.setVisible(simulated(device))
        if not simulated(device):
            return
        self._shown, self.base = what_if(device), base
        own = (base.sms if base else None) or 1
        for widget in (self.controls["sms"], self._labels["sms"]):
            widget.setVisible(base is not None)
        self.controls["sms"].set_steps(sorted({max(1, min(MOST_SMS, own * part // 8)) for part in EIGHTHS}))
        for name in ("clock", "bandwidth", "sram"):
            self.controls[name].show_value(getattr(self._shown, name))
        self.controls["sms"].show_value(own if self._shown.sms is None else self._shown.sms)

    def set_theme(self, theme: Theme) -> None:
        """Colours of the sliders."""
        for control in self.controls.values():
            control.set_theme(theme)

    @Slot(int)
    def _changed(self, value: int) -> None:
        self._shown = self._shown.changed(self.sender().property("field"), value, self.base)
        self.changed.emit(self._shown.id)
