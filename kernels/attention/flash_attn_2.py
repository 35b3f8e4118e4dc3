"""FlashAttention-2 as its authors published it, to be predicted: which tiles it takes, in how many warps and bytes.

Its products are mma.sync of warps that wait for them (nothing runs beside them but other warps' work), its loads cp.async
into one place each for K and V: the next K is fetched while this tile's softmax and P V run, V while its S is multiplied.
SDPA's flash back end is this library, built into PyTorch.
Source: Dao-AILab/flash-attention v2, csrc/flash_attn/src: run_mha_fwd_hdim* of flash_fwd_launch_template.h,
kernel_traits.h for shared memory; ptxas in issue 1630 for the registers of the forward pass at D 128.
A guess: 255 registers a thread wherever nobody printed what ptxas said. Head dims 160 and 224 take the next size, as from v2.7
on.
"""

from __future__ import annotations

from functools import partial

from kernels.attention import peer, published_rows, reference
from kernels.contract import AttentionWorkload, Blueprint, Config, Device, Resources, Schedule

FORWARD = "flash_fwd"
MOST_REGISTERS = 255  # that a thread may have
SMALL_SRAM = 100 << 10  # what a block of compute capability 8.6 and 8.9 gets, and less


def _forward_tile(workload: AttentionWorkload, device: Device) -> tuple[int, int, int, int]:
    """(rows, keys, columns, warps). Two programs an SM of an A100 and of an H100."""
    d, causal = workload.head_dim, workload.causal and not workload.window
    capability = device.capability or (8, 0)
    small = capability[0] == 8 and capability[1] > 0
    if d <= 64:
        return 128, 128, 32 if d <= 32 else 64, 4
    if d <= 96:
        return (64 if small and causal else 128), 64, 96, 4
    if d <= 128:
        return (*((64, 64) if causal else (128, 32)), 128, 4) if small else (128, 64, 128, 4)
    if d <= 192:
        return 128, 64, 192, 8
    return (128, 64, 256, 8) if capability == (8, 0) else (64, 64, 256, 4)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The published tile of this head dim, mask and device."""
    rows, keys, columns, warps = _forward_tile(workload, device)
    sram = 2 * columns * (rows + 2 * keys)  # Q, K and V; O leaves from Q's place
    return Config(
        params={"block_m": rows, "block_n": keys, "block_d": columns, "warps": warps},
        resources={FORWARD: Resources(MOST_REGISTERS, sram)})


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What it does not do."""
    return peer.not_published("FlashAttention-2", workload, config, device, (8, 9, 10, 12), "compute capability 8.0 or newer")


def schedule(kernel: str, workload: AttentionWorkload, config: Config) -> Schedule:
    """Blocks of rows are launched from the first to the last, then sequences, then heads."""
    return published_rows.schedule(
        workload, config, kernel=kernel, launch=FORWARD, axes="mbh", loads={"early": True}, warp_products=True)


def blueprint(kernel: str) -> Blueprint:
    """For the kernel of that id."""
    return Blueprint(
        operands=published_rows.operands, configure=configure, constraints=constraints, cost=published_rows.cost,
        schedule=partial(schedule, kernel), tolerance=reference.tolerance,
        source="Dao-AILab/flash-attention v2, csrc/flash_attn/src/flash_fwd_launch_template.h; registers in part a guess",
    )
