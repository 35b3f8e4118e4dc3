"""Decoding the naive way: one program per query head walks over all of K and V.

The walk is that of split_kv, with one query head a program and one split: with a batch of one and 32 heads 32 programs read
the cache, though the device has room for hundreds, and the heads of a group each read their KV head again.
HBM traffic: Q + K + V + O, K and V once; tile traffic: K and V once per query head.
Source: Dao et al., Flash-Decoding for long-context inference (2023), which begins from it.
"""

from __future__ import annotations

from functools import partial

from kernels import tuned
from kernels.attention import reference
from kernels.contract import AttentionWorkload, Compilation, Config, Cost, Device, KernelInfo, KernelSpec, Schedule
from kernels.decode import shares, split_kv


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """One launch."""
    return split_kv.compilations_of("dense", workload, config, 1, 1)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table."""
    config = tuned.nearest("dense", workload, device)
    return tuned.with_resources(config, compilations(workload, config), device)


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form."""
    return shares.cost(workload, 1, 1, split_kv.cache_bytes(workload), shares.steps(workload, config, 1))


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """One launch."""
    return split_kv.schedule_of("dense", "all of K and V", workload, config, 1, 1)


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="dense", title="dense decode", place=100, summary="one program per query head walks over all of K and V",
            family="decode", role="baseline", source="Dao et al. 2023, Flash-Decoding", params=(*shares.PARAMS, split_kv.TMA),
        ),
        operands=reference.operands, inputs=reference.inputs, reference=reference.reference,
        launch=partial(split_kv.launch, heads=1, count=1), configure=configure,
        constraints=partial(split_kv.constraints, "dense decode"), cost=cost, schedule=schedule, compilations=compilations,
        tolerance=reference.tolerance,
    ),
)
