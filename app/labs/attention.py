"""The attention lab: kernels side by side, tile by tile in the theatre, and the plots that belong to them."""

from __future__ import annotations

from app.kernel_runs import KERNELS
from app.labs.lab import Lab
from app.labs.staged import Places, StagedLab
from app.store import Snapshot
from app.theme import Theme
from app.tiles.theatre import Theatre
from app.verdict import Verdict, verdict

PLACES = Places(
    "Tile theatre", ("throughput", "utilisation", "power"),     # over one time
    ((("latency", "limits"), 0, 1, 1), (("hbm",), 0, 2, 1), (("traffic", "roofline"), 1, 1, 1), (("kv_cache",), 1, 2, 1)),
    (4, 3, 3), (470, 290))


class AttentionLab(StagedLab):
    """The theatre plays the schedules of the kernels that run."""

    def __init__(self, theme: Theme) -> None:
        self._tiles = Theatre(theme)
        self._planned: tuple[object, ...] = ()
        super().__init__(theme, self._tiles, PLACES)

    @property
    def theatre(self) -> Theatre:
        return self._tiles

    def said(self, snapshot: Snapshot) -> Verdict:
        return verdict(snapshot)

    def show_stage(self, snapshot: Snapshot) -> None:
        planned = (snapshot.plans, snapshot.device, snapshot.workload, snapshot.predictions)
        if snapshot.device and snapshot.workload and planned != self._planned:
            self._planned = planned
            running = [plan for plan in snapshot.plans.values() if plan.kernel not in snapshot.refusals]
            titles = {info.id: info.title for info in snapshot.infos}
            self._tiles.show_plans(running, snapshot.device, snapshot.workload, titles, snapshot.predictions)


LAB = Lab("attention", "Attention", AttentionLab, KERNELS)
