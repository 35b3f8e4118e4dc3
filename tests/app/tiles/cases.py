"""Workloads and plans that the tests of the theatre share."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import strategies as st

from app.tiles.playback import Playback
from app.tiles.track import KernelTrack
from engine.protocol import KernelPlan
from kernels.contract import AttentionWorkload, Device
from tests.app.feed import H200, planned


@st.composite
def workloads(draw: st.DrawFn) -> AttentionWorkload:
    """Small ones: causal and full, windows, grouped heads, lengths beside the tiles."""
    heads, kv_heads = draw(st.sampled_from([(1, 1), (2, 1), (4, 2)]))
    causal = draw(st.booleans())
    return AttentionWorkload(
        batch=draw(st.integers(1, 2)), seq=draw(st.sampled_from([1, 63, 128, 300])),
        seq_kv=draw(st.sampled_from([0, 130, 520])), heads=heads, kv_heads=kv_heads, head_dim=64, causal=causal,
        window=draw(st.sampled_from([0, 100])) if causal else 0,
    )


@lru_cache(maxsize=256)
def _planned(workload: AttentionWorkload, device: Device, kernels: tuple[str, ...]) -> Playback:
    return Playback(tracks(list(planned(kernels, workload, device).plans), device))


def tracks(plans: list[KernelPlan], device: Device) -> list[KernelTrack]:
    """Of the plans that have a schedule."""
    return [KernelTrack(plan, plan.schedule, device) for plan in plans if plan.schedule is not None]


def playback(
    workload: AttentionWorkload, device: Device = H200, kernels: tuple[str, ...] = ("naive", "flash")
) -> Playback:
    """The clock of those kernels, at its start."""
    clock = _planned(workload, device, kernels)
    clock.slots = [0] * len(clock.tracks)
    clock.playing, clock.speed = False, 8
    clock.seek(0.0)
    return clock
