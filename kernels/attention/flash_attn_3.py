"""FlashAttention-3 as its authors published it, to be predicted: which tiles it takes, in how many warps and bytes.

One warp of a producer warpgroup fills rings of two tiles by TMA. Forward each other warpgroup owns 64 rows, issues S of the
next tile and P V of this one, and exponentiates the next beside them. Programs stay, one a multiprocessor: without a mask they
deal items out in turn, with one whoever is free takes the next. Where rows come in an even number of blocks and no mask cuts
them, two programs are a cluster and one read of K and V serves both. Backward, flash_hopper_backward's order: each warpgroup
owns 64 keys, P is exponentiated beside dP = dO V^T, the warpgroups exchange dS, TMA adds dQ to its sum; with grouped heads each
query head has its programs, which add to sums of dK and dV too.
The forward tiles are those of the first release, of July 2024, which the paper's table was measured with: at D 64 192 x 128, at
D 128 128 x 176 (causal 128 x 128), at D 256 128 x 80. Those of D 96 and 192 came later and are v2.7's, as are the backward
tiles. The first release deals causal items out in turn too, but then some program would have 1.5 times the mean at N 16k, and
the paper's causal rows lie within 5 % of the others: the order here is that of the release after it.
Source: Shah et al., FlashAttention-3 (2024); Dao-AILab/flash-attention, hopper/: flash_fwd_launch_template.h at 7f67966 and
bc5dd34, flash_bwd_launch_template.h of v2.7, kernel_traits.h for shared memory, tile_size.h.
A guess: that the paper's causal rows were measured with the dynamic order, and 1 KiB for barriers.
"""

from __future__ import annotations

from functools import partial

from kernels.attention import key_walk, peer, published_rows, reference, row_walk
from kernels.contract import AttentionWorkload, Blueprint, Config, Cost, Device, Operand, Resources, Schedule, of_pass
from kernels.jit import cdiv

FORWARD, BACKWARD = "flash_fwd_sm90", "flash_bwd_sm90"
WARPGROUP_ROWS = 64
ROLES = ("producer", "consumer")
STAGES = 2
SM_REGISTERS = 65536
BARRIER_BYTES = 1024
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


def _backward_tile(workload: AttentionWorkload) -> tuple[int, int, int, int, int]:
    """(rows, keys, columns, warpgroups that compute, places of dO and of dS)."""
    d = workload.head_dim
    if d <= 64:
        return 128, 128, 64, 2, 2
    if d <= 96:
        return 64, 128, 96, 2, 2
    if d <= 128:
        return 64 if workload.causal else 80, 128, 128, 2, 2
    return (64, 96, 192, 3, 1) if d <= 192 else (64, 80, 256, 2, 1)


def _registers(warps: int) -> int:
    """Of each thread when it starts, by eights: one program fills the SM. Warps with roles trade them then."""
    return SM_REGISTERS // (32 * warps) // 8 * 8


