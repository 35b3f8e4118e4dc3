"""The labs: one file each, found by scanning this folder. The module `x.py` has a `LAB` whose id is `x`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.labs.lab import Lab

BASES = ("lab", "staged")   # what labs share; no labs themselves
FIRST = ("attention", "decode")     # which come before the others, whose names decide


def names() -> tuple[str, ...]:
    """The ids of all labs, in their order. Imports none of them."""
    found = (module.name for module in pkgutil.iter_modules(__path__) if module.name not in BASES)
    return tuple(sorted(found, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)))


def title_of(name: str) -> str:
    """What a lab is called in menus, before it is imported."""
    return name.replace("_", " ").capitalize()


def load(name: str) -> Lab:
    """A lab by its id. Imports pyqtgraph: call it after the shell is painted.

    Raises: ValueError where the module has no LAB of that id.
    """
    lab: Lab | None = getattr(importlib.import_module(f"{__name__}.{name}"), "LAB", None)
    if lab is None or lab.id != name:
        raise ValueError(f"app/labs/{name}.py has no LAB with the id {name!r}")
    return lab
