"""The main window: device strip above, controls at the left, the lab in the middle, inspector at the right, status below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QByteArray, QEvent, QObject, Qt, Signal, Slot
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QApplication, QLabel, QMainWindow, QToolBar, QVBoxLayout, QWidget

from app import settings
from app.actions import actions
from app.configuration import AnyConfiguration
from app.desk import Desk
from app.docks import Docks
from app.export import dropped_path
from app.files import Files
from app.frames import Frames
from app.keys import keeps
from app.layouts import Layouts
from app.live import Live
from app.menus import Menus
from app.palette import Palette
from app.panels.banner import Banner
from app.panels.device_strip import DeviceStrip
from app.panels.form import Form
from app.panels.inspector import Inspector
from app.panels.log import Log
from app.player import Player
from app.run import Run
from app.settings import Settings
from app.status import status
from app.store import Snapshot
from app.theme import THEMES, Theme
from engine.client import ClientError
from engine.protocol import BatchingPlanned, DecodingPlanned, Event, Fault, Hello, Planned, Refused

if TYPE_CHECKING:
    from app.labs.lab import LabView

NOTICE_MS = 6000


class Window(QMainWindow):
    """The shell is painted first; `furnish` builds the lab, `connect_engine` opens an engine.

    `measured` is emitted with each batch of events that has been taken in and drawn.

    Args:
        kept: what was kept from earlier starts; saved to `keep_at` when the window closes, where that is given.
        asked, shown: see Desk.
    """

    measured = Signal()

    def __init__(
        self, theme: Theme, *, url: str = "local:", kept: Settings | None = None, keep_at: Path | None = None,
        asked: dict[str, Any] | None = None, shown: AnyConfiguration | None = None, record_to: Path | None = None,
        lab: str = "attention",
    ) -> None:
        super().__init__()
        self.theme, self.settings = theme, kept or Settings()
        self._keep_at = keep_at
        self._played: set[str] = set()  # labs whose stage has begun to move
        self.live = Live(url, record_to, self)
        self.frames = Frames(self._draw, self)
        self.files = Files(self)
        self.desk = Desk(self.live, self.settings, shown.lab if shown is not None else lab, asked or {}, shown)
        self.player = Player(self.desk, self.settings)
        self.strip, self.banner = DeviceStrip(theme), Banner()
        self.inspector, self.log, self.status = Inspector(theme), Log(), QLabel("starting")
        self._lay_out()
        self.docks = Docks(self, {"controls": self.desk.forms, "inspector": self.inspector, "log": self.log})
        self.layouts = Layouts(self.docks, self.desk, self.settings)
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
        if self.settings.geometry:
            self.restoreGeometry(QByteArray.fromBase64(self.settings.geometry.encode()))

    # --- building ---

    def _lay_out(self) -> None:
        top, body = QToolBar("Device"), QWidget()
        top.setObjectName("device")
        top.setMovable(False)
        top.addWidget(self.strip)
        top.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self.addToolBar(top)
        middle = QVBoxLayout(body)
        middle.setContentsMargins(0, 0, 0, 0)
        middle.setSpacing(0)
        middle.addWidget(self.banner)
        middle.addWidget(self.desk.views, 1)
        self.setCentralWidget(body)
        self.statusBar().addWidget(self.status, 1)
        self.statusBar().setSizeGripEnabled(False)

    def _connect(self) -> None:
        self.live.bridge.dirty.connect(self.frames.wake, Qt.ConnectionType.QueuedConnection)
        self.desk.chosen.connect(self._chosen)
        self.desk.told.connect(self.banner.tell)
        self.desk.picked.connect(self.inspector.show_step)
        self.desk.woke.connect(self.frames.wake)
        self.strip.go_live.connect(self.pause_view)
        application = QApplication.instance()
        assert application is not None
        application.installEventFilter(self)

    def furnish(self) -> None:
        """Builds the lab. Imports pyqtgraph, which takes a while: call it after the shell is painted."""
        self._show_lab(self.desk.lab_id)
        if (first := self.focusWidget()) is not None:  # Qt's choice, not the user's
            first.clearFocus()

    def open_lab(self, name: str) -> None:
        """Another lab, as it was left; the engine runs what is chosen there."""
        if self.desk.current is None or name == self.desk.lab_id:
            return
        if self.lab is not None and self.lab.is_full:
            self.lab.full_view(None)
        if self.live.paused:
            self.pause_view()
        self.layouts.keep()
        self._show_lab(name)
        self.desk.take_up(self.snapshot.hello)
        self.frames.wake()

    def _show_lab(self, name: str) -> None:
        self.desk.open(name, self.theme)
        self.inspector.show_step(self.desk.step)
        self.inspector.step.setVisible(self.player.stage is not None)
        if wrong := self.layouts.restore():
            self.banner.tell(wrong, "The first one serves")
        self.menus.refresh()
        self._show()

    def connect_engine(self) -> None:
        """Opens the engine; a live run begins when it answers. Raises: engine.client.ClientError."""
        self.live.connect_engine()
        self.frames.wake()

    @property
    def snapshot(self) -> Snapshot:
        """What is on screen."""
        return self.live.snapshot

    @property
    def lab_id(self) -> str:
        """Which lab is on screen."""
        return self.desk.lab_id

    @property
    def lab(self) -> LabView | None:
        """Its panels; None before they are built."""
        return self.desk.current.view if self.desk.current is not None else None

    @property
    def form(self) -> Form:
        """Its form. Raises: AssertionError before it is built."""
        assert self.desk.current is not None
        return self.desk.current.form

    @property
    def run(self) -> Run:
        """What is chosen in it. Raises: AssertionError before it is built."""
        assert self.desk.current is not None
        return self.desk.current.run

    def has_tiles(self) -> bool:
        """Whether there is a stage to play."""
        return self.player.stage is not None and self.desk.planned()

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

    def show_configuration(self, shown: AnyConfiguration) -> None:
        """Restores what a picture embeds: its lab, its theme, and what was chosen."""
        self.open_lab(shown.lab)
        self.set_theme(Theme.load(shown.theme if shown.theme in THEMES else self.theme.id))
        self.run.restore(shown, self.snapshot.hello)

    @Slot()
    def _chosen(self) -> None:
        self.menus.refresh()
        self.frames.wake()

    # --- frames ---

    def _draw(self, dt_s: float) -> bool:
        events = self.live.take_in()
        for event in events:
            self._hear(event)
        if self.desk.current is not None:
            self.run.configure()
        if events:
            self._show()
            self.measured.emit()
        if self.has_tiles() and self.lab_id not in self._played:  # something true moves soon after the start
            self._played.add(self.lab_id)
            if not self.settings.reduced_motion:
                self.player.toggle()
        moves = self.lab is not None and self.lab.advance(dt_s)
        return bool(events) or moves

    def _hear(self, event: Event) -> None:
        self.log.add(event)
        match event:
            case Hello():
                self.desk.greet(event)
            case Planned() | DecodingPlanned() | BatchingPlanned():
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
        if (now := self.desk.current) is None:
            return
        now.form.update_from(snapshot)
        if self.inspector.isVisible():
            self.inspector.show_facts(now.kind.inspected(snapshot))
        now.view.update_from(snapshot)
        self.status.setText(status(snapshot, now.kind.readings(snapshot), self.frames.per_second))

    def notice(self, text: str) -> None:
        """Something that went well, for some seconds."""
        self.statusBar().showMessage(text, NOTICE_MS)

    # --- the window itself ---

    def other_theme(self) -> None:
        """From dark to light and back."""
        self.set_theme(Theme.load(THEMES[1 - THEMES.index(self.theme.id)]))

    def set_theme(self, theme: Theme) -> None:
        """Colours and type of everything."""
        self.theme = theme
        self.setStyleSheet(theme.stylesheet())
        self.strip.set_theme(theme)
        self.inspector.set_theme(theme)
        self.desk.set_theme(theme)

    def open_palette(self) -> None:
        """Every action, to be found by some letters."""
        self.palette_view.open()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self.layouts.fold()
        if self.palette_view.isVisible():
            self.palette_view.open(self.palette_view.line.text())

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        if self._keep_at is not None:
            self.layouts.keep()
            self.settings.theme = self.theme.id
            self.settings.geometry = self.saveGeometry().toBase64().toStdString()
            if wrong := settings.save(self.settings, self._keep_at):
                print(wrong)
        self.hide()
        self.frames.end()
        self.desk.close()
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