def _forward_config(workload: AttentionWorkload, device: Device) -> Config:
    rows, keys, columns = _forward_tile(workload)
    warps = 4 * (rows // WARPGROUP_ROWS) + 4
    paired = not workload.causal and columns >= 128 and cdiv(workload.seq, rows) % 2 == 0
    sram = 2 * columns * (rows + 2 * keys * STAGES) + BARRIER_BYTES  # Q, K and V; O leaves from V's place
    return Config(
        params={"block_m": rows, "block_n": keys, "block_d": columns, "warps": warps, "stages": STAGES,
                "programs": device.sms or PROGRAMS, "cluster": 1 + paired},
        resources={FORWARD: Resources(_registers(warps), sram)})


def _backward_config(workload: AttentionWorkload, device: Device) -> Config:  # noqa: ARG001
    rows, keys, columns, groups, places = _backward_tile(workload)
    warps = 4 * groups + 4
    sram = 2 * columns * (rows * (STAGES + places) + 2 * keys) + 2 * rows * keys * places  # Q and dO, K and V, dS
    sram += 4 * rows * columns if columns < 256 else 0  # dQ on its way to the sum
    sram += 2 * rows * keys if columns > 128 else 0  # P, which else stays in registers
    sram += 4 * rows * 2 * STAGES + BARRIER_BYTES  # lse and delta
    around = dict.fromkeys(("delta", "dQ", "dK = 0", "dV = 0", "dK", "dV"), Resources(SM_REGISTERS // 2048, 0))
    return Config(
        params={"block_m": rows, "block_n": keys, "block_d": columns, "warps": warps, "stages": STAGES, "places": places},
        resources={BACKWARD: Resources(_registers(warps), sram), **around})


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What it does not do."""
    return peer.not_published("FlashAttention-3", workload, config, device, ((9, 0), (10, 0)), "compute capability 9.x")


def _groups(config: Config) -> int:
    """Warpgroups that compute."""
    return max(1, config["warps"] // 4 - 1)


def forward(kernel: str, workload: AttentionWorkload, config: Config) -> Schedule:
    """Items are the blocks of rows from the first to the last, then heads, then sequences. Each warpgroup reads all of K, V."""
    bd, groups = row_walk.width(workload, config), _groups(config)
    rows, keys = 2 * config["block_m"] * bd, 2 * config["block_n"] * bd * groups
    return published_rows.schedule(
        workload, config, kernel=kernel, launch=FORWARD, ring=config["stages"], roles=ROLES,
        resident=config.params.get("programs", 0), dynamic=workload.causal, groups=groups, async_products=True, wgmma=True,
        moved={"S": rows + keys, "O": keys}, loads={"multicast": config.params.get("cluster", 1)},
    )


def backward_operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """key_walk's, with sums of dK and dV where heads are grouped."""
    return key_walk.operands(workload, workload.group > 1)


def backward_cost(workload: AttentionWorkload, config: Config) -> Cost:
    """key_walk's closed form, a program for each query head."""
    return key_walk.cost(workload, config, workload.group, idle=False)


def backward(kernel: str, workload: AttentionWorkload, config: Config) -> Schedule:
    """delta, the walk of each block of keys, dQ from its sum."""
    places, wide = config.params.get("places", 2), row_walk.width(workload, config) == 256
    return key_walk.schedule(
        workload, config, kernel=kernel, walk=BACKWARD, warps=config["warps"], ring=STAGES, turns=places, sum_in_sram=not wide,
        parts=workload.group, idle=False, roles=ROLES, alone=() if places > 1 else ("dO",), moved=_moved(workload, config),
        groups=_groups(config), async_products=True, wgmma=True)


def _moved(workload: AttentionWorkload, config: Config) -> dict[str, int]:
    """By what it gives, the bytes that the matrix units read from SRAM for each warpgroup, and those of dS and dQ put there."""
    bm, bn, bd, groups = config["block_m"], config["block_n"], row_walk.width(workload, config), _groups(config)
    rows, keys, square = 2 * bm * bd, 2 * bn * bd, 2 * bm * bn
    held = square if bd > 128 else 0  # P, where it does not stay in registers
    return {
        "S": keys + rows * groups, "P": held, "dP": keys + rows * groups, "dS": square, "dV": rows * groups + held,
        "dK": rows * groups + held, "dQ": square * groups + keys + 2 * rows,
    }


def blueprint(kernel: str) -> Blueprint:
    """For the kernel of that id."""
    return Blueprint(
        operands=of_pass(published_rows.operands, backward_operands), configure=of_pass(_forward_config, _backward_config),
        constraints=constraints, cost=of_pass(published_rows.cost, backward_cost),
        schedule=of_pass(partial(forward, kernel), partial(backward, kernel)), tolerance=reference.tolerance,
        source="Shah et al. 2024; Dao-AILab/flash-attention, hopper/flash_fwd_launch_template.h of July 2024, backward of "
               "v2.7; the order of causal items is a guess",
    )
