"""What the simulator says of the kernels on screen, in numbers and words, and how far it is off. Free of Qt."""

from __future__ import annotations

from app import format as fmt
from app.store import Snapshot
from engine.protocol import Predicted

UNITS = {   # of a breakdown, in the order of the memory hierarchy: what a row of it is called, and what a sentence calls it
    "matrix": ("matrix units", "the matrix units"), "exponential": ("exponentials", "the exponential units"),
    "vector": ("vector lanes", "the vector lanes"), "sram": ("SRAM", "reading SRAM"), "L2": ("L2", "the L2"),
    "HBM": ("HBM", "HBM"), "waits": ("waiting", "waiting"), "tail": ("last wave", "its last wave"),
    "launch": ("launching", "launching"), "host": ("the host", "the host"),
}


def prediction(snapshot: Snapshot, kernel: str) -> Predicted | None:
    """What is predicted of a kernel; None where nothing is."""
    found = snapshot.predictions.get(kernel)
    return found if found is not None and found.time_ns else None


def predictions(snapshot: Snapshot) -> dict[str, Predicted]:
    """Those of the chosen kernels, in the order chosen."""
    return {kernel: one for kernel in snapshot.plans if (one := prediction(snapshot, kernel)) is not None}


def share(predicted: Predicted, unit: str) -> float:
    """What one unit would take by itself, as a share of the predicted time."""
    return predicted.breakdown_ns.get(unit, 0.0) / (predicted.time_ns or 1.0)


def off(snapshot: Snapshot, kernel: str) -> float | None:
    """The signed error of a prediction: predicted over the measured median, less 1; None where nothing real was measured."""
    found, stats = prediction(snapshot, kernel), snapshot.shown(kernel)
    if found is None or stats is None or snapshot.series[kernel].provenance != "measured":
        return None
    return (found.time_ns or 0.0) / stats.p50 - 1.0


def beside(snapshot: Snapshot, kernel: str) -> str:
    """`predicted 550 µs (+4.1 %)`, the error where something was measured; empty where nothing is predicted."""
    found, error = prediction(snapshot, kernel), off(snapshot, kernel)
    if found is None:
        return ""
    return f"predicted {fmt.time_ns(found.time_ns)}" + ("" if error is None else f" ({fmt.signed_percent(error)})")


def facts(snapshot: Snapshot, kernel: str) -> list[tuple[str, str]]:
    """What the inspector says of a prediction, as label and value."""
    said, found = snapshot.predictions.get(kernel), prediction(snapshot, kernel)
    if said is not None and said.refused:
        return [("predicted", said.refused)]
    if found is None:
        return []
    error = off(snapshot, kernel)
    rows = [("predicted", fmt.time_ns(found.time_ns) + ("" if error is None else f", {fmt.signed_percent(error)}"))]
    rows.append(("at", fmt.clock_hz(found.clock_hz)))
    unit = UNITS.get(found.limiter, (found.limiter, ""))[0]
    rows.append(("limited by", f"{unit}, {fmt.percent(share(found, found.limiter))} of the time"))
    held: dict[str, list[str]] = {}
    for launch in found.launches:
        held.setdefault(f"{fmt.plural(launch.per_sm, 'program')}, by {launch.limit}", []).append(launch.name)
    rows += [("an SM holds" if len(held) == 1 else ", ".join(names), words) for words, names in held.items()]
    rows += [("moves of HBM", fmt.bytes_iec(found.dram_bytes)), ("found in L2", fmt.percent(found.l2_hit_rate))]
    return rows + [("doubt", doubt) for doubt in found.doubts]


def why(snapshot: Snapshot, kernels: list[str]) -> str:
    """What limits each of some kernels, in a clause; empty where nothing is predicted."""
    by: dict[str, list[str]] = {}
    for kernel in kernels:
        if (found := prediction(snapshot, kernel)) is not None:
            by.setdefault(found.limiter, []).append(snapshot.title(kernel))
    said = [f"{' and '.join(names)} by {UNITS.get(unit, (unit, unit))[1]}" for unit, names in by.items()]
    return f"predicted to be limited: {', '.join(said)}" if said else ""
