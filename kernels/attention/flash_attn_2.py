"""FlashAttention-2 as its authors published it, to be predicted: which tiles it takes, in how many warps and bytes.

Its products are mma.sync of warps that wait for them (nothing runs beside them but other warps' work), its loads cp.async. The
forward pass has one place each for K and V: the next K is fetched while this tile's softmax and P V run, V while its S is
multiplied; its four warps own rows. The backward pass has two places for Q and one for dO; its eight warps share a tile both
ways and hand P and dS over through shared memory, so they go through it together. With grouped heads each query head has its
programs, and dK and dV are summed over a group in float32; the library writes them for every head and sums then.
SDPA's flash back end is this library, built into PyTorch.
Source: Dao-AILab/flash-attention v2, csrc/flash_attn/src: run_mha_fwd_hdim* and run_mha_bwd_hdim* of flash_fwd_ and
flash_bwd_launch_template.h; kernel_traits.h for shared memory and for how warps share tiles; what ptxas printed in issues 1630
(forward, D 128) and 420 (what goes before and after the backward walk) for registers.
A guess: 255 registers a thread everywhere else. Head dims 160 and 224 take the next size, as from v2.7 on.
"""

from __future__ import annotations

from functools import partial

from kernels.attention import key_walk, peer, published_rows, reference, row_walk
from kernels.contract import AttentionWorkload, Blueprint, Config, Cost, Device, Operand, Resources, Schedule, of_pass

FORWARD, BACKWARD = "flash_fwd", "flash_bwd_dq_dk_dv"
MOST_REGISTERS = 255  # that a thread may have
A100 = (8, 0)
SRAM_BYTES = 163 << 10  # of an A100's block, where a device does not say


def _small(device: Device) -> bool:
    """Compute capability 8.6 and 8.9: 99 KiB a block."""
    return device.capability is not None and device.capability[0] == 8 and device.capability != A100


def _forward_tile(workload: AttentionWorkload, device: Device) -> tuple[int, int, int, int]:
    """(rows, keys, columns, warps). Two programs an SM of an A100 and of an H100."""
    d, causal, small = workload.head_dim, workload.causal and not workload.window, _small(device)
    if d <= 64:
        return 128, 128, 32 if d <= 32 else 64, 4
    if d <= 96:
        return (64 if small and causal else 128), 64, 96, 4
    if d <= 128:
        return (*((64, 64) if causal else (128, 32)), 128, 4) if small else (128, 64, 128, 4)
    if d <= 192:
        return 128, 64, 192, 8
    return (128, 64, 256, 8) if device.capability == A100 else (64, 64, 256, 4)


def _backward_tile(workload: AttentionWorkload, device: Device) -> tuple[int, int, int, tuple[int, int, int], str]:
    """(rows, keys, columns, warps along the rows of S, of dK and dV and of dQ, what has one place or lies in registers)."""
    d, sram = workload.head_dim, device.sram_bytes_per_block or SRAM_BYTES
    if d <= 32:
        return 128, 128, 32, (4, 4, 4), "V"
    if d <= 64:
        return (128, 128, 64, (4, 4, 4), "") if sram >= 144 << 10 else (64, 128, 64, (2, 4, 4), "V")
    if d <= 96:
        return 64, 128, 96, (2, 4, 4), "V"
    if d <= 128:
        return (64, 128, 128, (2, 4, 2), "") if sram >= 144 << 10 else (64, 64, 128, (4, 2, 2), "V")
    if d <= 192:
        return 64, 64, 192, (4, 2, 2), "" if sram >= 136 << 10 else "VQ"
    if sram >= 144 << 10:
        return 64, 64, 256, (4, 2, 2), "" if sram >= 176 << 10 else "Q"
    return 64, 32, 256, (4, 1, 2), "VQ"


def _forward_config(workload: AttentionWorkload, device: Device) -> Config:
    rows, keys, columns, warps = _forward_tile(workload, device)
    sram = 2 * columns * (rows + 2 * keys)  # Q, K and V; O leaves from Q's place
    return Config(
        params={"block_m": rows, "block_n": keys, "block_d": columns, "warps": warps},
        resources={FORWARD: Resources(MOST_REGISTERS, sram)})


