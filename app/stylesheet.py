"""The style sheet of the window, generated from a theme's roles: 4 px grid, radius 4, borders before shadows.

A label says what it is by the dynamic property `role`: `title`, `value` (monospaced), `muted`, `verdict`, `warning`. A push
button with the property `primary` is the one that matters most. A frame with the property `role` `panel` has a border.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template

_BASE = """
* { font-family: $sans; font-size: 12px; color: $text; outline: none; }
QMainWindow, QDialog, QMessageBox { background: $background; }
QWidget { selection-background-color: $selection; selection-color: $text; }
QWidget:disabled { color: $disabled; }
QLabel { background: transparent; }
QLabel[role="title"] { font-size: 14px; font-weight: 600; }
QLabel[role="verdict"] { font-size: 14px; font-weight: 600; }
QLabel[role="value"] { font-family: $mono; }
QLabel[role="muted"] { color: $muted; }
QLabel[role="warning"] { color: $warning; }
QFrame[role="panel"] { background: $panel; border: 1px solid $border; border-radius: 4px; }
QWidget[role="plot"] { background: $panel; }
QToolTip { background: $raised; color: $text; border: 1px solid $edge; padding: 4px; }
QScrollArea, QAbstractScrollArea { background: transparent; border: none; }
QScrollArea > QWidget > QWidget { background: transparent; }
QSplitter::handle { background: $background; }
QSplitter::handle:hover { background: $edge; }
"""

_BARS = """
QMenuBar { background: $background; border-bottom: 1px solid $border; padding: 0 4px; }
QMenuBar::item { padding: 8px 8px; border-radius: 4px; background: transparent; }
QMenuBar::item:selected, QMenuBar::item:pressed { background: $hover; }
QMenu { background: $panel; border: 1px solid $edge; padding: 4px; }
QMenu::item { padding: 4px 24px 4px 24px; min-height: 16px; border-radius: 4px; }
QMenu::item:selected { background: $selection; }
QMenu::item:disabled { color: $disabled; }
QMenu::separator { height: 1px; background: $border; margin: 4px 8px; }
QMenu::indicator { width: 16px; height: 16px; left: 4px; }
QMenu::indicator:checked { image: url("$icons/tick-$theme.svg"); }
QToolBar { background: $background; border: none; border-bottom: 1px solid $border; padding: 4px; spacing: 4px; }
QMenuBar > QToolBar { border: none; border-bottom: 1px solid $border; padding: 2px 4px; }
QToolBar#device { padding: 0; }
QToolBar::separator { width: 1px; background: $border; margin: 4px; }
QStatusBar { background: $background; border-top: 1px solid $border; color: $muted; min-height: 24px; }
QStatusBar::item { border: none; }
QStatusBar QLabel { color: $muted; padding: 0 4px; }
QDockWidget { font-size: 12px; color: $muted; titlebar-close-icon: url("$icons/close.svg");
    titlebar-normal-icon: url("$icons/float.svg"); }
QDockWidget::title { background: $background; padding: 4px 8px; border-bottom: 1px solid $border; text-align: left; }
QDockWidget::close-button, QDockWidget::float-button { border: 1px solid transparent; border-radius: 4px; padding: 0; }
QDockWidget::close-button:hover, QDockWidget::float-button:hover { background: $hover; }
QMainWindow::separator { background: $background; width: 4px; height: 4px; }
QMainWindow::separator:hover { background: $accent; }
QTabWidget::pane { border: 1px solid $border; border-radius: 4px; background: $panel; top: -1px; }
QTabBar { background: transparent; }
QTabBar::tab { background: transparent; color: $muted; padding: 4px 12px; min-height: 18px; border: 1px solid transparent;
               border-bottom: 2px solid transparent; }
QTabBar::tab:hover { color: $text; }
QTabBar::tab:selected { color: $text; border-bottom: 2px solid $accent; }
QWidget[role="palette"] { background: $panel; border: 1px solid $edge; border-radius: 4px; }
QTabBar::tab:focus { border: 1px solid $accent; border-bottom: 2px solid $accent; border-radius: 4px; }
"""

_FIELDS = """
QPushButton, QToolButton { background: $raised; border: 1px solid $edge; border-radius: 4px; padding: 3px 12px;
    min-height: 16px; }
QToolButton { padding: 3px 4px; border-color: transparent; background: transparent; }
QPushButton:hover, QToolButton:hover { background: $hover; }
QPushButton:pressed, QToolButton:pressed, QToolButton:checked, QPushButton:checked { background: $selection; }
QToolButton:checked { border-color: $edge; }
QToolButton[role="live"] { color: $ok; }
QToolButton[role="pill"] { color: $muted; }
QPushButton:disabled, QToolButton:disabled { color: $disabled; }
QPushButton:disabled { border-color: $border; }
QPushButton[primary="true"] { background: $accent; color: $on_accent; border-color: $accent; font-weight: 600; }
QPushButton[primary="true"]:hover { background: $accent_hover; border-color: $accent_hover; }
QPushButton[primary="true"]:disabled { background: $raised; color: $disabled; border-color: $border; }
QPushButton:focus, QToolButton:focus, QLineEdit:focus, QAbstractSpinBox:focus, QComboBox:focus, QPlainTextEdit:focus,
QTextEdit:focus, QAbstractItemView:focus { border: 1px solid $accent; }
QPushButton[primary="true"]:focus { border: 2px solid $text; padding: 2px 11px; }
QLineEdit, QAbstractSpinBox, QComboBox, QPlainTextEdit, QTextEdit { background: $raised; border: 1px solid $edge;
    border-radius: 4px; padding: 2px 6px; min-height: 18px; }
