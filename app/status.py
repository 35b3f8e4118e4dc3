"""The status line: what the engine does, the check, data type, how the numbers were taken, frames a second."""

from __future__ import annotations

from app import format as fmt
from app.store import Snapshot


def status(snapshot: Snapshot, frames_per_second: float | None) -> str:
    """One line; what is not known is left out."""
    parts = []
    if snapshot.phase is not None:
        phase = snapshot.phase
        name = f"{phase.name} {phase.kernel}".strip() if phase.name != "measuring" else phase.name
        parts.append(f"{name} {phase.done} of {phase.total}" if phase.total else name)
    failed = [kernel for kernel in snapshot.checks if snapshot.failed(kernel)]
    passed = [check for check in snapshot.checks.values() if check.ok]
    if failed:
        parts.append(f"check FAILED: {', '.join(failed)}")
    elif passed:
        parts.append(f"check passed ({fmt.error(max(check.max_error for check in passed))})")
    if snapshot.workload:
        parts.append(snapshot.workload.dtype)
    shown = [series for name in snapshot.plans if snapshot.shown(name) and (series := snapshot.series.get(name))]
    if shown:
        counts = [series.stats.n for series in shown if series.stats]
        policies = sorted({f"{series.l2_policy} L2" for series in shown if series.l2_policy})
        fewest, most = min(counts), max(counts)
        parts += [*policies, f"median of {fewest}" if fewest == most else f"median of {fewest} to {most}"]
        parts.append(", ".join(sorted({series.provenance for series in shown})))
    if frames_per_second is not None:
        parts.append(f"{frames_per_second:.0f} frames/s")
    return " · ".join(parts)
