"""The figures on screen as a table for other programs: CSV in a file, tab-separated on the clipboard."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import msgspec

from app.configuration import AnyConfiguration
from app.saved import Cell


def as_csv(shown: AnyConfiguration) -> bytes:
    """One header comment, the columns' names, and the rows that were measured, which also say device and workload.

    Source: RFC 4180. The comment fills its row up with empty cells and needs no quotes, so that what knows comments skips
    it and what does not still sees one table; the byte order mark tells spreadsheets that this is UTF-8.
    """
    names, rows = table(shown)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([_comment(shown), *[""] * (len(names) - 1)])
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8-sig")


def as_tabs(shown: AnyConfiguration) -> str:
    """The same columns and rows, tab-separated: for the clipboard."""
    names, rows = table(shown)
    lines: list[Sequence[Cell]] = [names, *rows]
    return "".join("\t".join(map(_bare, line)) + "\n" for line in lines)


def table(shown: AnyConfiguration) -> tuple[list[str], list[list[Cell]]]:
    """The columns, with their units in the names, and the rows that were measured. A missing number is None: an empty cell."""
    where: dict[str, Cell] = {"device": shown.device, "device_name": shown.machine.name if shown.machine else ""}
    where |= shown.columns()
    columns, measured = shown.MEASURED.__struct_fields__, [msgspec.structs.asdict(row) for row in shown.rows()]
    names = [*columns, *where]
    return names, [[_plain((row | where)[name]) for name in names] for row in measured]


def _comment(shown: AnyConfiguration) -> str:
    parts = ["# Tilescope", f"{shown.lab} lab", shown.words(), shown.saved, f"ns and bytes per {shown.EACH}"]
    parts += [f"{name} {number}" for name, number in shown.software.items()]
    return " · ".join(parts).translate(str.maketrans(',"\n\r', ";'  "))


def _plain(value: Cell) -> Cell:
    return str(value).lower() if isinstance(value, bool) else value


def _bare(cell: Cell) -> str:
    return "" if cell is None else str(cell).translate(str.maketrans("\t\r\n", "   "))
