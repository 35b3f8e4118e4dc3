"""How the docks and the panels stand: kept per lab, folded where the window is narrow, as at the first start when asked."""

from __future__ import annotations

from app.desk import Desk
from app.docks import Docks
from app.settings import Layout, Settings


class Layouts:
    """The docks around the labs, and the panels within the one on screen."""

    def __init__(self, docks: Docks, desk: Desk, settings: Settings) -> None:
        self._docks, self._desk, self._settings = docks, desk, settings

    def restore(self) -> str:
        """As the lab on screen was left; a sentence where that cannot be read."""
        layout = self._settings.layouts.get(self._desk.lab_id, Layout())
        read = not layout.docks or self._docks.restore(layout.docks)
        self.fold()
        if self._desk.current is not None:
            self._desk.current.view.restore_layout(layout.splitter)
        return "" if read else "The kept layout cannot be read"

    def keep(self) -> None:
        """Into the settings: of the docks for the lab on screen, of the panels for each."""
        self._desk.keep()
        self._settings.layouts.setdefault(self._desk.lab_id, Layout()).docks = self._docks.state()

    def fold(self) -> None:
        """For the window's width."""
        self._docks.fold()
        self.arrange()

    def toggle(self, name: str) -> None:
        """Opens or closes a dock."""
        self._docks.toggle(name)
        self.arrange()

    def reset(self) -> None:
        """Docks and heights as at the first start."""
        self._docks.reset()
        if self._desk.current is not None:
            self._desk.current.view.restore_layout("")
        self.arrange()

    def arrange(self) -> None:
        """The panels, for the width that the docks leave."""
        if self._desk.current is not None:
            self._desk.current.view.arrange(self._docks.room())
