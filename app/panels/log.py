"""What the engine said, line by line: phases, checks, refusals, faults. Samples are in the plots."""

from __future__ import annotations

from PySide6.QtWidgets import QPlainTextEdit

from app import format as fmt
from engine.protocol import (
    BatchingPlanned,
    Bye,
    Ceilings,
    Checked,
    DecodeSample,
    DecodingPlanned,
    Event,
    Fault,
    Hello,
    LaneDone,
    Phase,
    Planned,
    Refused,
)

KEPT = 2000


def line(event: Event) -> str:
    """One event in words; empty for what belongs in a plot."""
    match event:
        case Hello():
            said = f"engine ready: {fmt.plural(len(event.devices), 'device')}, {fmt.plural(len(event.kernels), 'kernel')}"
        case Planned():
            said = f"planned {', '.join(plan.kernel for plan in event.plans)} on {event.device}"
        case DecodingPlanned():
            said = f"planned {event.decoding.model.title}, {', '.join(plan.lane.id for plan in event.plans)} on {event.device}"
        case BatchingPlanned():
            said = f"planned {event.batching.work} at {fmt.plural(len(event.plans), 'batch size')} on {event.device}"
        case Ceilings():
            said = f"ceilings: {fmt.quantity(event.flops_per_s, 'FLOP/s')}, {fmt.rate(event.bytes_per_s)}"
        case DecodeSample(prefill=True):
            said = f"prompt of {event.lane}: {fmt.plural(event.position, 'token')} in {fmt.time_ns(event.time_ns)}"
        case LaneDone():
            said = f"{event.lane} is done: {fmt.plural(sum(map(len, event.tokens)), 'token')}"
        case Phase():
            count = f" {event.done} of {event.total}" if event.total else ""
            said = " ".join(part for part in (event.name, event.kernel) if part) + count
        case Checked():
            verdict = "passed" if event.ok else "FAILED"
            said = (f"check {verdict}: {_named(event)}, error {fmt.error(event.max_error)} of {fmt.error(event.tolerance)}, "
                    f"{event.rows} rows a head")
        case Refused():
            said = f"refused {_named(event)}".rstrip() + f": {event.reason}"
        case Fault():
            said = f"fault: {event.message} {event.remedy}"
        case Bye():
            said = f"engine ended {event.reason}".rstrip()
        case _:
            return ""
    return f"{event.t_ns / 1e9:9.2f} s  {said}"


def _named(event: Checked | Refused) -> str:
    """The kernel, and at which batch size where there are several."""
    return event.kernel if event.batch is None else f"{event.kernel} at batch {event.batch}"


class Log(QPlainTextEdit):
    """The newest lines; the oldest go first."""

    def __init__(self) -> None:
        super().__init__()
        self.setReadOnly(True)
        self.setMaximumBlockCount(KEPT)
        self.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.setPlaceholderText("What the engine says appears here: phases, checks, refusals.")
        self.setAccessibleName("Log")

    def add(self, event: Event) -> None:
        """Appends the line of an event that has one."""
        if said := line(event):
            self.appendPlainText(said)
