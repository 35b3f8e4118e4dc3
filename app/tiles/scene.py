"""One kernel on the stage: HBM above, the SRAM room of its followed program below, and at most one tile that travels."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QHelpEvent, QMouseEvent, QPaintEngine, QPainter, QPaintEvent, QPixmap, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app import format as fmt
from app.theme import Theme
from app.tiles.fills import matrix_shape
from app.tiles.hbm_floor import paint_floor, program_at, tile_box
from app.tiles.layout import LINE, PAD, Layout, lay_out
from app.tiles.ledger import Unit, paint_ledger
from app.tiles.paint import LEFT, RIGHT, advance, outline, words
from app.tiles.sram_room import paint_room, slot_boxes, used_text
from app.tiles.transport import wave_text
from app.tiles.travel import Travel, paint_travel
from app.tiles.view import View, head_shape

WITH_TIME = 440.0   # from here on the header has room for the kernel's own time


class Scene(QWidget):
    """Paints the view it was handed last. `pressed` carries its index; `program_picked` also the program clicked on."""

    pressed = Signal(int)
    program_picked = Signal(int, int)

    def __init__(self, theme: Theme, index: int) -> None:
        super().__init__()
        self._index = index
        self._theme, self._unit = theme, Unit(1, "B", 1, 1)
        self._view: View | None = None
        self._before: View | None = None
        self._layout: Layout | None = None
        self._still: QPixmap | None = None
        self._travel: Travel | None = None
        self._chosen = self._focused = False
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(260, 240)

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(560, 340)

    def set_theme(self, theme: Theme) -> None:
        """Colours and type."""
        self._theme, self._layout = theme, None
        self._stir()

    def set_unit(self, unit: Unit) -> None:
        """What the counters count in."""
        self._unit = unit

    def set_marks(self, chosen: bool, focused: bool) -> None:
        """Whether the program choice and the inspector are about this scene, and whether keys go to it."""
        if (chosen, focused) != (self._chosen, self._focused):
            self._chosen, self._focused = chosen, focused
            self._stir()

    def show_view(self, view: View, travel_s: float = 0.0) -> None:
        """Paints a view; the tile of a new step travels for `travel_s` seconds."""
        moved = self._view is None or view.place != self._view.place
        if self._view is None or view.track is not self._view.track:
            self._layout = None
        self._before, self._view, self._travel = self._view, view, None
        if travel_s > 0 and moved:
            self._travel = self._set_off(view, travel_s)
        self.setAccessibleName(f"Tiles of {view.track.schedule.kernel}")
        self.setAccessibleDescription(self.summary())
        self._stir()

    @property
    def view(self) -> View | None:
        """What is painted."""
        return self._view

    @property
    def travelling(self) -> bool:
        """Whether a tile is on its way."""
        return self._travel is not None

    def advance(self, dt_s: float) -> bool:
        """Moves the travelling tile on; True while one is on its way."""
        travel = self._travel
        if travel is None:
            return False
        old = travel.box
        travel.progress += dt_s / travel.seconds
        if travel.progress >= 1:
            self._travel = None
            self._stir()
            return False
        self.update(old.united(travel.box).toAlignedRect().adjusted(-2, -2, 2, 2))
        return True

    def rest(self) -> None:
        """The travelling tile arrives at once."""
        if self._travel is not None:
            self._travel = None
            self._stir()

    def summary(self) -> str:
        """One sentence for screen readers."""
        view = self._view
        if view is None:
            return ""
        launch, place = view.launch, view.place
        what = view.focus.step.op.title if view.focus.step else "not begun"
        moved, whole = view.counters.hbm_bytes, view.track.totals.hbm_bytes
        where = "done" if view.done else (
            f"{launch.launch.title}, {wave_text(place.wave, launch.waves)}, "
            f"program {fmt.count(place.program + 1)}, step {fmt.count(place.done)} of {fmt.count(place.steps)}: {what}")
        return (f"{view.track.schedule.kernel}: {where}; {fmt.bytes_iec(moved)} of {fmt.bytes_iec(whole)} "
                f"to and from {view.device.memory_name}, {used_text(view)} of {view.device.sram_name} used.")

    # --- painting ---

    def _stir(self) -> None:
        self._still = None
        self.update()

    def scene_layout(self) -> Layout:
        """Where everything stands."""
        assert self._view is not None
        if self._layout is None:
            theme, shape = self._theme, head_shape(self._view.track)
            gradients = any(operand.name == "dQ" for operand in self._view.track.schedule.operands)
            texts = (self._view.device.sram_name, self._view.device.memory_name, "Q, dQ" if gradients else "Q")
            names = max(advance(theme.sans(semibold=True), text) for text in texts)
            counts = max(advance(theme.sans(), f"× {fmt.count(extent)}" if extent == shape[2] else fmt.count(extent))
                         for extent in (shape[0], shape[2]))
            self._layout = lay_out(self.width(), self.height(), max(names + PAD, counts) + PAD, shape, gradients)
        return self._layout

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.setClipRegion(event.region())
        if painter.paintEngine().type() == QPaintEngine.Type.Raster:
            painter.drawPixmap(0, 0, self._still_at(painter.deviceTransform().m11()))
        else:  # a picture of lines and words
            self._paint_still(painter)
        if self._travel is not None:
            paint_travel(painter, self._theme, self._travel)

    def _still_at(self, ratio: float) -> QPixmap:
        """All but the tile on its way, at so many pixels to the point: the screen's, or those of a picture."""
        if self._still is None or self._still.devicePixelRatio() != ratio:
            self._still = QPixmap(self.size() * ratio)
            self._still.setDevicePixelRatio(ratio)
            painter = QPainter(self._still)
            self._paint_still(painter)
            painter.end()
        return self._still

    def _paint_still(self, painter: QPainter) -> None:
        theme, view = self._theme, self._view
        painter.fillRect(self.rect(), theme["panel"])
        outline(painter, QRectF(self.rect()), theme["accent" if self._focused else "border"])
        if view is not None:
            layout, travel = self.scene_layout(), self._travel
            self._paint_header(painter, layout, view)
            self._paint_l2(painter, layout, view)
            fills = self._before.fills if travel and travel.store and self._before is not None else view.fills
            paint_floor(painter, layout, theme, view, fills)
            paint_room(painter, layout, theme, view, travel.slot if travel and not travel.store else "")
            paint_ledger(painter, layout, theme, view, self._unit)

    def _paint_header(self, painter: QPainter, layout: Layout, view: View) -> None:
        theme, line, launch = self._theme, layout.header, view.launch
        painter.setFont(theme.sans(semibold=True))
        name = words(painter, line, LEFT, theme["accent" if self._chosen else "text"], view.track.schedule.kernel)
        if self._chosen:
            painter.fillRect(QRectF(line.left(), line.bottom() - 1, name, 2), theme["accent"])
        painter.setFont(theme.sans())
        wave = wave_text(view.place.wave, launch.waves)
        state, ink = ("✓ done", theme["ok"]) if view.done else (wave, theme["muted"])
        if view.time and line.width() > WITH_TIME:
            state = f"{state} · {view.time}"
        right = words(painter, line, RIGHT, ink, state)
        title, launches = launch.launch.title, len(view.track.launches)
        count = f"launch {view.place.launch + 1} of {launches} · "
        texts = (count + title, title) if launches > 1 else (title,)
        words(painter, line.adjusted(name + PAD, 0, -right - PAD, 0), LEFT, theme["muted"], *texts)

    def _paint_l2(self, painter: QPainter, layout: Layout, view: View) -> None:
        """The level between; on a CPU the cache is the room itself."""
        if view.device.kind == "cpu":
            return
        theme, line = self._theme, layout.l2
        painter.setFont(theme.sans())
        painter.fillRect(QRectF(line.left(), line.top(), 3, line.height()), theme["memory.1"])
        name = QRectF(line.left() + PAD, line.top(), layout.gutter - PAD, LINE)
        words(painter, name, LEFT, theme["muted"], "L2")
        size = words(painter, line, RIGHT, theme["muted"], fmt.bytes_iec(view.device.l2_bytes)) if view.device.l2_bytes else 0.0
        left = line.left() + layout.gutter
        painter.fillRect(QRectF(left, round(line.center().y()), line.right() - left - size - PAD, 1), theme["memory.1"])

    # --- the tile on its way ---

    def _set_off(self, view: View, seconds: float) -> Travel | None:
        focus, layout = view.focus, self.scene_layout()
        if focus.moved is None or focus.step is None:
            return None
        store = focus.step.op.kind == "store"
        held = next((one for one in focus.held if (one.read if store else one.written)), None)
        home = tile_box(layout, view, focus.moved)
        if held is None or home is None:
            return None
        slot = slot_boxes(layout, self._theme, view)[held.name]
        return Travel(focus.moved, held.name, store, *((slot, home) if store else (home, slot)), seconds)

    # --- the pointer ---

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        self.pressed.emit(self._index)
        view = self._view
        if view is None or event.button() is not Qt.MouseButton.LeftButton:
            return
        at: QPointF = event.position()
        program = program_at(self.scene_layout(), view, at.x(), at.y())
        if program is not None:
            self.program_picked.emit(self._index, program)

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            QToolTip.showText(event.globalPos(), self.tip_at(QPointF(event.pos())), self)
            return True
        return super().event(event)

    def tip_at(self, at: QPointF) -> str:
        """What is under the pointer: a matrix or a slot, with its exact size; empty where nothing is."""
        view = self._view
        if view is None:
            return ""
        layout = self.scene_layout()
        for operand in view.track.schedule.operands:
            if operand.name in layout.matrices and layout.matrices[operand.name].contains(at):
                rows, columns = matrix_shape(operand)
                never = "" if operand.materialised else ", never written"
                return (f"{operand.name}: {fmt.count(rows)} × {fmt.count(columns)} a head, "
                        f"{fmt.bytes_iec(operand.bytes)} in all {fmt.plural(view.focus.heads, 'head')}{never}")
        boxes = slot_boxes(layout, self._theme, view)
        for held in view.focus.held:
            if boxes[held.name].contains(at):
                shape = " × ".join(fmt.count(extent) for extent in held.slot.shape)
                where = view.device.sram_name if held.slot.place == "sram" else "registers"
                size = fmt.bytes_iec(held.slot.bytes // held.slot.copies)
                return f"{held.name}: {shape}, {size} in {where}, holds {held.label or 'nothing'}"
        return _counted(view) if layout.counters.contains(at) else ""

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: ARG002, N802
        self._layout, self._travel = None, None
        self._stir()


def _counted(view: View) -> str:
    """What the counters count."""
    small = "cores and cache" if view.device.kind == "cpu" else "SMs and L2"
    return (f"{view.device.memory_name}: each launch's distinct elements, read once and written once; so far: their share by\n"
            f"the tiles moved so far, for which of them the L2 still held is not known.\n"
            f"tiles: every tile loaded and stored, what crosses between {small}.\n"
            f"Programs of a wave are taken to be as far as the followed one.")
