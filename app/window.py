"""The main window: device strip above, controls at the left, the lab in the middle, a status line below."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from PySide6.QtCore import QCoreApplication, Qt, Signal, Slot
from PySide6.QtGui import QAction, QCloseEvent, QKeySequence, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QMainWindow, QPushButton, QVBoxLayout, QWidget

from app import format
from app.bridge import Bridge
from app.frames import Frames
from app.panels.controls import Controls
from app.panels.device_strip import DeviceStrip
from app.store import Snapshot, Store
from app.theme import THEMES, Theme
from engine.client import Client
from engine.options import default_workload
from engine.protocol import Configure, Fault, Hello, Start, Stop, Workload

FIRST = ("naive", "flash", "sdpa_flash", "sdpa_cudnn")


class Banner(QFrame):
    """An error that blocks nothing: what happened, what to do, and the details to copy."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "panel")
        self._text, self._details = QLabel(""), ""
        self._text.setWordWrap(True)
        self._text.setProperty("role", "warning")
        copy, close = QPushButton("Copy details"), QPushButton("Dismiss")
        copy.clicked.connect(self._copy)
        close.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.addWidget(self._text, 1)
        row.addWidget(copy)
        row.addWidget(close)
        self.hide()

    def tell(self, message: str, remedy: str = "", details: str = "") -> None:
        """Shows a message until it is dismissed."""
        sentence = message if message.endswith((".", "?")) else f"{message}."
        self._text.setText(f"⚠ {sentence} {remedy}")
        self._details = f"{sentence} {remedy}\n{details}"
        self.show()

    @property
    def text(self) -> str:
        return self._text.text()

    @Slot()
    def _copy(self) -> None:
        from PySide6.QtGui import QGuiApplication

        QGuiApplication.clipboard().setText(self._details)


