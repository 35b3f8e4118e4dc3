"""What a search for configurations found: its data, its choice, and how it is told. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import geometric_mean

from msgspec import Struct

from engine.results import TimeUs
from kernels.tuned.edit import Cell

Params = dict[str, int]

LEAD = 1.01  # of a candidate over the present row, at least


class Trial(Struct, frozen=True, kw_only=True):
    """A candidate's burst at one workload: its median time, or why it has none."""

    params: Params
    time_us: float | None = None
    skipped: str = ""


class Finalist(Struct, frozen=True, kw_only=True):
    """A configuration at every workload of the cell. `ratio`: its speed over the present row's, the geometric mean; `least`:
    the worst of them; `beyond_spread`: its slow samples (p80) are faster than that row's fast ones (p20), in the same mean.
    """

    params: Params
    time_us: dict[str, TimeUs]
    ratio: float | None = None
    least: float | None = None
    beyond_spread: bool = False


class Tuning(Struct, frozen=True, kw_only=True):
    """What was found for a cell. `chosen` is `present` where no candidate leads; `refused` says why nothing was measured."""

    cell: Cell
    table: str
    device: str
    rows: tuple[str, ...]
    present: Params
    chosen: Params
    trials: tuple[Trial, ...] = ()
    finalists: tuple[Finalist, ...] = ()
    refused: str = ""

    @property
    def changed(self) -> bool:
        """Whether the table is to have another row for it."""
        return self.chosen != self.present

    def finalist(self, params: Params) -> Finalist | None:
        """The one with these parameters."""
        return next((one for one in self.finalists if one.params == params), None)


def finalist(params: Params, times: dict[str, TimeUs], base: Mapping[str, TimeUs] | None) -> Finalist:
    """A configuration beside the present row's times `base`, None where that one does not run. Times: workload -> quantiles."""
    if base is None:
        return Finalist(params=params, time_us=times)
    ratios = [base[row].p50 / times[row].p50 for row in times]
    careful = [base[row].p20 / times[row].p80 for row in times]
    return Finalist(params=params, time_us=times, ratio=geometric_mean(ratios), least=min(ratios),
                    beyond_spread=geometric_mean(careful) > 1)


def choose(finalists: Sequence[Finalist], present: Params) -> Params:
    """The fastest that leads by more than LEAD and beyond the spreads, else the present row; the fastest of all where that one
    is not among them."""
    if all(one.params != present for one in finalists):
        return min(finalists, key=lambda one: geometric_mean([time.p50 for time in one.time_us.values()])).params
    leading = [one for one in finalists if (one.ratio or 0) > LEAD and one.beyond_spread]
    return max(leading, key=lambda one: one.ratio or 0).params if leading else present


def found(tunings: Sequence[Tuning]) -> dict[Cell, Params]:
    """The cells whose rows are to change."""
    return {tuning.cell: tuning.chosen for tuning in tunings if tuning.changed}


def brief(tuning: Tuning) -> str:
    """A cell in a line, and a line for each candidate that was wrong or did not run."""
    if tuning.refused:
        return f"{tuning.cell.name}: refused: {tuning.refused}"
    skipped = [f"    {said(trial.params)}: {trial.skipped}" for trial in tuning.trials if trial.skipped]
    return "\n".join([f"{tuning.cell.name}: {len(tuning.trials)} tried; {_verdict(tuning)}", *skipped])


def _verdict(tuning: Tuning) -> str:
    if not tuning.changed:
        best = max(tuning.finalists, key=lambda one: one.ratio or 0)
        if best.params == tuning.present:
            return f"the present row stays, none is faster: {said(tuning.present)}"
        why = "within the spreads" if (best.ratio or 0) > LEAD else f"a lead of {LEAD - 1:.0%} is asked for"
        return f"the present row stays: {said(best.params)} has {best.ratio:.3f} of its speed, {why}"
    best = tuning.finalist(tuning.chosen) or tuning.finalists[0]
    if best.ratio is None:
        return f"the present row does not run or is wrong; {said(best.params)} is the fastest"
    return f"{said(best.params)} has {best.ratio:.3f} of the present row's speed, at least {best.least:.3f}, beyond the spreads"


def table(tunings: Sequence[Tuning]) -> str:
    """The cells as a table in Markdown."""
    heads = ("cell", "workloads", "present", "fastest", "speed over present", "least", "beyond the spreads", "choice")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for one in tunings:
        best = max(one.finalists, key=lambda entry: entry.ratio or 0, default=None)
        if best is None:
            lines.append(f"| {one.cell.name} | {len(one.rows)} | {said(one.present)} |" + " n/a |" * 4 + f" {one.refused} |")
            continue
        cells = (said(one.present), said(best.params), _number(best.ratio), _number(best.least),
                 "yes" if best.beyond_spread else "no", said(one.chosen) if one.changed else "present")
        lines.append(f"| {one.cell.name} | {len(one.rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def said(params: Mapping[str, int]) -> str:
    """Parameters in a line."""
    return " ".join(f"{name}={value}" for name, value in params.items()) or "n/a"
