"""The table twin of a view: what it draws, as rows of text."""

from __future__ import annotations

from typing import NamedTuple


class Table(NamedTuple):
    """Columns with their units in the heading, rows of formatted cells."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def text(self) -> str:
        """Tab-separated, for the clipboard."""
        return "\n".join("\t".join(cells) for cells in (self.columns, *self.rows)) + "\n"