QAbstractSpinBox { font-family: $mono; padding-right: 18px; }
QAbstractSpinBox QLineEdit, QComboBox QLineEdit { border: none; background: transparent; padding: 0; min-height: 0;
    font-family: $mono; }
QLineEdit:disabled, QAbstractSpinBox:disabled, QComboBox:disabled { color: $disabled; border-color: $border; }
QAbstractSpinBox::up-button, QAbstractSpinBox::down-button { subcontrol-origin: border; width: 16px; border: none;
    background: none; }
QAbstractSpinBox::up-button { subcontrol-position: top right; margin: 1px 1px 0 0; border-top-right-radius: 3px; }
QAbstractSpinBox::down-button { subcontrol-position: bottom right; margin: 0 1px 1px 0; border-bottom-right-radius: 3px; }
QAbstractSpinBox::up-button:hover, QAbstractSpinBox::down-button:hover { background: $hover; }
QAbstractSpinBox[plain="true"] { padding: 2px 0 2px 2px; }
QAbstractSpinBox[plain="true"]::up-button, QAbstractSpinBox[plain="true"]::down-button { width: 5px; height: 0; margin: 0; }
QAbstractSpinBox::up-arrow { image: url("$icons/up.svg"); width: 8px; height: 8px; }
QAbstractSpinBox::down-arrow { image: url("$icons/down.svg"); width: 8px; height: 8px; }
QComboBox { padding-right: 20px; }
QComboBox::drop-down { subcontrol-origin: border; subcontrol-position: center right; width: 20px; border: none; }
QComboBox::down-arrow { image: url("$icons/down.svg"); width: 10px; height: 10px; }
QComboBox QAbstractItemView { background: $panel; border: 1px solid $edge; padding: 4px;
    selection-background-color: $selection; }
QCheckBox, QRadioButton { spacing: 8px; min-height: 20px; border: 1px solid transparent; border-radius: 4px; padding: 0 2px; }
QCheckBox:focus, QRadioButton:focus { border: 1px solid $accent; }
QCheckBox::indicator, QTreeView::indicator, QTableView::indicator { width: 14px; height: 14px; border: 1px solid $edge;
    border-radius: 3px; background: $raised; }
QCheckBox::indicator:hover { border-color: $text; }
QCheckBox::indicator:checked { background: $accent; border-color: $accent; image: url("$icons/check-$theme.svg"); }
QCheckBox::indicator:disabled { border-color: $border; background: $panel; }
QCheckBox::indicator:checked:disabled { background: $disabled; border-color: $disabled; }
QRadioButton::indicator { width: 12px; height: 12px; border: 1px solid $edge; border-radius: 7px; background: $raised; }
QRadioButton::indicator:checked { background: $on_accent; border: 4px solid $accent; width: 6px; height: 6px; }
QGroupBox { border: 1px solid $border; border-radius: 4px; margin-top: 16px; padding: 8px; }
QGroupBox::title { subcontrol-origin: margin; left: 8px; color: $muted; }
QSlider { min-height: 20px; border: 1px solid transparent; border-radius: 4px; }
QSlider:focus { border: 1px solid $accent; }
QSlider::groove:horizontal { height: 4px; background: $border; border-radius: 2px; }
QSlider::sub-page:horizontal { background: $accent; border-radius: 2px; }
QSlider::sub-page:horizontal:disabled { background: $disabled; }
QSlider::handle:horizontal { width: 12px; height: 12px; margin: -5px 0; border: 1px solid $panel; border-radius: 7px;
    background: $text; }
QSlider::handle:horizontal:hover { background: $accent; }
QSlider::handle:horizontal:disabled { background: $disabled; }
QProgressBar { border: 1px solid $edge; border-radius: 4px; background: $raised; text-align: center; min-height: 16px; }
QProgressBar::chunk { background: $selection; border-radius: 3px; }
"""

_VIEWS = """
QAbstractItemView { background: $panel; alternate-background-color: $background; border: 1px solid $border;
    border-radius: 4px; }
QAbstractItemView::item { min-height: 22px; padding: 0 4px; }
QAbstractItemView::item:selected { background: $selection; color: $text; }
QTableView { gridline-color: $grid; font-family: $mono; }
QAbstractScrollArea::corner { background: transparent; border: none; }
QHeaderView { background: $panel; border: none; }
QHeaderView::section { background: $panel; color: $muted; border: none; border-bottom: 1px solid $border; padding: 4px 8px; }
QTableCornerButton::section { background: $panel; border: none; }
QScrollBar:vertical { width: 10px; background: transparent; margin: 0; }
QScrollBar:horizontal { height: 10px; background: transparent; margin: 0; }
QScrollBar::handle { background: $edge; border-radius: 3px; margin: 2px; }
QScrollBar::handle:vertical { min-height: 24px; }
QScrollBar::handle:horizontal { min-width: 24px; }
QScrollBar::handle:hover { background: $muted; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
"""

_SHEET = Template(_BASE + _BARS + _FIELDS + _VIEWS)


def stylesheet(role: Mapping[str, str], theme: str, sans: Sequence[str], mono: Sequence[str]) -> str:
    """The sheet for the colours of `role` and the icons of `theme`."""

    def families(names: Sequence[str]) -> str:
        return ", ".join(f'"{name}"' for name in names)

    icons = str(files("assets") / "themes" / "icons").replace("\\", "/")
    return _SHEET.substitute(role, theme=theme, icons=icons, sans=families(sans), mono=families(mono))
