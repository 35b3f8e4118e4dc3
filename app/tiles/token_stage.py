"""The stage of the decode lab: with its cache and without, token by token on one clock; and the pages of a paged cache."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt, Slot
from PySide6.QtGui import QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app import format as fmt
from app.decoding.facts import compared, titles
from app.decoding.state import DecodeState
from app.theme import Theme
from app.tiles.page_scene import PageScene
from app.tiles.stage import Stage
from app.tiles.step_info import StepInfo
from app.tiles.token_scene import Side, TokenScene, legend
from app.tiles.tokens import DEFAULT_SPEED, PROMPT, SPEEDS, STEPS, TOKENS, Clock, counts, row
from app.tiles.transport import Transport
from engine.protocol import LanePlan

EMPTY = "What each step computes, computes again and reads from the cache is played here once a decoding is planned."
LEGEND = 20


class Legend(QWidget):
    """What the cells mean."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self.theme = theme
        self.setFixedHeight(LEGEND)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        legend(QPainter(self), self.theme, QRectF(self.rect()))


class TokenStage(Stage):
    """Two grids beside each other, and the block table where a lane is paged."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._clock, self._state = Clock(), DecodeState()
        self._info: StepInfo | None = None
        self.cached, self.bare, self.pages = TokenScene(theme), TokenScene(theme), PageScene(theme)
        self.legend = Legend(theme)
        self.transport = Transport(theme, SPEEDS, DEFAULT_SPEED, programs=False, about="Steps a second, of both sides together")
        self.transport.slider.setAccessibleName("Step")
        self._empty, self._body = QLabel(EMPTY), QWidget()
        self._lay_out()
        bar = self.transport
        bar.stepped.connect(self.step)
        bar.sought.connect(self.seek)
        bar.play_pressed.connect(self.toggle_play)
        bar.speed_picked.connect(self.set_speed)
        bar.reserve(f"token {TOKENS}: step {STEPS - 1} of {STEPS - 1}", 1, 1)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Token grid")
        self.setAccessibleDescription(EMPTY)
        self.show_state(self._state)

    # --- what it is told ---

    def show_state(self, state: DecodeState) -> None:
        """The lanes of a decoding; the clock stays where it is."""
        self._state = state
        there = state.decoding is not None
        self._empty.setVisible(not there)
        self._body.setVisible(there)
        self.transport.setEnabled(there)
        self.pages.setVisible(self._paged() is not None)
        self._refresh()

    def set_theme(self, theme: Theme) -> None:
        for scene in (self.cached, self.bare, self.pages):
            scene.set_theme(theme)
        self.legend.theme = theme
        self.legend.update()
        self.transport.set_theme(theme)

    def set_reduced_motion(self, on: bool) -> None:
        self._clock.reduced = on
        if on:
            self._clock.lit = float(TOKENS)
            self._refresh()

    def advance(self, dt_s: float) -> bool:
        if self._state.decoding is None:
            return False
        if self._clock.advance(dt_s):
            self._refresh()
        return self._clock.playing or not self._clock.still

    # --- what the user does ---

    @Slot()
    def toggle_play(self) -> None:
        if self._state.decoding is None:
            return
        clock = self._clock
        if not clock.playing and clock.ended:
            clock.go(0)
        clock.playing = not clock.playing
        self._refresh()
        self.woke.emit()

    @Slot(int)
    def step(self, by: int) -> None:
        self._clock.playing = False
        self._clock.go(self._clock.step + by)
        self._refresh()
        self.woke.emit()

    @Slot(float)
    def seek(self, fraction: float) -> None:
        self._clock.playing = False
        self._clock.go(round(fraction * (STEPS - 1)))
        self._clock.lit = float(TOKENS)
        self._refresh()

    @Slot(float)
    def set_speed(self, speed: float) -> None:
        """Steps a second."""
        self._clock.speed = speed
        self.transport.show_speed(speed)

    def summary(self) -> str:
        if self._state.decoding is None:
            return EMPTY
        said = [self.cached.summary(), self.bare.summary()]
        return " ".join([*said, self.pages.summary()] if self._paged() is not None else said)

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
        column, stage, scenes = QVBoxLayout(self), QVBoxLayout(self._body), QHBoxLayout()
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        stage.setContentsMargins(0, 0, 0, 0)
        stage.setSpacing(4)
        scenes.setSpacing(8)
        for scene, stretch in ((self.cached, 5), (self.bare, 5), (self.pages, 3)):
            scenes.addWidget(scene, stretch)
        stage.addWidget(self.legend)
        stage.addLayout(scenes, 1)
        self._empty.setProperty("role", "muted")
        self._empty.setWordWrap(True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column.addWidget(self._empty, 1)
        column.addWidget(self._body, 1)
        column.addWidget(self.transport)
        self.setMinimumHeight(280)

    def _plan(self, cached: bool) -> LanePlan | None:
        """The lane of a side that the verdict compares, else the first of it that runs."""
        pair = compared(self._state)
        if pair is not None:
            return self._state.plans[pair[0 if cached else 1]]
        return next((plan for plan in self._state.running() if (plan.lane.cache != "none") is cached), None)

    def _paged(self) -> LanePlan | None:
        return next((plan for plan in self._state.running() if plan.lane.cache == "paged"), None)

    def _side(self, cached: bool) -> Side | None:
        run, clock, plan = self._state.decoding, self._clock, self._plan(cached)
        if run is None:
            return None
        lane = "not in this run"
        if plan is not None:
            time_ns = self._state.median_ns(plan.lane.id)
            lane = titles(self._state)[plan.lane.id]
            lane += f" · {fmt.time_ns(time_ns)} a token" if time_ns is not None else ""
        return Side(
            cached, "with its cache" if cached else "without a cache", lane, clock.step, clock.lit,
            counts(PROMPT, PROMPT + clock.step + 1, cached), counts(run.prompt, run.tokens, cached), run.tokens)

    def _refresh(self) -> None:
        """Shows where the clock stands."""
        clock, run = self._clock, self._state.decoding
        for scene, side in ((self.cached, self._side(True)), (self.bare, self._side(False))):
            if side is not None:
                scene.show_side(side)
        if run is not None:
            self.pages.show_steps(run.prompt, min(clock.step, run.new - 1))
        tokens = row(clock.step, True).tokens
        name = f"token {tokens}: step {clock.step} of {STEPS - 1}" if clock.step else "the prompt"
        self.transport.show_time(clock.step / (STEPS - 1), name)
        self.transport.show_playing(clock.playing)
        self.setAccessibleDescription(self.summary())
        info = self._describe()
        if info != self._info and run is not None:
            self._info = info
            self.picked.emit(info)

    def _describe(self) -> StepInfo:
        clock = self._clock
        held, bare = row(clock.step, True), row(clock.step, False)
        again = f"Without a cache q, k and v of all {bare.worked} tokens are computed, {len(bare.again)} of them again."
        lines = [
            f"With its cache q, k and v of {fmt.plural(held.worked, 'token')} are computed"
            + (f", and k and v of {len(held.read)} read." if held.read else "."), again]
        if self._paged() is not None:
            lines.append(self.pages.summary())
        title = "The prompt" if clock.step == 0 else f"Token {held.tokens}"
        return StepInfo("decoding", "a drawn example", "", clock.step, STEPS - 1, f"{title} · step {clock.step} of {STEPS - 1}",
                        tuple(lines))
