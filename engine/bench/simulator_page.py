"""docs/simulator.md: how the simulator works and how far off it is, from the results of its bench."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files

from engine.bench.published import Unit
from engine.bench.simulator import Entry, Result
from engine.simulator import spec, traffic, units, work

UNITS: dict[Unit, str] = {
    "tflops": "TFLOP/s", "us": "µs", "ms": "ms", "gb": "GB", "gb_read": "GB read", "s": "s", "tokens_per_s": "tokens/s"}
CONSTANTS = {name: getattr(module, name) for module, names in (
    (work, ("PORT", "PRODUCT", "EXPONENTIALS", "ARRIVAL", "EXCHANGE", "BEGIN", "PLACED")),
    (units, ("ISSUE", "PIPE", "AROUND", "UNIT", "MMA_SHARE", "MMA", "MMA_ROWS", "MMA_DEPTH", "GROUP_ROWS")),
    (traffic, ("MERGED",))) for name in names}
OVERVIEW = ("table", "kernel", "rows", "mean error", "of time", "aim", "worst", "roofline", "of time")


def page(results: Sequence[Result]) -> str:
    """All of it, as Markdown."""
    return "\n".join([*_head(results), *_table(OVERVIEW, overview(results)), "", *_sections(results)])


def overview(results: Iterable[Result]) -> Iterator[tuple[str, ...]]:
    """A line for each kernel of each table, under OVERVIEW; those of which nothing is predicted say why."""
    for result in results:
        for one in result.summaries:
            yield (result.table.id, one.kernel, str(one.rows), _share(one.mean_error), _share(one.mean_time_error),
                   "none" if one.aim is None else f"{one.aim:.0%}, {'reached' if one.mean_error <= one.aim else 'missed'}",
                   f"{one.worst_error:+.0%}", _share(one.roofline_mean_error), _share(one.roofline_mean_time_error))
        summed = {one.kernel for one in result.summaries}
        for kernel in dict.fromkeys(entry.kernel for entry in result.entries if entry.kernel not in summed):
            reasons = [entry.not_predicted for entry in result.entries if entry.kernel == kernel]
            reason = next(filter(None, reasons), "the table has no number, or a constant was chosen from it")
            yield (result.table.id, kernel, "0", f"not predicted yet: {reason}", *[""] * 5)


def _head(results: Sequence[Result]) -> list[str]:
    chosen = any(entry.chosen_from for result in results for entry in result.entries)
    devices = dict.fromkeys(result.table.device for result in results)
    named = {one.title: [f"`{name}`" for name in one.estimated] for one in map(spec.resolve, devices)}
    text = (files("assets") / "published" / "head.md").read_text(encoding="utf-8")
    filled = text.format(
        chosen="; rows marked as chosen from gave a figure to their own table, whose note names it" if chosen else "",
        estimated="\n".join(f"- {title}: {', '.join(names) or 'none'}" for title, names in named.items()),
        **{name: f"{value:g}" for name, value in CONSTANTS.items()})
    return [*filled.splitlines(), ""]


def _sections(results: Iterable[Result]) -> Iterator[str]:
    for origin, title in (("published", "Published by others"), ("measured", "Measured here")):
        yield from (f"## {title}", "")
        for result in results:
            if result.table.origin == origin:
                yield from _section(result)


def _section(result: Result) -> Iterator[str]:
    table = result.table
    clock = "" if table.clock_mhz is None else f", SMs at {table.clock_mhz:,.0f} MHz"
    told = [f"`{table.id}`: {table.source}{f'; {table.date}' if table.date else ''}.",
            f"Predicted for `sim:{table.device}`{clock}, L2 {'cold' if table.cold else 'warm'}.", table.note]
    yield from (f"### {table.title}", "", *textwrap.wrap(" ".join(told), 128, break_long_words=False), "")
    if table.command:
        yield from (f"`{table.command}`", "")
    unit = UNITS[table.unit]
    columns = ("row", f"{table.origin}, {unit}", "predicted", "error", "limited by", "roofline", "its error")
    yield from _table(columns, map(_line, result.entries))
    yield ""


def _line(entry: Entry) -> tuple[str, ...]:
    name = f"{entry.row} (chosen from)" if entry.chosen_from else entry.row
    told = entry.why_none if entry.told is None else f"{entry.told:,.10g}"
    if entry.predicted is None or entry.roofline is None:
        return name, told, f"not predicted yet: {entry.not_predicted}", "", "", "", ""
    return (name, told, _number(entry.predicted), _signed(entry.error), entry.limiter, _number(entry.roofline),
            _signed(entry.roofline_error))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _number(value: float) -> str:
    """Three digits, and all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.1%}"
