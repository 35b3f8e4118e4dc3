"""The plots: one file each, found by scanning this folder. A module here that has a `PLOT` is a plot."""

from __future__ import annotations

import importlib
import pkgutil

from app.plots.view import Plot, PlotView

__all__ = ["Plot", "PlotView", "plots"]


def plots() -> dict[str, Plot]:
    """Every plot by its id, in the order of their places. Imports pyqtgraph: call it after the shell is painted.

    Raises: ValueError where two files claim one id.
    """
    found: dict[str, tuple[str, Plot]] = {}
    for module in pkgutil.iter_modules(__path__):
        plot = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PLOT", None)
        if plot is None:
            continue
        if plot.id in found:
            raise ValueError(f"two plots have the id {plot.id!r}: {found[plot.id][0]}.py and {module.name}.py; rename one")
        found[plot.id] = (module.name, plot)
    return {plot.id: plot for _, plot in sorted(found.values(), key=lambda entry: (entry[1].place, entry[1].id))}