class Window(QMainWindow):
    """The shell is painted first; `furnish` builds the plots, `connect_engine` opens an engine.

    `measured` is emitted with each batch of events that has been taken in.
    """

    measured = Signal()

    def __init__(self, theme: Theme, *, url: str = "local:", options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.theme, self._url, self._options = theme, url, options or {}
        self.store, self.snapshot = Store(), Snapshot()
        self.bridge, self.client = Bridge(self), None
        self.client: Client | None
        self._generation, self._dirty_form, self._fault, self._live = 0, False, None, True
        self._fault: Fault | None
        self.lab: Any = None
        self.strip, self.controls, self.banner = DeviceStrip(theme), Controls(theme), Banner()
        self.status = QLabel("starting")
        self._middle = QVBoxLayout()
        self._empty = QLabel("Plots appear here once the engine answers.")
        self.frames = Frames(self._draw, self)
        self._lay_out()
        self._add_actions()
        self.bridge.dirty.connect(self.frames.wake, Qt.ConnectionType.QueuedConnection)
        self.setWindowTitle("Tilescope")
        self.setMinimumSize(900, 600)
        self.set_theme(theme)

    # --- building ---

    def furnish(self) -> None:
        """Builds the lab. Imports pyqtgraph, which takes a while: call it after the shell is painted."""
        from app.labs.attention import AttentionLab

        self.lab = AttentionLab(self.theme)
        self._middle.removeWidget(self._empty)
        self._empty.deleteLater()
        self._middle.addWidget(self.lab, 1)
        self.lab.arrange(self.width() - self.controls.width())
        self.lab.update_from(self.snapshot)

    def connect_engine(self) -> None:
        """Opens the engine and begins a live run. Raises: engine.client.ClientError."""
        self.client = self.bridge.open(self._url)
        self.frames.wake()

    def _lay_out(self) -> None:
        body, left = QWidget(), QHBoxLayout()
        column = QVBoxLayout(body)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        left.setSpacing(0)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._middle.addWidget(self._empty, 1)
        left.addWidget(self.controls)
        left.addLayout(self._middle, 1)
        self.status.setProperty("role", "muted")
        self.status.setContentsMargins(12, 4, 12, 4)
        column.addWidget(self.strip)
        column.addWidget(self.banner)
        column.addLayout(left, 1)
        column.addWidget(self.status)
        self.setCentralWidget(body)
        self.controls.edited.connect(self._edited)
        self.controls.device_picked.connect(self._device_picked)
        self.controls.run_pressed.connect(self.toggle_run)
        self.strip.go_live.connect(self.go_live)

    def _add_actions(self) -> None:
        menu = self.menuBar().addMenu("Run")
        view = self.menuBar().addMenu("View")
        for title, keys, where, run in (
            ("Stop", "Esc", menu, self.stop), ("Quit", "Ctrl+Q", menu, self.close),
            ("Pause view", "Space", view, self.pause_view), ("Other theme", "Ctrl+T", view, self.other_theme),
        ):
            action = QAction(title, self)
            action.setShortcut(QKeySequence(keys))
            action.triggered.connect(run)
            where.addAction(action)

    # --- what the user does ---

    @Slot()
    def toggle_run(self) -> None:
        """Runs, or stops what runs."""
        self.stop() if self.controls.run.text() == "Stop" else self._send(Start())

    @Slot()
    def stop(self) -> None:
        """Stops the run."""
        self._send(Stop())

    @Slot()
    def pause_view(self) -> None:
        """Freezes the picture, never the sampling; again: back to now."""
        self._live = not self._live
        self.frames.wake()

    @Slot()
    def go_live(self) -> None:
        """Back to now."""
        self._live = True
        self.frames.wake()

    @Slot()
    def other_theme(self) -> None:
        """From dark to light and back."""
        self.set_theme(Theme.load(THEMES[1 - THEMES.index(self.theme.id)]))

    def set_theme(self, theme: Theme) -> None:
        """Colours and type of everything."""
        self.theme = theme
        self.setStyleSheet(theme.stylesheet())
        self.strip.set_theme(theme)
        self.controls.set_theme(theme)
        if self.lab is not None:
            self.lab.set_theme(theme)

    @Slot()
    def _edited(self) -> None:
        self._dirty_form = True  # sent with the next frame, so that a drag sends one a frame
        self.frames.wake()

    @Slot(str)
    def _device_picked(self, device: str) -> None:
        assert self.snapshot.hello
        chosen = next(d for d in self.snapshot.hello.devices if d.id == device)
        self.controls.show_values(msgspec.to_builtins(default_workload(chosen)))
        self._edited()

    def _send(self, command: Any) -> None:
        if self.client is not None:
            self.client.send(command)

    # --- frames ---

    def _draw(self, dt_s: float) -> bool:  # noqa: ARG002
        events = self.client.poll() if self.client else []
        for event in events:
            self.store.reduce(event)
            if isinstance(event, Hello):
                self._greet(event)
            elif isinstance(event, Fault):
                self.banner.tell(event.message, event.remedy, event.details)
        if self._dirty_form:
            self._dirty_form = False
            self._configure()
        if events and self._live:
            self.snapshot = self.store.snapshot()
            self._show(self.snapshot)
        if events:
            self.measured.emit()
        return bool(events)

    def _greet(self, hello: Hello) -> None:
        device = next((d for d in hello.devices if d.id == self._options.get("device")), hello.devices[0])
        workload = self._options.get("workload") or default_workload(device)
        wanted: Sequence[str] = self._options.get("kernels") or [
            k for k in FIRST if device.kind == "cuda" or k != "sdpa_cudnn"]
        values = msgspec.to_builtins(workload)
        values.pop("type", None)
        self.controls.build(hello, device.id, values, wanted)
        self._configure()
        self._send(Start())

    def _configure(self) -> None:
        kernels = self.controls.chosen_kernels()
        if not kernels:
            self.banner.tell("No kernel is chosen", "Tick at least one.")
            return
        try:
            workload = msgspec.convert({"type": "attention", **self.controls.values}, Workload)
        except msgspec.ValidationError as error:
            self.banner.tell(str(error))
            return
        self._generation += 1
        self._send(Configure(
            generation=self._generation, device=self.controls.devices.currentData(), workload=workload, kernels=kernels))

    def _show(self, snapshot: Snapshot) -> None:
        self.strip.update_from(snapshot)
        self.controls.update_from(snapshot)
        if self.lab is not None:
            self.lab.update_from(snapshot)
        self.status.setText(self._status(snapshot))

    def _status(self, snapshot: Snapshot) -> str:
        parts = []
        if snapshot.phase is not None:
            phase = snapshot.phase
            parts.append(f"{phase.name} {phase.done} of {phase.total}" if phase.total else phase.name)
        passed = [c for c in snapshot.checks.values() if c.ok]
        if passed:
            parts.append(f"check passed ({format.error(max(c.max_error for c in passed))})")
        if snapshot.workload:
            parts.append(snapshot.workload.dtype)
        counts = [s.n for name in snapshot.plans if (s := snapshot.shown(name))]
        if counts:
            parts += ["warm L2", f"median of {min(counts)}" if min(counts) == max(counts) else
                      f"median of {min(counts)} to {max(counts)}", "measured"]
        if rate := self.frames.per_second:
            parts.append(f"{rate:.0f} frames/s")
        return " · ".join(parts)

    # --- the window itself ---

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        if self.lab is not None:
            self.lab.arrange(self.width() - self.controls.width())

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        self.hide()
        self.frames.stop()
        if self.client is not None:
            self.client.close(1.0)
            self.client = None
        event.accept()

    def save_picture(self, path: Path) -> Path:
        """The window as a PNG, under a new name where that one is taken. Raises: OSError."""
        free, number = path, 2
        while free.exists():
            free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
        part = free.with_suffix(".part")
        if not self.grab().save(str(part), "PNG"):
            raise OSError(f"cannot write {free}: choose another folder")
        return part.rename(free)


def spend(seconds: float) -> None:
    """Runs the event loop for some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QCoreApplication.processEvents()
        time.sleep(0.002)
