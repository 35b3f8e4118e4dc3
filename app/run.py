"""What a lab has chosen, and runs: from its form, the command line, a picture or undo, to a command once a frame at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QObject, Signal, Slot

from app.configuration import AnyConfiguration
from app.history import History
from app.kind import Kind
from app.live import Live
from app.panels.form import Form
from engine.protocol import Hello


class Run(QObject):
    """`chosen` says that there is something to configure at the next frame. `told` carries a message and its advice.

    Args:
        kept: the choice of the last start, as settings keep it.
        asked: what of the first choice the command line decides.
        shown: a picture's configuration to restore.
    """

    chosen = Signal()
    told = Signal(str, str)

    def __init__(
        self, kind: Kind, live: Live, form: Form, *, kept: bytes | None, asked: Mapping[str, Any],
        shown: AnyConfiguration | None,
    ) -> None:
        super().__init__(live)
        self.live, self.form = live, form
        self.history = History(self._show)
        self._kind, self._kept, self._asked, self._restore = kind, kept, asked, shown
        self._pending = False
        form.edited.connect(self._edited)

    @property
    def choice(self) -> Any:
        """What is chosen; None before the engine has answered."""
        return self.history.current

    def greet(self, hello: Hello) -> None:
        """Begins with an engine that has answered; what was chosen before a restart stays chosen."""
        choice = self.history.current or self._first(hello)
        self.form.build(hello, choice)
        if self.history.current is None:
            self.history.begin(choice)
        if self._restore is not None:
            shown, self._restore = self._restore, None
            self.restore(shown, hello)
        self.begin()

    def begin(self) -> None:
        """Has the engine, which may have done something else meanwhile, run what is chosen."""
        self._pending = True
        self.configure()
        self.live.start()

    def restore(self, shown: AnyConfiguration, hello: Hello | None) -> None:
        """What a picture embeds, as one step that can be undone; waits for the engine where that has not answered."""
        if hello is None or self.history.current is None:
            self._restore = shown
            return
        choice, differs = self._kind.restored(shown, hello, self.history.current.device)
        self.history.choose(choice)
        if differs:
            self.told.emit("The picture was restored as far as this engine can", differs)

    def configure(self) -> None:
        """Sends what was chosen since the last call: a drag sends one a frame."""
        choice = self.history.current
        if not self._pending or choice is None:
            return
        self._pending = False
        if (lacks := choice.lacks()) is None:
            self.live.run(choice)
        else:
            self.live.stop()
            self.told.emit(*lacks)

    @Slot()
    def toggle(self) -> None:
        """Runs, or stops what runs."""
        phase = self.live.snapshot.phase
        self.live.start() if phase is None or phase.name in ("idle", "paused") else self.live.stop()

    @Slot(int)
    def _edited(self, drag: int) -> None:
        if (choice := self.form.choice) is not None:
            self.history.choose(choice, drag)

    def _show(self, choice: Any) -> None:
        if self.form.choice is not None and self.form.choice != choice:
            self.form.show_choice(choice)
        self._pending = True
        self.chosen.emit()

    def _first(self, hello: Hello) -> Any:
        kept = None if self._asked else self._kind.kept(self._kept, hello)
        return kept or self._kind.first(hello, self._asked, self.told.emit)
