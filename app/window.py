"""The main window: device strip above, controls at the left, the lab in the middle, inspector at the right, status below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QByteArray, QEvent, QObject, Qt, Signal, Slot
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QApplication, QLabel, QMainWindow, QToolBar, QVBoxLayout, QWidget

from app import settings
from app.actions import actions
from app.configuration import Configuration
from app.docks import Docks
from app.export import dropped_path
from app.files import Files, focused_within
from app.frames import Frames
from app.keys import keeps
from app.live import Live
from app.menus import Menus
from app.palette import Palette
from app.panels.banner import Banner
from app.panels.controls import Controls
from app.panels.device_strip import DeviceStrip
from app.panels.inspector import Inspector
from app.panels.log import Log
from app.run import Run
from app.settings import Layout, Settings
from app.status import status
from app.store import Snapshot
from app.theme import THEMES, Theme
from engine.client import ClientError
from engine.protocol import Event, Fault, Hello, Planned, Refused

if TYPE_CHECKING:
    from app.labs.lab import LabView

NOTICE_MS = 6000


class Window(QMainWindow):
    """The shell is painted first; `furnish` builds the lab, `connect_engine` opens an engine.

    `measured` is emitted with each batch of events that has been taken in and drawn.

    Args:
        kept: what was kept from earlier starts; saved to `keep_at` when the window closes, where that is given.
        asked, shown: see Run.
    """

    measured = Signal()

    def __init__(
        self, theme: Theme, *, url: str = "local:", kept: Settings | None = None, keep_at: Path | None = None,
        asked: dict[str, Any] | None = None, shown: Configuration | None = None, record_to: Path | None = None,
        lab: str = "attention",
    ) -> None:
        super().__init__()
        self.theme, self.settings, self.lab_id = theme, kept or Settings(), lab
        self._keep_at, self._has_played = keep_at, False
        self.live = Live(url, record_to, self)
        self.frames = Frames(self._draw, self)
        self.files = Files(self)
        self.lab: LabView | None = None
        self.strip, self.controls, self.banner = DeviceStrip(theme), Controls(theme), Banner()
        self.inspector, self.log, self.status = Inspector(theme), Log(), QLabel("starting")
        self.run = Run(self.live, self.controls, kept=self.settings.choice, asked=asked or {}, shown=shown)
        self._lay_out()
        self.docks = Docks(self, {"controls": self.controls, "inspector": self.inspector, "log": self.log})
        self.menus = Menus(self, actions(self))
        self.toolbar = QToolBar("Toolbar")
        self.menus.fill(self.toolbar)
        self.menuBar().setCornerWidget(self.toolbar, Qt.Corner.TopRightCorner)
        self.palette_view = Palette(self.menus, self)
        self._connect()
        self.setWindowTitle("Tilescope")
        self.setMinimumSize(1024, 680)
        self.setAcceptDrops(True)
        self.set_theme(theme)
        self._restore_layout()

    # --- building ---

    def _lay_out(self) -> None:
        top, body = QToolBar("Device"), QWidget()
        top.setObjectName("device")
        top.setMovable(False)
        top.addWidget(self.strip)
        top.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self.addToolBar(top)
        self._middle = QVBoxLayout(body)
        self._middle.setContentsMargins(0, 0, 0, 0)
        self._middle.setSpacing(0)
        self._empty = QLabel("The tiles and the plots appear here.")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setProperty("role", "muted")
        self._middle.addWidget(self.banner)
        self._middle.addWidget(self._empty, 1)
        self.setCentralWidget(body)
        self.statusBar().addWidget(self.status, 1)
        self.statusBar().setSizeGripEnabled(False)

    def _connect(self) -> None:
        self.live.bridge.dirty.connect(self.frames.wake, Qt.ConnectionType.QueuedConnection)
        self.run.chosen.connect(self.frames.wake)
        self.run.history.stack.indexChanged.connect(self._step_changed)
        self.run.told.connect(self.banner.tell)
        self.controls.run_pressed.connect(self.run.toggle)
        self.strip.go_live.connect(self.pause_view)
        application = QApplication.instance()
        assert application is not None
        application.installEventFilter(self)

    def furnish(self) -> None:
        """Builds the lab. Imports pyqtgraph, which takes a while: call it after the shell is painted."""
        from app.labs import load

        lab = load(self.lab_id).build(self.theme)
        self._middle.replaceWidget(self._empty, lab)
        self._middle.setStretchFactor(lab, 1)
        self._empty.deleteLater()
        lab.picked.connect(self.inspector.show_step)
        if lab.theatre is not None:
            lab.theatre.set_reduced_motion(self.settings.reduced_motion)
            lab.theatre.woke.connect(self.frames.wake)
        self._empty.hide()
        self.lab = lab
        lab.show()
        self._arrange()
        lab.restore_layout(self.settings.layouts.get(self.lab_id, Layout()).splitter)
        self.menus.refresh()
        if (first := self.focusWidget()) is not None:  # Qt's choice, not the user's
            first.clearFocus()
        self._show()

    def connect_engine(self) -> None:
        """Opens the engine; a live run begins when it answers. Raises: engine.client.ClientError."""
        self.live.connect_engine()
        self.frames.wake()

    @property
    def snapshot(self) -> Snapshot:
        """What is on screen."""
        return self.live.snapshot

    def has_plan(self) -> bool:
        """Whether the engine has answered with a plan."""
        return bool(self.snapshot.plans)

    def has_tiles(self) -> bool:
        """Whether there is a theatre to play."""
        return self.lab is not None and self.lab.theatre is not None and self.has_plan()

    # --- the run ---

    @Slot()
    def cancel(self) -> None:
        """Closes what is open over the window; else stops the run."""
        if self.lab is not None and self.lab.is_full:
            self.lab.full_view(None)
        else:
            self.live.stop()

    @Slot()
    def restart_engine(self) -> None:
        """A new engine in a process of its own; what was drawn stays."""
        try:
            self.live.restart()
        except ClientError as error:
            self.banner.tell(str(error))
        self.frames.wake()

    @Slot()
    def pause_view(self) -> None:
        """Freezes the picture, never the sampling; again: back to now."""
        self.live.pause(not self.live.paused)
        self.menus.refresh()
        self._show()
        self.frames.wake()

    def show_configuration(self, shown: Configuration) -> None:
        """Restores what a picture embeds, its theme too."""
        self.set_theme(Theme.load(shown.theme if shown.theme in THEMES else self.theme.id))
        self.run.restore(shown, self.snapshot.hello)

    @Slot(int)
    def _step_changed(self, _: int) -> None:
        self.menus.refresh()

    # --- frames ---

    def _draw(self, dt_s: float) -> bool:
        events = self.live.take_in()
        for event in events:
            self._hear(event)
        self.run.configure()
        if events:
            self._show()
            self.measured.emit()
        if self.has_tiles() and not self._has_played:  # something true moves soon after the start
            self._has_played = True
            if not self.settings.reduced_motion:
                self.play_tiles()
        moves = self.lab is not None and self.lab.advance(dt_s)
        return bool(events) or moves

    def _hear(self, event: Event) -> None:
        self.log.add(event)
        match event:
            case Hello():
                self.run.greet(event)
            case Planned():
                self.menus.refresh()
            case Fault(fatal=True):
                self.banner.tell(event.message, event.remedy, event.details, ("Restart engine", self.restart_engine))
            case Fault():
                self.banner.tell(event.message, event.remedy, event.details)
            case Refused(kernel=""):
                self.banner.tell(event.reason)

    def _show(self) -> None:
        snapshot = self.snapshot
        self.strip.update_from(snapshot)
        self.controls.update_from(snapshot)
        if self.inspector.isVisible():
            self.inspector.update_from(snapshot)
        if self.lab is not None:
            self.lab.update_from(snapshot)
        self.status.setText(status(snapshot, self.frames.per_second))

    def notice(self, text: str) -> None:
        """Something that went well, for some seconds."""
        self.statusBar().showMessage(text, NOTICE_MS)

    # --- the tiles ---

    def play_tiles(self) -> None:
        """Plays or pauses the theatre."""
        if self.lab is not None and self.lab.theatre is not None:
            self.lab.theatre.toggle_play()
            self.frames.wake()

    def step_tiles(self, by: int) -> None:
        """Steps the theatre, back where `by` is negative."""
        if self.lab is not None and self.lab.theatre is not None:
            self.lab.theatre.step(by)
            self.frames.wake()

    def seek_tiles(self, fraction: float) -> None:
        """To a fraction of the theatre's time."""
        if self.lab is not None and self.lab.theatre is not None:
            self.lab.theatre.seek(fraction)
            self.frames.wake()

    def toggle_motion(self) -> None:
        """Whether tiles travel or only light up."""
        self.settings.reduced_motion = not self.settings.reduced_motion
        if self.lab is not None and self.lab.theatre is not None:
            self.lab.theatre.set_reduced_motion(self.settings.reduced_motion)

    # --- the window itself ---

    def other_theme(self) -> None:
        """From dark to light and back."""
        self.set_theme(Theme.load(THEMES[1 - THEMES.index(self.theme.id)]))

    def set_theme(self, theme: Theme) -> None:
        """Colours and type of everything."""
        self.theme = theme
        self.setStyleSheet(theme.stylesheet())
        self.strip.set_theme(theme)
        self.controls.set_theme(theme)
        self.inspector.set_theme(theme, self.snapshot)
        if self.lab is not None:
            self.lab.set_theme(theme)

    def params(self) -> dict[str, dict[str, int]]:
        """The kernel parameters that were set in the configuration on screen."""
        return self.live.params

    def panels(self) -> dict[str, QWidget]:
        """The lab's panels by their titles."""
        return self.lab.panels() if self.lab is not None else {}

    def focused_panel(self) -> QWidget | None:
        """The lab's panel that has the focus, else the one beneath the pointer."""
        return focused_within(list(self.panels().values()))

    def toggle_full_view(self) -> None:
        """The focused panel alone, or all again."""
        if self.lab is not None:
            self.lab.full_view(None if self.lab.is_full else self.focused_panel())

    def open_palette(self) -> None:
        """Every action, to be found by some letters."""
        self.palette_view.open()

    def toggle_dock(self, name: str) -> None:
        """Opens or closes a dock."""
        self.docks.toggle(name)
        self._arrange()
        self._show()

    def reset_layout(self) -> None:
        """Docks and heights as at the first start."""
        self.docks.reset()
        if self.lab is not None:
            self.lab.restore_layout("")
        self._arrange()

    def _restore_layout(self) -> None:
        layout = self.settings.layouts.get(self.lab_id, Layout())
        if layout.docks and not self.docks.restore(layout.docks):
            self.banner.tell("The kept layout cannot be read", "The first one serves")
        if self.settings.geometry:
            self.restoreGeometry(QByteArray.fromBase64(self.settings.geometry.encode()))

    def _keep(self) -> None:
        if self._keep_at is None:
            return
        kept = self.settings
        kept.theme, kept.choice = self.theme.id, self.run.choice or kept.choice
        kept.geometry = self.saveGeometry().toBase64().toStdString()
        splitter = self.lab.layout_state() if self.lab is not None else ""
        kept.layouts[self.lab_id] = Layout(docks=self.docks.state(), splitter=splitter)
        if wrong := settings.save(kept, self._keep_at):
            print(wrong)

    def _arrange(self) -> None:
        if self.lab is not None:
            docked = sum(panel.width() for name, panel in (("controls", self.controls), ("inspector", self.inspector))
                         if self.docks.shown(name))
            self.lab.arrange(self.width() - docked)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self.docks.fold(self.width())
        self._arrange()
        if self.palette_view.isVisible():
            self.palette_view.open(self.palette_view.line.text())

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        self._keep()
        self.hide()
        self.frames.end()
        self.run.history.stack.blockSignals(True)  # it has no more to say, and speaks when it is deleted
        if application := QApplication.instance():
            application.removeEventFilter(self)
        self.live.close()
        event.accept()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802
        if dropped_path(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        if (path := dropped_path(event.mimeData())) is not None:
            event.acceptProposedAction()
            self.files.restore(path)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """A key without modifiers belongs to the field that has the focus, where it means something there."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.ShortcutOverride and keeps(watched, event.key()):
            event.accept()
        return super().eventFilter(watched, event)
