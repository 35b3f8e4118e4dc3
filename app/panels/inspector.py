"""The step in focus in the theatre, and what is known of each kernel or lane: resources, work, memory."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QScrollArea, QVBoxLayout, QWidget

from app.kind import Section
from app.theme import Theme
from app.tiles.step_info import StepInfo

EMPTY_STEP = "Step or play the stage: what the step in focus does appears here."
EMPTY_KERNELS = "What is known of each kernel or lane appears here once the engine has planned a run."


class Inspector(QScrollArea):
    """Text alone, which can be selected and copied."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._step: StepInfo | None = None
        self._sections: list[Section] = []
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

    def show_step(self, step: StepInfo | None) -> None:
        """The step in focus; None where no step is."""
        self._step = step
        if step is None:
            self.step.setText(EMPTY_STEP)
            return
        lines = "".join(f"<p style='margin: 4px 0 0 0'>{escape(text)}</p>" for text in step.lines)
        where = self._muted(f"{escape(step.kernel)} · {escape(step.launch)}")
        self.step.setText(f"{where}<br>{_heading(step.title)}{lines}")

    def show_facts(self, sections: Sequence[Section]) -> None:
        """Of each kernel or lane a title and what is known of it; draws what changed."""
        if sections == self._sections:
            return
        self._sections = list(sections)
        self.kernels.setText("".join(self._section(*section) for section in sections) or EMPTY_KERNELS)

    def set_theme(self, theme: Theme) -> None:
        """Draws the same in another theme."""
        self._theme = theme
        shown, self._sections = self._sections, []
        self.show_facts(shown)
        if self._step is not None:
            self.show_step(self._step)

    def _muted(self, html: str) -> str:
        return f"<span style='color: {self._theme['muted'].name()}'>{html}</span>"

    def _section(self, title: str, facts: list[tuple[str, str]]) -> str:
        rows = "".join(
            f"<tr><td style='padding-right: 8px'>{self._muted(escape(label))}</td><td align='right'>{escape(value)}</td></tr>"
            for label, value in facts
        )
        heading = f"<p style='margin: 8px 0 2px 0'>{_heading(title)}</p>"
        return f"{heading}<table width='100%'>{rows}</table>"


def _heading(text: str) -> str:
    return f"<span style='font-weight: 600'>{escape(text)}</span>"
