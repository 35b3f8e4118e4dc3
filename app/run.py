"""What is chosen, and runs: from the form, the command line, a picture or undo, to a Configure once a frame at most."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from PySide6.QtCore import QObject, Signal, Slot

from app.choice import Choice, first_choice, fitted, restored
from app.configuration import Configuration
from app.history import History
from app.live import Live
from app.panels.controls import Controls
from engine.options import BadInput, default_workload, params_from, workload_from
from engine.protocol import Hello


class Run(QObject):
    """`chosen` says that there is something to configure at the next frame. `told` carries a message and its advice.

    Args:
        kept: the choice of the last start.
        asked: `device`, `kernels` and `options` (those of a workload) as the command line has them.
        shown: a picture's configuration to restore.
    """

    chosen = Signal()
    told = Signal(str, str)

    def __init__(
        self, live: Live, controls: Controls, *, kept: Choice | None, asked: dict[str, Any], shown: Configuration | None
    ) -> None:
        super().__init__(live)
        self.live, self.controls = live, controls
        self.history = History(self._show)
        self._kept, self._asked, self._restore = kept, asked, shown
        self._pending = False
        controls.edited.connect(self._edited)

    @property
    def choice(self) -> Choice | None:
        """What is chosen; None before the engine has answered."""
        return self.history.current

    def greet(self, hello: Hello) -> None:
        """Begins with an engine that has answered; what was chosen before a restart stays chosen."""
        choice = self.history.current or self._first(hello)
        self.controls.build(hello, choice)
        if self.history.current is None:
            self.history.begin(choice)
        if self._restore is not None:
            shown, self._restore = self._restore, None
            self.restore(shown, hello)
        self._pending = True
        self.configure()
        self.live.start()

    def restore(self, shown: Configuration, hello: Hello | None) -> None:
        """What a picture embeds, as one step that can be undone; waits for the engine where that has not answered."""
        if hello is None or self.history.current is None:
            self._restore = shown
            return
        choice, differs = restored(shown, hello, self.history.current.device)
        self.history.choose(choice)
        if differs:
            self.told.emit("The picture was restored as far as this engine can", differs)

    def configure(self) -> None:
        """Sends what was chosen since the last call: a drag sends one a frame."""
        choice = self.history.current
        if not self._pending or choice is None:
            return
        self._pending = False
        if choice.kernels:
            self.live.run(choice)
        else:
            self.live.stop()
            self.told.emit("No kernel is chosen", "Tick at least one")

    @Slot()
    def toggle(self) -> None:
        """Runs, or stops what runs."""
        phase = self.live.snapshot.phase
        self.live.start() if phase is None or phase.name in ("idle", "paused") else self.live.stop()

    @Slot(int)
    def _edited(self, drag: int) -> None:
        if (choice := self.controls.choice) is not None:
            self.history.choose(choice, drag)

    def _show(self, choice: Choice) -> None:
        if self.controls.choice is not None and self.controls.choice != choice:
            self.controls.show_choice(choice)
        self._pending = True
        self.chosen.emit()

    def _first(self, hello: Hello) -> Choice:
        wanted = self._asked.get("device")
        kept = self._kept and fitted(self._kept, hello)
        if kept and not self._asked:
            return kept
        device = next((device for device in hello.devices if device.id == wanted), None)
        if wanted and device is None:
            self.told.emit(f"There is no device {wanted!r} here", f"There are {', '.join(d.id for d in hello.devices)}")
        device = device or hello.devices[0]
        options = self._asked.get("options", {})
        choice = first_choice(device, workload_from(options, default_workload(device)))
        choice = replace(choice, kernels=self._asked.get("kernels", choice.kernels))
        try:
            choice.params.update(params_from(options, [info for info in hello.kernels if info.id in choice.kernels]))
        except BadInput as error:
            self.told.emit(str(error), "")
        return choice
