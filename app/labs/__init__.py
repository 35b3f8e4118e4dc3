"""The labs: one file each, found by scanning this folder. The module `x.py` has a `LAB` whose id is `x`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.labs.lab import Lab

BASE = "lab"    # what all labs share; no lab itself


def names() -> tuple[str, ...]:
    """The ids of all labs. Imports none of them."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if module.name != BASE)


def load(name: str) -> Lab:
    """A lab by its id. Imports pyqtgraph: call it after the shell is painted.

    Raises: ValueError where the module has no LAB of that id.
    """
    lab: Lab | None = getattr(importlib.import_module(f"{__name__}.{name}"), "LAB", None)
    if lab is None or lab.id != name:
        raise ValueError(f"app/labs/{name}.py has no LAB with the id {name!r}")
    return lab
