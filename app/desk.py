"""The labs of a window: each is built when it is first opened, and keeps its form, its choices and its panels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from PySide6.QtCore import QObject, Qt, Signal, Slot
from PySide6.QtWidgets import QApplication, QLabel, QStackedWidget, QWidget

from app.configuration import AnyConfiguration
from app.kind import Kind
from app.labs.lab import Lab, LabView
from app.live import Live
from app.panels.form import WIDTH_PX, Form
from app.run import Run
from app.settings import Layout, Settings
from app.theme import Theme
from app.tiles.step_info import StepInfo
from engine.protocol import Hello


@dataclass(frozen=True)
class Opened:
    """A lab that has been opened."""

    lab: Lab
    view: LabView
    form: Form
    run: Run

    @property
    def kind(self) -> Kind:
        """What it runs."""
        return self.lab.kind


class Desk(QObject):
    """`opened` says that another lab is current. `chosen`, `told`, `picked` and `woke` are the current lab's.

    Args:
        asked, shown: of the lab that is opened first; see Run.
    """

    opened = Signal()
    chosen = Signal()
    told = Signal(str, str)
    picked = Signal(object)
    woke = Signal()

    def __init__(
        self, live: Live, settings: Settings, first: str, asked: Mapping[str, Any], shown: AnyConfiguration | None
    ) -> None:
        super().__init__(live)
        self.lab_id = first
        self.views, self.forms = QStackedWidget(), QStackedWidget()
        self._live, self._settings, self._asked, self._shown = live, settings, asked, shown
        self._opened: dict[str, Opened] = {}
        self._greeted: set[str] = set()
        self._steps: dict[str, StepInfo] = {}
        empty = QLabel("The tiles and the plots appear here.")
        empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        empty.setProperty("role", "muted")
        self.views.addWidget(empty)
        self.forms.addWidget(QLabel("  Controls appear here once the engine answers."))
        self.forms.setMinimumWidth(WIDTH_PX)

    @property
    def current(self) -> Opened | None:
        """The lab on screen; None before the first is built."""
        return self._opened.get(self.lab_id)

    def open(self, name: str, theme: Theme) -> None:
        """Shows a lab, built where it is new. Imports pyqtgraph: call it after the shell is painted."""
        if name not in self._opened:
            self._opened[name] = self._build(name, theme)
        self.lab_id = name
        now = self._opened[name]
        now.form.set_theme(theme)
        now.view.set_theme(theme)
        if now.view.theatre is not None:
            now.view.theatre.set_reduced_motion(self._settings.reduced_motion)
        self.forms.setCurrentWidget(now.form)
        self.views.setCurrentWidget(now.view)
        self.opened.emit()

    def greet(self, hello: Hello) -> None:
        """An engine has answered: the lab on screen begins, the others when they are opened."""
        self._greeted.clear()
        self.take_up(hello)

    def take_up(self, hello: Hello | None) -> None:
        """The lab on screen has the engine run its choice."""
        if (now := self.current) is None or hello is None:
            return
        if self.lab_id in self._greeted:
            now.run.begin()
        else:
            self._greeted.add(self.lab_id)
            now.run.greet(hello)

    def planned(self) -> bool:
        """Whether the engine has answered with a plan of the lab on screen."""
        return self.current is not None and self.current.kind.planned(self._live.snapshot)

    def configuration(self, theme: str) -> AnyConfiguration | None:
        """What an export of the lab on screen states; None before there is a plan."""
        if (now := self.current) is None:
            return None
        return now.kind.configuration(self._live.snapshot, self.lab_id, theme, self._live.choice)

    def set_theme(self, theme: Theme) -> None:
        """Of the lab on screen; another takes it when it is opened."""
        if (now := self.current) is not None:
            now.form.set_theme(theme)
            now.view.set_theme(theme)

    def keep(self) -> None:
        """What each opened lab has chosen, and how its panels share the height, into the settings."""
        for name, one in self._opened.items():
            if one.run.choice is not None:
                self._settings.choices[name] = msgspec.Raw(msgspec.json.encode(one.run.choice))
            layout = self._settings.layouts.setdefault(name, Layout())
            layout.splitter = one.view.layout_state()

    def close(self) -> None:
        """No lab has more to say: a history would speak when it is deleted."""
        for one in self._opened.values():
            one.run.history.stack.blockSignals(True)

    def _build(self, name: str, theme: Theme) -> Opened:
        from app.labs import load

        lab = load(name)
        view, form = lab.build(theme), lab.kind.form(theme)
        kept = self._settings.choices.get(name)
        run = Run(lab.kind, self._live, form, kept=None if kept is None else bytes(kept), asked=self._asked, shown=self._shown)
        self._asked, self._shown = {}, None     # they were the first lab's
        form.run_pressed.connect(run.toggle)
        run.chosen.connect(self.chosen)
        run.told.connect(self.told)
        run.history.stack.indexChanged.connect(self._stepped)
        view.picked.connect(self._picked)
        if view.theatre is not None:
            view.theatre.woke.connect(self.woke)
        self.views.addWidget(view)
        self.forms.addWidget(form)
        return Opened(lab, view, form, run)

    @property
    def step(self) -> StepInfo | None:
        """The step in focus on the stage of the lab on screen."""
        return self._steps.get(self.lab_id)

    @Slot(object)
    def _picked(self, step: StepInfo) -> None:
        self._steps[self.lab_id] = step
        self.picked.emit(step)

    @Slot(int)
    def _stepped(self, _: int) -> None:
        self.chosen.emit()

    # --- what actions do with the lab on screen ---

    def toggle_run(self) -> None:
        """Runs, or stops what runs."""
        if (now := self.current) is not None:
            now.run.toggle()

    def undo(self) -> None:
        """One step back in the choices of this lab."""
        if (now := self.current) is not None:
            now.run.history.stack.undo()

    def redo(self) -> None:
        """One step forth again."""
        if (now := self.current) is not None:
            now.run.history.stack.redo()

    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return self.current is not None and self.current.run.history.stack.canUndo()

    def can_redo(self) -> bool:
        """Whether there is a step to do again."""
        return self.current is not None and self.current.run.history.stack.canRedo()

    def panels(self) -> dict[str, QWidget]:
        """The panels by their titles."""
        return self.current.view.panels() if self.current is not None else {}

    def focused_panel(self) -> QWidget | None:
        """The panel that has the focus, else the one beneath the pointer."""
        focused, panels = QApplication.focusWidget(), list(self.panels().values())
        for panel in panels:
            if focused is not None and (panel is focused or panel.isAncestorOf(focused)):
                return panel
        return next((panel for panel in panels if panel.isVisible() and panel.underMouse()), None)

    def toggle_full_view(self) -> None:
        """The focused panel alone, or all again."""
        if (now := self.current) is not None:
            now.view.full_view(None if now.view.is_full else self.focused_panel())
