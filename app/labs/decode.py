"""The decode lab: a model token by token, with caches and without, in lanes side by side."""

from __future__ import annotations

from app.decoding.kind import DECODINGS
from app.decoding.state import DecodeState
from app.decoding.verdict import verdict
from app.labs.lab import Lab
from app.labs.staged import Places, StagedLab
from app.store import Snapshot
from app.theme import Theme
from app.tiles.token_stage import TokenStage
from app.verdict import Verdict

PLACES = Places(
    "Token grid", ("token_time", "kv_growth", "lane_bandwidth"),    # over one position
    ((("token_rate",), 0, 1, 1), (("decode_memory",), 0, 2, 1), (("kv_lengths",), 1, 1, 2)), (5, 3, 3), (410, 350))


class DecodeLab(StagedLab):
    """The stage plays the grid of tokens."""

    def __init__(self, theme: Theme) -> None:
        self._tokens = TokenStage(theme)
        self._shown = DecodeState()
        super().__init__(theme, self._tokens, PLACES)

    @property
    def theatre(self) -> TokenStage:
        return self._tokens

    def said(self, snapshot: Snapshot) -> Verdict:
        return verdict(snapshot)

    def show_stage(self, snapshot: Snapshot) -> None:
        if snapshot.decode is not self._shown:
            self._shown = snapshot.decode
            self._tokens.show_state(snapshot.decode)


LAB = Lab("decode", "Decode", DecodeLab, DECODINGS)
