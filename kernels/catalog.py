"""All kernels: the folders beside this file are scanned, and every module that has KERNELS gives its kernels."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

from kernels.contract import KernelSpec


class DuplicateKernelError(ValueError):
    """Two files give a kernel of the same id; the text names both."""


@cache
def catalog() -> dict[str, KernelSpec]:
    """Every kernel by id: baselines first, then ours, peers, and what is published alone; by place and id within a role.

    Raises:
        DuplicateKernelError: two files give the same id.
    """
    return collect(_modules(Path(__file__).parent))


def collect(modules: Iterable[ModuleType]) -> dict[str, KernelSpec]:
    """The kernels of these modules. Raises: DuplicateKernelError."""
    found: dict[str, KernelSpec] = {}
    homes: dict[str, str] = {}
    for module in modules:
        for spec in getattr(module, "KERNELS", ()):
            if spec.id in found:
                raise DuplicateKernelError(f"kernel {spec.id!r} is in {homes[spec.id]} and in {module.__file__}: rename one")
            found[spec.id], homes[spec.id] = spec, str(module.__file__)
    order = {"baseline": 0, "ours": 1, "peer": 2, "published": 3}
    return dict(sorted(found.items(), key=lambda item: (order[item[1].info.role], item[1].info.place, item[0])))


def _modules(root: Path) -> Iterable[ModuleType]:
    for family in sorted(p.parent.name for p in root.glob("*/__init__.py") if p.parent.name != "contract"):
        for info in pkgutil.iter_modules([str(root / family)]):
            yield importlib.import_module(f"kernels.{family}.{info.name}")
