"""What keys and menus do with the stage of the lab on screen: play, step, seek; and whether things move by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.desk import Desk
    from app.settings import Settings
    from app.tiles.stage import Stage


class Player:
    """Each does nothing where the lab has no stage. A stage asks for frames itself."""

    def __init__(self, desk: Desk, settings: Settings) -> None:
        self._desk, self._settings = desk, settings

    @property
    def stage(self) -> Stage | None:
        """The stage of the lab on screen."""
        return self._desk.current.view.theatre if self._desk.current is not None else None

    def toggle(self) -> None:
        """Plays or pauses."""
        if self.stage is not None:
            self.stage.toggle_play()
            self.stage.woke.emit()

    def step(self, by: int) -> None:
        """Steps, back where `by` is negative."""
        if self.stage is not None:
            self.stage.step(by)
            self.stage.woke.emit()

    def seek(self, fraction: float) -> None:
        """To a fraction of its time."""
        if self.stage is not None:
            self.stage.seek(fraction)
            self.stage.woke.emit()

    def toggle_motion(self) -> None:
        """Whether things travel or only light up."""
        self._settings.reduced_motion = not self._settings.reduced_motion
        if self.stage is not None:
            self.stage.set_reduced_motion(self._settings.reduced_motion)
