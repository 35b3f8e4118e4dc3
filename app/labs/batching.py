"""The batching lab: the same work for one row and for many, from reading weights to arithmetic."""

from __future__ import annotations

from app.batching.kind import BATCHINGS
from app.batching.state import BatchState
from app.batching.verdict import verdict
from app.labs.lab import Lab
from app.labs.staged import Places, StagedLab
from app.store import Snapshot
from app.theme import Theme
from app.tiles.batch_stage import BatchStage
from app.verdict import Verdict
from engine.protocol import Device

PLACES = Places(
    "Rows of a batch", ("batch_rate",), ((("batch_latency",), 0, 1, 1), (("batch_roofline",), 1, 1, 1)), (1, 1), (350, 410))


class BatchingLab(StagedLab):
    """Nothing plays: the stage is a picture."""

    def __init__(self, theme: Theme) -> None:
        self._rows = BatchStage(theme)
        self._shown = BatchState()
        self._device: Device | None = None
        super().__init__(theme, self._rows, PLACES)

    def said(self, snapshot: Snapshot) -> Verdict:
        return verdict(snapshot)

    def show_stage(self, snapshot: Snapshot) -> None:
        if snapshot.batch is not self._shown or snapshot.device is not self._device:
            self._shown, self._device = snapshot.batch, snapshot.device
            self._rows.show_state(self._shown, self._device)


LAB = Lab("batching", "Batching", BatchingLab, BATCHINGS)