def _backward_config(workload: AttentionWorkload, device: Device) -> Config:
    rows, keys, columns, along, held = _backward_tile(workload, device)
    walked, tile, square = 2 * columns * rows * (2 if "Q" in held else 3), 2 * columns * keys, 2 * rows * keys
    places = 2 * tile + 2 * square  # K and V, P and dS; V makes room once it lies in registers
    sram = walked + (max(2 * tile, places - tile) if "V" in held else places)
    around = {"delta": Resources(46, 0)} | dict.fromkeys(("dQ", "dK = 0", "dV = 0", "dK", "dV"), Resources(32, 0))
    return Config(
        params={"block_m": rows, "block_n": keys, "block_d": columns, "warps": 8, "s_warps": along[0], "kv_warps": along[1],
                "q_warps": along[2], "v_in_registers": int("V" in held), "q_places": 1 if "Q" in held else 2},
        resources={BACKWARD: Resources(MOST_REGISTERS, sram), **around})


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What it does not do."""
    return peer.not_published(
        "FlashAttention-2", workload, config, device, ((8, 0), (13, 0)), "compute capability 8.0 or newer")


def forward(kernel: str, workload: AttentionWorkload, config: Config) -> Schedule:
    """Blocks of rows are launched from the first to the last, then sequences, then heads. Each warp reads all of K and V."""
    keys = 2 * config["block_n"] * row_walk.width(workload, config) * config["warps"]
    rows = 2 * config["block_m"] * row_walk.width(workload, config)
    return published_rows.schedule(
        workload, config, kernel=kernel, launch=FORWARD, axes="mbh", moved={"S": rows + keys, "O": keys},
        loads={"early": True})


def backward_operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """key_walk's, with sums of dK and dV where heads are grouped."""
    return key_walk.operands(workload, workload.group > 1)


def backward_cost(workload: AttentionWorkload, config: Config) -> Cost:
    """key_walk's closed form, a program for each query head."""
    return key_walk.cost(workload, config, workload.group, idle=False)


def backward(kernel: str, workload: AttentionWorkload, config: Config) -> Schedule:
    """delta, the walk of each block of keys, dQ from its sum."""
    held = "".join(("V" if config.params.get("v_in_registers") else "", "Q" if config.params.get("q_places") == 1 else ""))
    return key_walk.schedule(
        workload, config, kernel=kernel, walk=BACKWARD, warps=config["warps"], ring=2, parts=workload.group, idle=False,
        alone=("dO", "base", "delta", *held), moved=_moved(workload, config) if "s_warps" in config.params else {}, groups=1)


def _moved(workload: AttentionWorkload, config: Config) -> dict[str, int]:
    """By what it gives, the bytes that a product's warps read from shared memory, and those of P and dS written there.

    Of `a` warps along the rows of a product and `b` along its columns each row of one factor is read b times, of the other a.
    """
    bm, bn, bd, warps = config["block_m"], config["block_n"], row_walk.width(workload, config), config["warps"]
    rows, keys, square = 2 * bm * bd, 2 * bn * bd, 2 * bm * bn
    s, kv, q = (config[name] for name in ("s_warps", "kv_warps", "q_warps"))
    values = 0 if config["v_in_registers"] else keys * s
    gradient = square * (warps // kv) + rows * kv
    return {
        "S": rows * (warps // s) + keys * s, "P": square, "dP": rows * (warps // s) + values, "dS": square,
        "dV": gradient, "dK": gradient, "dQ": square * (warps // q) + keys * q,
    }


def blueprint(kernel: str) -> Blueprint:
    """For the kernel of that id."""
    return Blueprint(
        operands=of_pass(published_rows.operands, backward_operands), configure=of_pass(_forward_config, _backward_config),
        constraints=constraints, cost=of_pass(published_rows.cost, backward_cost),
        schedule=of_pass(partial(forward, kernel), partial(backward, kernel)), tolerance=reference.tolerance,
        source="Dao-AILab/flash-attention v2, csrc/flash_attn/src/flash_*_launch_template.h; registers in part a guess",
    )
