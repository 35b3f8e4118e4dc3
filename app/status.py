"""The status line: what the engine does, the check, data type, how the numbers were taken, frames a second."""

from __future__ import annotations

from collections.abc import Sequence

from app.store import Snapshot


def status(snapshot: Snapshot, readings: Sequence[str], frames_per_second: float | None) -> str:
    """One line; what is not known is left out. `readings`: those of the lab's own kind of run."""
    parts = []
    if snapshot.phase is not None:
        phase = snapshot.phase
        name = f"{phase.name} {phase.kernel}".strip() if phase.name != "measuring" else phase.name
        parts.append(f"{name} {phase.done} of {phase.total}" if phase.total else name)
    parts += readings
    if frames_per_second is not None:
        parts.append(f"{frames_per_second:.0f} frames/s")
    return " · ".join(parts)
