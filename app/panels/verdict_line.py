"""The verdict above the panels: its sentence, and beneath it as many further facts as there is room for, and the provenance."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from app.verdict import Verdict

BETWEEN = "  ·  "
GAP_PX = 16


class VerdictLine(QWidget):
    """A fact is said whole or not at all; all of them stand in the tooltip."""

    def __init__(self) -> None:
        super().__init__()
        self.said = Verdict("")
        self.sentence, self.facts, self.provenance = QLabel(""), QLabel(""), QLabel("")
        self.sentence.setProperty("role", "verdict")
        self.sentence.setWordWrap(True)
        self.sentence.setAccessibleName("Verdict")
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.sentence.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        self.facts.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for label in (self.facts, self.provenance):
            label.setProperty("role", "muted")
        beneath = QHBoxLayout()
        beneath.setSpacing(GAP_PX)
        beneath.addWidget(self.facts, 1)
        beneath.addWidget(self.provenance)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.sentence)
        column.addLayout(beneath)

    def show_verdict(self, said: Verdict) -> None:
        """Shows a verdict; does nothing where it is on screen already."""
        if said == self.said:
            return
        self.said = said
        self.sentence.setText(said.text)
        self.provenance.setText(said.provenance)
        self.setToolTip("\n".join((*said.more, said.provenance)))
        self._fill()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self._fill()

    def _fill(self) -> None:
        """As many facts as have room beside the provenance."""
        metrics = self.facts.fontMetrics()
        room = self.width() - metrics.horizontalAdvance(self.said.provenance) - GAP_PX
        facts = list(self.said.more)
        while facts and metrics.horizontalAdvance(BETWEEN.join(facts)) > room:
            facts.pop()
        self.facts.setText(BETWEEN.join(facts))
