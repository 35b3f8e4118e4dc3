"""What every lab is: a title, and a view of panels that the window fills, themes, arranges and saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from app.kind import Kind
from app.store import Snapshot
from app.theme import Theme
from app.tiles.stage import Stage


@dataclass(frozen=True)
class Lab:
    """One lab. `build` makes its view; `kind` is what it runs."""

    id: str
    title: str
    build: Callable[[Theme], LabView]
    kind: Kind


class LabView(QWidget):
    """The middle of the window. `picked` carries the step in focus, for the inspector."""

    picked = Signal(object)

    @property
    def theatre(self) -> Stage | None:
        """The stage that plays something step by step, where the lab has one."""
        return None

    def update_from(self, snapshot: Snapshot) -> None:
        """Draws what is visible."""
        raise NotImplementedError

    def advance(self, dt_s: float) -> bool:
        """Time passes for what moves by itself; True while something does."""
        raise NotImplementedError

    def set_theme(self, theme: Theme) -> None:
        """Colours of every panel."""
        raise NotImplementedError

    def arrange(self, width: int) -> None:
        """Lays the panels out for a width in pixels."""
        raise NotImplementedError

    def panels(self) -> dict[str, QWidget]:
        """The panels by their titles."""
        raise NotImplementedError

    def full_view(self, panel: QWidget | None) -> None:
        """One panel in the place of all, or all again."""
        raise NotImplementedError

    @property
    def is_full(self) -> bool:
        """Whether one panel stands in the place of all."""
        raise NotImplementedError

    def layout_state(self) -> str:
        """How the panels share the height, for `restore_layout`."""
        raise NotImplementedError

    def restore_layout(self, state: str) -> None:
        """As `state` said; empty: as at the first start."""
        raise NotImplementedError
