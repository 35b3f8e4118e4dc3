"""What every stage of a lab can do: play something step by step on one clock."""

from __future__ import annotations

from PySide6.QtCore import Signal, Slot
from PySide6.QtWidgets import QWidget

from app.theme import Theme


class Stage(QWidget):
    """`picked` carries the StepInfo of the step in focus; `woke` asks for frames, that is for calls of `advance`."""

    picked = Signal(object)
    woke = Signal()

    def set_theme(self, theme: Theme) -> None:
        """Colours and type of everything."""
        raise NotImplementedError

    def set_reduced_motion(self, on: bool) -> None:
        """Without anything that travels: steps alone."""
        raise NotImplementedError

    def advance(self, dt_s: float) -> bool:
        """A frame: True while something moves."""
        raise NotImplementedError

    @Slot()
    def toggle_play(self) -> None:
        """Plays or pauses; at the end it starts over."""
        raise NotImplementedError

    @Slot(int)
    def step(self, by: int) -> None:
        """Some steps on or back."""
        raise NotImplementedError

    @Slot(float)
    def seek(self, fraction: float) -> None:
        """To a fraction of its time."""
        raise NotImplementedError

    def summary(self) -> str:
        """One sentence for screen readers."""
        raise NotImplementedError
