"""The tile theatre: one or two kernels played tile by tile on one clock, and the bar that plays them."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import Qt, Slot
from PySide6.QtGui import QFocusEvent, QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app import format as fmt
from app.theme import Theme
from app.tiles.fills import Fills
from app.tiles.ledger import Unit
from app.tiles.playback import DEFAULT_SPEED, TOGETHER, Playback
from app.tiles.scene import Scene
from app.tiles.stage import Stage
from app.tiles.step_info import StepInfo, describe
from app.tiles.track import MOST_STEPS, KernelTrack
from app.tiles.transport import Transport, wave_text
from app.tiles.view import View, view_of
from engine.protocol import KernelPlan, Predicted
from kernels.contract import AttentionWorkload, Device

EMPTY = "The tiles appear once a kernel is planned that this device can run."
SCENES = 2
TRAVEL_S = 0.35         # at most


class Theatre(Stage):
    """The stage of the kernels' schedules."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._reduced, self._chosen, self._speed = False, 0, float(DEFAULT_SPEED)
        self._playback: Playback | None = None
        self._device: Device | None = None
        self._planned: tuple[object, ...] = ()
        self._tracks: list[KernelTrack] = []
        self._shown: tuple[object, ...] = ()
        self._fills: list[Fills] = []
        self._info: StepInfo | None = None
        self.scenes = [Scene(theme, index) for index in range(SCENES)]
        self.transport = Transport(theme)
        self._stage = QWidget()
        self._empty, self.note = QLabel(EMPTY), QLabel("")
        self._lay_out()
        self._wire()
        self._show_what_is_there([])
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Tile theatre")
        self.setAccessibleDescription(EMPTY)

    # --- what it is told ---

    def show_plans(
        self, plans: list[KernelPlan], device: Device, workload: AttentionWorkload, titles: Mapping[str, str] | None = None,
        predictions: Mapping[str, Predicted] | None = None,
    ) -> None:
        """Puts the first two kernels that have a schedule on the stage; the clock stays at the same fraction of its length.

        Where all that are played are predicted, their clock is that of the predictions.
        """
        planned = (tuple(plans), device, workload)
        if planned != self._planned:
            self._planned = planned
            self._tracks = [KernelTrack(plan, plan.schedule, device) for plan in plans if plan.schedule is not None]
        tracks = self._tracks
        played = [track for track in tracks if 0 < track.longest_program <= MOST_STEPS][:SCENES]
        told = [(predictions or {}).get(track.plan.kernel) for track in played]
        foretold = [one for one in told if one is not None and one.launches]
        shown = (*planned, tuple(foretold) if len(foretold) == len(played) else ())
        if shown == self._shown:
            return
        self._shown, self._device = shown, device
        if foretold and len(foretold) == len(played):
            played = [KernelTrack(track.plan, track.schedule, device, one) for track, one in zip(played, foretold, strict=True)]
        drawn = [track.plan for track in played]
        before = self._playback
        self._playback = Playback(played) if played else None
        if self._playback is not None:
            self._playback.speed = self._speed
            if before is not None and [track.plan.kernel for track in before.tracks] == [track.plan.kernel for track in played]:
                self._playback.slots = list(before.slots)   # who is followed
            if before is not None and before.length:
                self._playback.seek(before.now / before.length)
                self._playback.playing = before.playing
            self._fills = [Fills(track) for track in self._playback.tracks]
            self._reserve(self._playback)
            unit = Unit.of(self._playback.tracks)
            for scene in self.scenes:
                scene.set_unit(unit)
        self._chosen = min(self._chosen, max(len(drawn) - 1, 0))
        self.note.setText(_note(plans, drawn, titles or {}, {track.plan.kernel: track.longest_program for track in tracks}))
        self._show_what_is_there(drawn)
        self._refresh()

    def set_theme(self, theme: Theme) -> None:
        """Colours and type of everything."""
        for scene in self.scenes:
            scene.set_theme(theme)
        self.transport.set_theme(theme)

    def set_reduced_motion(self, on: bool) -> None:
        """Without travelling tiles: steps alone."""
        self._reduced = on
        if on:
            for scene in self.scenes:
                scene.rest()

    def advance(self, dt_s: float) -> bool:
        """A frame: True while something moves."""
        playback = self._playback
        if playback is None:
            return False
        travelling = [scene.advance(dt_s) for scene in self.scenes]
        steps = playback.advance(dt_s)
        if steps:
            self._refresh(travel=steps == 1)
        elif not playback.playing:
            self.transport.show_playing(False)
        return playback.playing or any(travelling) or any(scene.travelling for scene in self.scenes)

    # --- what the user does ---

    @Slot()
    def toggle_play(self) -> None:
        """Plays or pauses; at the end it starts over."""
        playback = self._playback
        if playback is None:
            return
        if not playback.playing and playback.ended:
            playback.seek(0.0)
        playback.playing = not playback.playing
        self._refresh()
        self.woke.emit()

    @Slot(int)
    def step(self, by: int) -> None:
        """Some steps on or back."""
        if self._playback is None:
            return
        self._playback.playing = False
        self._playback.step(by)
        self._refresh(travel=by == 1)
        self.woke.emit()

    @Slot(float)
    def seek(self, fraction: float) -> None:
        """To a fraction of the scheduled time."""
        if self._playback is None:
            return
        self._playback.seek(fraction)
        self._refresh()

    @Slot(float)
    def set_speed(self, factor: float) -> None:
        """Steps a second."""
        self._speed = factor
        if self._playback is not None:
            self._playback.speed = factor
        self.transport.show_speed(factor)

    @Slot(int)
    def choose_program(self, index: int) -> None:
        """Follows a program of the chosen kernel's current launch, from 0, from its first step."""
        if self._playback is None:
            return
        self._playback.follow(self._chosen, index)
        self._refresh(travel=True)
        self.woke.emit()

    def summary(self) -> str:
        """One sentence for screen readers."""
        said = [scene.summary() for scene in self._drawn()]
        return " ".join(said) if said else self.note.text() or EMPTY

    def focusInEvent(self, event: QFocusEvent) -> None:  # noqa: N802
        super().focusInEvent(event)
        self._mark()

    def focusOutEvent(self, event: QFocusEvent) -> None:  # noqa: N802
        super().focusOutEvent(event)
        self._mark()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        match event.key():
            case Qt.Key.Key_Comma:
                self.step(-1)
            case Qt.Key.Key_Period:
                self.step(1)
            case Qt.Key.Key_Home:
                self.seek(0.0)
            case Qt.Key.Key_End:
                self.seek(1.0)
            case _:
                super().keyPressEvent(event)

    # --- inside ---

    def _lay_out(self) -> None:
        column, row = QVBoxLayout(self), QHBoxLayout(self._stage)
        row.setContentsMargins(0, 0, 0, 0)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        row.setSpacing(8)
        for scene in self.scenes:
            row.addWidget(scene, 1)
        for label in (self._empty, self.note):
            label.setProperty("role", "muted")
            label.setWordWrap(True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column.addWidget(self._empty, 1)
        column.addWidget(self._stage, 1)
        column.addWidget(self.note)
        column.addWidget(self.transport)
        self.setMinimumHeight(300)

    def _wire(self) -> None:
        bar = self.transport
        bar.stepped.connect(self.step)
        bar.sought.connect(self.seek)
        bar.play_pressed.connect(self.toggle_play)
        bar.speed_picked.connect(self.set_speed)
        bar.program_picked.connect(self.choose_program)
        for scene in self.scenes:
            scene.pressed.connect(self._choose)
            scene.program_picked.connect(self._picked_in)

    @Slot(int, int)
    def _picked_in(self, kernel: int, program: int) -> None:
        self._choose(kernel)
        self.choose_program(program)

    @Slot(int)
    def _choose(self, kernel: int) -> None:
        """The kernel that program choice and inspector are about."""
        self.setFocus(Qt.FocusReason.MouseFocusReason)
        if kernel != self._chosen:
            self._chosen = kernel
            self._refresh()

    def _mark(self) -> None:
        """Shows which kernel is chosen, and that the keys go there."""
        several = len(self._drawn()) > 1
        for i, scene in enumerate(self.scenes):
            scene.set_marks(i == self._chosen and several, i == self._chosen and self.hasFocus())

    def _drawn(self) -> list[Scene]:
        return self.scenes[: len(self._playback.tracks)] if self._playback is not None else []

    def _show_what_is_there(self, drawn: list[KernelPlan]) -> None:
        for i, scene in enumerate(self.scenes):
            scene.setVisible(i < len(drawn))
        self._stage.setVisible(bool(drawn))
        self._empty.setVisible(not drawn)
        self._empty.setText(self.note.text() or EMPTY)
        self.note.setVisible(bool(drawn) and bool(self.note.text()))
        self.transport.setEnabled(bool(drawn))

    def _view(self, kernel: int) -> View:
        playback, device = self._playback, self._device
        assert playback is not None
        assert device is not None
        track = playback.tracks[kernel]
        return view_of(track, self._fills[kernel], device, playback.place(kernel), playback.finished(kernel),
                       self._time(playback.time(kernel)) if playback.timed else "")

    def _time(self, value: float) -> str:
        """Scheduled time, or bytes where the bandwidth is not known."""
        assert self._playback is not None
        return fmt.quantity(value, "s") if self._playback.timed else fmt.bytes_iec(value)

    def _reserve(self, playback: Playback) -> None:
        """Room in the bar for the widest readings."""
        launches = [launch for track in playback.tracks for launch in track.launches]
        widest = "888.8 µs" if playback.timed else "888.8 MiB"
        self.transport.reserve(f"{widest} of {self._time(playback.length)} · {playback.provenance}",
                               max(launch.launch.programs for launch in launches), max(launch.waves for launch in launches))

    def _refresh(self, travel: bool = False) -> None:
        """Shows where the clock stands."""
        playback = self._playback
        if playback is None:
            self.setAccessibleDescription(self.summary())
            return
        travel = travel and not self._reduced and playback.speed <= TOGETHER
        seconds = min(TRAVEL_S, 0.6 / playback.speed) if travel else 0.0
        views = [self._view(kernel) for kernel in range(len(playback.tracks))]
        for scene, view in zip(self.scenes, views, strict=False):
            scene.show_view(view, seconds)
        self._mark()
        self._show_bar(playback, views[self._chosen])
        info = describe(views[self._chosen])
        if info != self._info:
            self._info = info
            self.picked.emit(info)
        self.setAccessibleDescription(self.summary())

    def _show_bar(self, playback: Playback, view: View) -> None:
        now, length = playback.now, playback.length
        self.transport.show_time(now / length if length else 0.0,
                                 f"{self._time(now)} of {self._time(length)} · {playback.provenance}")
        self.transport.show_program(view.track.schedule.kernel, view.place.program, view.launch.launch.programs,
                                    wave_text(view.place.wave, view.launch.waves))
        self.transport.show_playing(playback.playing)


def _note(plans: list[KernelPlan], drawn: list[KernelPlan], titles: Mapping[str, str], steps: Mapping[str, int]) -> str:
    """Which kernels are not drawn, and why. `steps`: of the longest program of each that has a schedule."""
    named = {plan.kernel: titles.get(plan.kernel, plan.kernel) for plan in plans if plan not in drawn}
    opaque = [name for kernel, name in named.items() if kernel not in steps]
    endless = [kernel for kernel in named if steps.get(kernel, 0) > MOST_STEPS]
    more = [name for kernel, name in named.items() if kernel in steps and kernel not in endless]
    said = []
    if opaque:
        said.append(f"{', '.join(opaque)}: opaque, no schedule is known and no tiles are drawn.")
    said += [f"{named[kernel]}: a program takes {fmt.count(steps[kernel])} steps and "
             f"{fmt.count(MOST_STEPS)} can be played: a shorter row can." for kernel in endless]
    if more:
        said.append(f"{', '.join(more)}: not drawn, the stage holds two kernels.")
    return " ".join(said)
