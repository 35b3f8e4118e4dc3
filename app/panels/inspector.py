"""The step in focus in the theatre, and what is known of each kernel: its configuration, resources, work and memory."""

from __future__ import annotations

from html import escape

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QScrollArea, QVBoxLayout, QWidget

from app import format as fmt
from app.store import Snapshot
from app.theme import Theme
from app.tiles.step_info import StepInfo
from engine.protocol import KernelPlan

EMPTY_STEP = "Step or play the tiles: what the program in focus does appears here."
EMPTY_KERNELS = "What is known of each kernel appears here once the engine has planned a run."


class Inspector(QScrollArea):
    """Text alone, which can be selected and copied."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._step: StepInfo | None = None
        self._drawn: tuple[object, ...] = ()
        self.step, self.kernels = QLabel(EMPTY_STEP), QLabel(EMPTY_KERNELS)
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(12, 8, 12, 12)
        column.setSpacing(12)
        for label in (self.step, self.kernels):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.RichText)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            column.addWidget(label)
        column.addStretch()
        self.setWidget(body)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(220)
        self.setAccessibleName("Inspector")

    def show_step(self, step: StepInfo) -> None:
        """The step in focus."""
        self._step = step
        lines = "".join(f"<p style='margin: 4px 0 0 0'>{escape(text)}</p>" for text in step.lines)
        where = self._muted(f"{escape(step.kernel)} · {escape(step.launch)}")
        self.step.setText(f"{where}<br>{_heading(step.title)}{lines}")

    def update_from(self, snapshot: Snapshot) -> None:
        """Draws what changed."""
        needed = (snapshot.plans, snapshot.checks, snapshot.device, snapshot.refusals)
        if self._drawn and all(new is old for new, old in zip(needed, self._drawn, strict=True)):
            return
        self._drawn = needed
        tables = [self._kernel(snapshot, plan) for plan in snapshot.plans.values()]
        self.kernels.setText("".join(tables) or EMPTY_KERNELS)

    def set_theme(self, theme: Theme, snapshot: Snapshot) -> None:
        """Draws the same in another theme."""
        self._theme, self._drawn = theme, ()
        self.update_from(snapshot)
        if self._step is not None:
            self.show_step(self._step)

    def _muted(self, html: str) -> str:
        return f"<span style='color: {self._theme['muted'].name()}'>{html}</span>"

    def _kernel(self, snapshot: Snapshot, plan: KernelPlan) -> str:
        rows = "".join(
            f"<tr><td style='padding-right: 8px'>{self._muted(escape(label))}</td><td align='right'>{escape(value)}</td></tr>"
            for label, value in facts(snapshot, plan)
        )
        title = f"<p style='margin: 8px 0 2px 0'>{_heading(snapshot.title(plan.kernel))}</p>"
        return f"{title}<table width='100%'>{rows}</table>"


def _heading(text: str) -> str:
    return f"<span style='font-weight: 600'>{escape(text)}</span>"


def facts(snapshot: Snapshot, plan: KernelPlan) -> list[tuple[str, str]]:
    """What is known of a kernel, as label and value."""
    cost, shown = plan.cost, [param.name for info in snapshot.infos if info.id == plan.kernel for param in info.params]
    rows = [(name.replace("_", " "), fmt.count(plan.config.params[name])) for name in shown if name in plan.config.params]
    for launch, used in plan.config.resources.items():
        spills = f", {used.spill_bytes} B spilled" if used.spill_bytes else ""
        rows.append((launch, f"{used.registers} registers, {fmt.bytes_iec(used.sram_bytes)}{spills}"))
    if not cost.hbm:
        return [("refused", plan.refused or fmt.NA)]
    bound = "" if cost.tile else "≥ "
    rows += [
        ("matrix work", fmt.quantity(cost.flops, "FLOP")),
        (f"{snapshot.device.memory_name if snapshot.device else 'HBM'} bytes", bound + fmt.bytes_iec(cost.hbm_bytes)),
        ("intensity", f"{'≤ ' if bound else ''}{fmt.significant(cost.flops / max(1, cost.hbm_bytes))} FLOP/B"),
    ]
    if cost.tile:
        rows.append(("tile bytes", fmt.bytes_iec(cost.tile_bytes)))
    if cost.exps:
        rows.append(("exponentials", fmt.quantity(cost.exps, "")))
    rows.append(("peak memory", fmt.bytes_iec(plan.peak_memory_bytes)))
    if plan.longest_seq:
        rows.append(("fits up to", f"{fmt.count(plan.longest_seq)} tokens"))
    if check := snapshot.checks.get(plan.kernel):
        rows.append(("check", f"{'passed' if check.ok else 'FAILED'}, {fmt.error(check.max_error)}"))
    return rows
