"""What a lab runs, as the rest of the window knows it: a choice that becomes a command, and what is said of its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from rich.table import Table

from app import what_if
from app.configuration import AnyConfiguration
from app.store import Snapshot
from engine.protocol import Configure, ConfigureBatching, ConfigureDecoding, Hello

if TYPE_CHECKING:
    from app.panels.form import Form
    from app.theme import Theme

Section = tuple[str, list[tuple[str, str]]]     # a title, and facts as label and value
Tell = Callable[[str, str], object]             # a message and its advice


class Choice(Protocol):
    """Everything that a lab's form sets, as frozen data."""

    @property
    def device(self) -> str:
        """Where it runs."""

    def configure(self, generation: int) -> Configure | ConfigureDecoding | ConfigureBatching:
        """The command that runs it."""

    def lacks(self) -> tuple[str, str] | None:
        """What must be chosen before it can run, and how; None where nothing is missing."""

    def changed_from(self, before: Any) -> str:
        """The name of the step from another choice to this one."""


class Kind:
    """A kind of run. `choice` is the type of its choices, which settings keep as JSON."""

    choice: type[Any]

    def form(self, theme: Theme) -> Form:
        """The controls."""
        raise NotImplementedError

    def first(self, hello: Hello, asked: Mapping[str, Any], tell: Tell) -> Any:
        """The first choice on this engine, as the command line has it; what cannot be is told."""
        raise NotImplementedError

    def fitted(self, choice: Any, hello: Hello) -> Any | None:
        """A choice kept from an earlier start, where this engine can still run it."""
        raise NotImplementedError

    def restored(self, shown: Any, hello: Hello, instead: str) -> tuple[Any, str]:
        """The choice that a picture embeds, on this engine, and a sentence on what had to differ (empty where nothing).

        Args:
            instead: the device that serves where the picture's is not here.
        """
        raise NotImplementedError

    def kept(self, raw: bytes | None, hello: Hello) -> Any | None:
        """A choice as settings keep it, where it is one and can still run."""
        try:
            return None if raw is None else self.fitted(msgspec.json.decode(raw, type=self.choice), hello)
        except (msgspec.DecodeError, RecursionError):
            return None

    def planned(self, snapshot: Snapshot) -> bool:
        """Whether the engine has answered with a plan."""
        raise NotImplementedError

    def configuration(self, snapshot: Snapshot, lab: str, theme: str, choice: Choice | None) -> AnyConfiguration | None:
        """What an export states; None before there is a plan. `choice`: the one on screen, where it was chosen here."""
        raise NotImplementedError

    def inspected(self, snapshot: Snapshot) -> list[Section]:
        """What the inspector says."""
        raise NotImplementedError

    def readings(self, snapshot: Snapshot) -> list[str]:
        """What the status line says, of the check and of the numbers."""
        raise NotImplementedError

    def check(self, hello: Hello, choice: Any, asked: Mapping[str, Any]) -> None:
        """Raises: engine.options.BadInput where something else than what was asked for would run."""
        raise NotImplementedError

    def settled(self, snapshot: Snapshot) -> bool:
        """Whether all that was not refused has a figure."""
        raise NotImplementedError

    def failed(self, snapshot: Snapshot) -> bool:
        """Whether something came out wrong."""
        raise NotImplementedError

    def report(self, shown: Any) -> Table:
        """What was measured, for a terminal."""
        raise NotImplementedError


def device_of(asked: Mapping[str, Any], hello: Hello, tell: Tell) -> Any:
    """The device that was asked for, else the first."""
    wanted = asked.get("device")
    device = what_if.device_of(wanted, hello) if wanted else None
    if wanted and device is None:
        tell(f"There is no device {wanted!r} here", f"There are {', '.join(d.id for d in hello.devices)}")
    return device or hello.devices[0]


def moved(shown: AnyConfiguration, hello: Hello, instead: str) -> tuple[str, list[str]]:
    """Where a picture's run can go on: its own device, or `instead` and a sentence that says so."""
    if what_if.device_of(shown.device, hello) is not None:
        return shown.device, []
    name = shown.machine.name if shown.machine else shown.device
    return instead, [f"{name} ({shown.device}) is not here: {instead} runs instead."]


def plain_table(*columns: str) -> Table:
    """A table without lines."""
    return Table(*columns, box=None, pad_edge=False)


def median_words(counts: Sequence[int]) -> str:
    """`median of 40`, or from where to where."""
    fewest, most = min(counts), max(counts)
    return f"median of {fewest}" if fewest == most else f"median of {fewest} to {most}"
