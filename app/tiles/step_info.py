"""What the theatre says of the step in focus; the inspector shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One step of one program: `step` counts from 1 and is 0 before the first; `lines` are sentences."""

    kernel: str
    launch: str
    program: str
    step: int
    steps: int
    title: str
    lines: tuple[str, ...]
