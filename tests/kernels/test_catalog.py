"""The catalog: every kernel by id, a duplicate named with both files."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from kernels.catalog import DuplicateKernelError, catalog, collect
from kernels.contract import AttentionWorkload
from tests.kernels.shapes import H200


def test_roles_come_in_order() -> None:
    roles = [spec.info.role for spec in catalog().values()]
    assert roles == sorted(roles, key=["baseline", "ours", "peer", "published"].index)
    ours = {"naive", "fused_softmax", "flash_v1", "flash"}
    assert ours | {"sdpa_flash", "sdpa_cudnn", "sdpa_efficient", "sdpa_math"} <= set(catalog())


def test_a_duplicate_names_both_files() -> None:
    first, second = ModuleType("first"), ModuleType("second")
    for module in (first, second):
        module.__file__ = f"{module.__name__}.py"
        module.KERNELS = (catalog()["flash"],)  # type: ignore[attr-defined]
    with pytest.raises(DuplicateKernelError, match=r"first\.py.*second\.py"):
        collect([first, second])


def test_costs_and_schedules_answer_without_torch() -> None:
    code = """
import sys
from kernels.catalog import catalog
from kernels.contract import Device
device = Device(id="cuda:0", kind="cuda", name="x", capability=(9, 0))
for spec in catalog().values():
    w = spec.kind()
    config = spec.configure(w, device)
    spec.constraints(w, config, device), spec.cost(w, config), spec.schedule and spec.schedule(w, config)
    if plan := spec.blueprint:
        config = plan.configure(w, device)
        plan.constraints(w, config, device), plan.cost(w, config), plan.schedule(w, config)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_kernel_says_of_itself_is_complete() -> None:
    for spec in catalog().values():
        assert spec.info.title
        assert spec.info.summary
        assert spec.info.source
        w = spec.kind()
        assert [o.name for o in spec.operands(w)][:3] == list("QKV" if isinstance(w, AttentionWorkload) else "XWY")
        assert spec.cost(w, spec.configure(w, H200)).hbm_bytes > 0
        assert (spec.schedule is None) == spec.info.opaque
