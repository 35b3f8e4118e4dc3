"""What the inspector knows of each kernel."""

from __future__ import annotations

from msgspec.structs import replace

from app.kernel_runs import facts
from app.store import Store
from kernels.contract import Cost
from tests.app import feed


def test_a_kernel_without_the_pass_has_its_refusal_and_no_numbers() -> None:
    planned = feed.planned(("flash",), refused={"flash": "flash has no such pass"})
    bare = replace(planned.plans[0], cost=Cost(nominal_flops=1, flops=0, hbm={}), schedule=None, peak_memory_bytes=0)
    store = Store()
    for event in (feed.hello(), replace(planned, plans=(bare,))):
        store.reduce(event)
    assert facts(store.snapshot(), bare) == [("refused", "flash has no such pass")]


def test_a_kernel_that_runs_has_its_parameters_work_and_traffic() -> None:
    store = Store()
    for event in feed.run(("flash",), seconds=1):
        store.reduce(event)
    snapshot = store.snapshot()
    found = dict(facts(snapshot, snapshot.plans["flash"]))
    assert found["HBM bytes"].endswith("MiB")
    assert "wgmma" not in found, "only what a user may set"
    assert found["check"].startswith("passed")
