"""What the plots of a decoding share: a lane's mark, and why it has no time."""

from __future__ import annotations

from app import format as fmt
from app.decoding.state import DecodeState
from app.theme import Mark, Theme
from engine.protocol import Provenance


def lane_mark(theme: Theme, state: DecodeState, lane: str, provenance: Provenance = "measured") -> Mark:
    """Hue, dash and marker of a lane, the same in every plot."""
    return theme.mark(state.hues.get(lane, len(state.hues)), provenance)


def waiting(state: DecodeState, lane: str) -> bool:
    """Whether a lane has no step to show."""
    return state.median_ns(lane) is None


def no_time(state: DecodeState, lane: str) -> tuple[str, str]:
    """Why a lane has no time to show: a word or two, and a sentence. Empty where it has one."""
    if not waiting(state, lane):
        return "", ""
    if lane in state.refusals:
        return "refused", state.refusals[lane]
    return fmt.NA, "There is no sample yet."
