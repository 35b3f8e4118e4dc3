"""The style sheet of the window, generated from a theme's roles: 4 px grid, radius 4, borders before shadows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template

_SHEET = Template("""
* { font-family: $sans; font-size: 12px; color: $text; outline: none; }
QMainWindow, QDialog, QMessageBox { background: $background; }
QWidget { selection-background-color: $selection; selection-color: $text; }
QToolTip { background: $raised; color: $text; border: 1px solid $edge; padding: 4px; }
""")


def stylesheet(role: Mapping[str, str], theme: str, sans: Sequence[str], mono: Sequence[str]) -> str:
    """The sheet for the colours of `role`."""

    def families(names: Sequence[str]) -> str:
        return ", ".join(f'"{name}"' for name in names)

    return _SHEET.substitute(role, theme=theme, sans=families(sans), mono=families(mono))
