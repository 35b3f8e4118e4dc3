"""The parameters of the chosen kernels, folded away until wanted; `auto` leaves one to the kernel's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtWidgets import QComboBox, QGridLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from kernels.contract import KernelInfo, Param
from kernels.contract.workload import Pass

AUTO = "auto"


class Parameters(QWidget):
    """One row a parameter, grouped by kernel."""

    edited = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[tuple[str, str], QComboBox] = {}
        self._values: dict[str, dict[str, int]] = {}
        self.header, self._body = QToolButton(), QWidget()
        self.header.setText("Kernel parameters")
        self.header.setCheckable(True)
        self.header.setArrowType(Qt.ArrowType.RightArrow)
        self.header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.header.toggled.connect(self._fold)
        self._body.hide()
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(4)
        self._column.addWidget(self.header)
        self._column.addWidget(self._body)

    def show_for(self, kernels: Sequence[KernelInfo], values: Mapping[str, dict[str, int]], pass_: Pass) -> None:
        """The rows of these kernels that mean something in a pass, with what was set."""
        self._values = {kernel: dict(set_) for kernel, set_ in values.items()}
        shown = {info.id: info.params_of(pass_) for info in kernels}
        names = tuple((kernel, param.name) for kernel, params in shown.items() for param in params)
        if names != tuple(self.boxes):
            self._build([info for info in kernels if shown[info.id]], shown)
        for (kernel, name), box in self.boxes.items():
            box.blockSignals(True)
            box.setCurrentText(str(self._values.get(kernel, {}).get(name, AUTO)))
            box.blockSignals(False)
        count = sum(name in self._values.get(kernel, {}) for kernel, name in names)
        self.header.setText(f"Kernel parameters ({count} set)" if count else "Kernel parameters")
        self.setVisible(bool(names))

    def values(self) -> dict[str, dict[str, int]]:
        """kernel -> parameter -> value, where one is set; those that are not shown are kept."""
        found: dict[str, dict[str, int]] = {}
        for kernel, set_ in self._values.items():
            if kept := {name: value for name, value in set_.items() if (kernel, name) not in self.boxes}:
                found[kernel] = kept
        for (kernel, name), box in self.boxes.items():
            if box.currentText() != AUTO:
                found.setdefault(kernel, {})[name] = int(box.currentText())
        return found

    def _build(self, kernels: Sequence[KernelInfo], shown: Mapping[str, Sequence[Param]]) -> None:
        body = QWidget()
        rows = QGridLayout(body)
        rows.setContentsMargins(12, 0, 0, 0)
        rows.setVerticalSpacing(2)
        rows.setColumnStretch(0, 1)
        self.boxes = {}
        for info in kernels:
            title = QLabel(info.title)
            title.setProperty("role", "muted")
            rows.addWidget(title, rows.rowCount(), 0, 1, 2)
            for param in shown[info.id]:
                box = QComboBox()
                box.addItems([AUTO, *(str(value) for value in param.choices)])
                box.setAccessibleName(f"{info.title}: {param.title}")
                box.setToolTip(param.help or f"{param.title}{f', {param.unit}' if param.unit else ''}")
                box.currentTextChanged.connect(self._changed)
                self.boxes[info.id, param.name] = box
                rows.addWidget(QLabel(param.title), rows.rowCount(), 0)
                rows.addWidget(box, rows.rowCount() - 1, 1)
        body.setVisible(self.header.isChecked())
        self._column.replaceWidget(self._body, body)
        self._body.deleteLater()
        self._body = body

    @Slot(bool)
    def _fold(self, unfolded: bool) -> None:
        self.header.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)
        self._body.setVisible(unfolded)

    @Slot(str)
    def _changed(self, _: str) -> None:
        self.edited.emit()
