"""FlashAttention-3 as its authors published it, to be predicted: which tiles it takes, in how many warps and bytes.

One warp of a producer warpgroup fills rings of two tiles of K and of V by TMA; each other warpgroup owns 64 rows, issues S of
the next tile and P V of this one, and exponentiates the next beside them. Programs stay, one a multiprocessor: without a mask
they deal items out in turn, with one whoever is free takes the next. Where rows come in an even number of blocks and no mask
cuts them, two programs are a cluster and one read of K and V serves both.
The tiles are those of the first release, of July 2024, which the paper's table was measured with: at D 64 192 x 128, at D 128
128 x 176 (causal 128 x 128), at D 256 128 x 80. Those of D 96 and 192 came later and are v2.7's. The first release deals causal
items out in turn too, but then some program would have 1.5 times the mean at N 16k, and the paper's causal rows lie within 5 %
of the others: the order here is that of the release after it.
Source: Shah et al., FlashAttention-3 (2024); Dao-AILab/flash-attention, hopper/: flash_fwd_launch_template.h at 7f67966 and
bc5dd34, kernel_traits.h for shared memory, tile_size.h.
A guess: that the paper's causal rows were measured with the dynamic order, and 1 KiB for barriers.
"""

from __future__ import annotations

from functools import partial

from kernels.attention import peer, published_rows, reference
from kernels.contract import AttentionWorkload, Blueprint, Config, Device, Resources, Schedule
from kernels.jit import cdiv

FORWARD = "flash_fwd_sm90"
WARPGROUP_ROWS = 64
ROLES = ("producer", "consumer")
STAGES = 2
SM_REGISTERS = 65536
PROGRAMS = 132  # one a multiprocessor of an H100 or H200, where the device does not say


def _forward_tile(workload: AttentionWorkload) -> tuple[int, int, int]:
    """(rows, keys, columns)."""
    d, masked = workload.head_dim, workload.causal
    if d <= 64:
        return 192, 128, 64
    if d <= 96:
        return 192, 128 if workload.window else 144, 96
    if d <= 128:
        return 128, 128 if masked else 176, 128
    if d <= 192:
        return 128, 96 if workload.window else 112, 192
    return 128, 80, 256


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The published tile of this head dim and mask."""
    rows, keys, columns = _forward_tile(workload)
    warps = 4 * (rows // WARPGROUP_ROWS) + 4
    paired = not workload.causal and columns >= 128 and cdiv(workload.seq, rows) % 2 == 0
    return Config(
        params={"block_m": rows, "block_n": keys, "block_d": columns, "warps": warps, "stages": STAGES,
                "programs": device.sms or PROGRAMS, "cluster": 1 + paired},
        resources={FORWARD: Resources(
            _registers(warps), 2 * columns * (rows + 2 * keys * STAGES) + 1024)})  # Q, K and V; O leaves from V's place


def _registers(warps: int) -> int:
    """Of each thread when it starts, by eights: one program fills the SM. Warps with roles trade them then."""
    return SM_REGISTERS // (32 * warps) // 8 * 8


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What it does not do."""
    return peer.not_published("FlashAttention-3", workload, config, device, (9,), "compute capability 9.x")


def schedule(kernel: str, workload: AttentionWorkload, config: Config) -> Schedule:
    """Items are the blocks of rows from the first to the last, then heads, then sequences."""
    return published_rows.schedule(
        workload, config, kernel=kernel, launch=FORWARD, ring=config["stages"], roles=ROLES,
        resident=config.params.get("programs", 0), dynamic=workload.causal, groups=max(1, config["warps"] // 4 - 1),
        async_products=True, loads={"multicast": config.params.get("cluster", 1)},
    )


def blueprint(kernel: str) -> Blueprint:
    """For the kernel of that id."""
    return Blueprint(
        operands=published_rows.operands, configure=configure, constraints=constraints, cost=published_rows.cost,
        schedule=partial(schedule, kernel), tolerance=reference.tolerance,
        source="Shah et al. 2024; Dao-AILab/flash-attention, hopper/flash_fwd_launch_template.h of July 2024; the order of "
               "causal items is a guess",
    )
