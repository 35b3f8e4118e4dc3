"""The rows of the attention bench: 16k tokens and hidden 2048, grouped heads, and shapes that are no multiple of anything."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from engine.options import BadInput
from kernels.contract import AttentionWorkload
from kernels.contract.workload import Pass

TOKENS, HIDDEN = 16384, 2048
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
PASSES: tuple[Pass, ...] = ("forward", "backward")


class Row(NamedTuple):
    """One workload under the name that `--only` finds it by. `main`: one of the 24 that means are taken over."""

    id: str
    workload: AttentionWorkload
    main: bool


def rows(only: tuple[str, ...] = ()) -> list[Row]:
    """All of them, or those that `only` names."""
    return named(_all(), only)


class Named(Protocol):
    """A row of any bench."""

    @property
    def id(self) -> str: ...


N = TypeVar("N", bound=Named)


def named(found: Sequence[N], only: tuple[str, ...]) -> list[N]:
    """Those whose ids hold every word of one of `only`; without one all. Raises: BadInput where there is none."""
    chosen = [row for row in found if holding(row.id, only)]
    if not chosen:
        raise BadInput(f"no row holds {' or '.join(only)!r}: write for example --only '{found[-1].id}'")
    return chosen


def holding(id: str, only: tuple[str, ...]) -> bool:
    """Whether a row's id holds every word of one of `only`, or that is empty."""
    return not only or any(all(word in id.split() for word in text.split()) for text in only)


def _all() -> list[Row]:
    found = []
    for pass_ in PASSES:
        for head_dim, causal, seq in product((64, 128), (False, True), LENGTHS):
            heads = HIDDEN // head_dim
            workload = AttentionWorkload(batch=TOKENS // seq, heads=heads, kv_heads=heads, seq=seq, head_dim=head_dim,
                                         causal=causal, pass_=pass_)
            found.append(Row(_name(pass_, head_dim, causal, seq), workload, True))
        for name, workload in _EXTRA.items():
            found.append(Row(f"{pass_} {name}", replace(workload, pass_=pass_), False))
    return found


def _name(pass_: str, head_dim: int, causal: bool, seq: int) -> str:
    return f"{pass_} D{head_dim} {'causal' if causal else 'full'} N{seq}"


_EXTRA = {
    "GQA 32:8 D128 causal N4096": AttentionWorkload(batch=4, heads=32, kv_heads=8, seq=4096, head_dim=128),
    "MQA 32:1 D128 causal N4096": AttentionWorkload(batch=4, heads=32, kv_heads=1, seq=4096, head_dim=128),
    "odd D128 causal N4001": AttentionWorkload(batch=4, heads=16, kv_heads=16, seq=4001, head_dim=128),
    "odd D64 full N1500x3333": AttentionWorkload(
        batch=8, heads=32, kv_heads=32, seq=1500, seq_kv=3333, head_dim=64, causal=False),
}
