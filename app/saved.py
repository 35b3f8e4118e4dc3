"""What every export says of itself, whatever the lab: where it ran, with what, when, its verdict. Plain data; free of Qt."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from msgspec import Struct, field
from msgspec.structs import replace

from app.store import Snapshot
from app.verdict import Verdict
from engine.protocol import Device

SCHEMA = 1
Cell = str | int | float | None


class Saved(Struct, frozen=True, kw_only=True):
    """What the configurations of all labs have.

    `machine` is the device without its serial number; `theme` is the picture's. `saved` is the local time in ISO 8601 with its
    offset; `verdict` and `provenance` are the verdict line's. `NOUN`: what a run is called; `EACH`: what its figures are of;
    `MEASURED`: what `rows` are.
    """

    NOUN: ClassVar[str] = ""
    EACH: ClassVar[str] = "execution"
    MEASURED: ClassVar[type[Struct]]

    schema: int = SCHEMA
    lab: str
    device: str
    theme: str = "dark"
    machine: Device | None = None
    software: dict[str, str] = field(default_factory=dict)
    saved: str = ""
    verdict: str = ""
    provenance: str = ""

    def words(self) -> str:
        """What runs, in one line."""
        raise NotImplementedError

    def numbers(self) -> str:
        """Where the numbers come from: `times measured (CUDA events) · warm L2 · median of 40 samples · bytes scheduled`."""
        raise NotImplementedError

    def rows(self) -> tuple[Struct, ...]:
        """What was measured."""
        raise NotImplementedError

    def columns(self) -> dict[str, Cell]:
        """What runs, as cells that each row of a table repeats."""
        raise NotImplementedError


def stated(snapshot: Snapshot, lab: str, theme: str, said: Verdict) -> dict[str, Any]:
    """Those fields, of what is on screen on a device that is known."""
    assert snapshot.device is not None
    software = {"tilescope": tilescope_version()} | (snapshot.hello.software if snapshot.hello else {})
    return {
        "lab": lab, "device": snapshot.device.id, "theme": theme, "machine": replace(snapshot.device, uuid=""),
        "software": software, "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "verdict": "; ".join((said.text, *said.more)), "provenance": said.provenance,
    }


def tilescope_version() -> str:
    """This program's version, as installed."""
    try:
        return version("tilescope")
    except PackageNotFoundError:
        return "from its checkout"
