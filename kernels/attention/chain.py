"""Chains of launches from HBM to HBM, to be predicted: what they are made of, what they cost, and the tiles that are guessed.

What cuBLAS picks and how many registers it takes is not published: products have CUTLASS's usual tiles, 128 x 128, on Hopper
128 x 256, and what multiplies nothing 72 registers a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from kernels.contract import AttentionWorkload, Config, Cost, Device, Launch, Operand, Resources, Schedule, Traffic

Arrays = Mapping[str, Operand]
REGISTERS = 72  # a thread, of what multiplies nothing
MOST_REGISTERS = 255  # that a thread may have
OTHERS = 96  # registers of a product's threads beside the sums
GROUP_ROWS = 64  # of a product that a warpgroup makes on Hopper


@dataclass(frozen=True, slots=True)
class Step:
    """A launch, and what it costs in closed form: by operand each distinct element once (`hbm`), and tile by tile."""

    launch: Launch
    hbm: Mapping[str, Traffic]
    tile: Mapping[str, Traffic]
    flops: int = 0
    vector_flops: int = 0
    exps: int = 0


def cost_of(workload: AttentionWorkload, steps: Iterable[Step]) -> Cost:
    """Of all steps."""
    found = list(steps)

    def summed(sides: list[Mapping[str, Traffic]]) -> dict[str, Traffic]:
        names = dict.fromkeys(name for side in sides for name in side)
        moved = {name: [side[name] for side in sides if name in side] for name in names}
        return {name: Traffic(sum(t.read for t in each), sum(t.written for t in each)) for name, each in moved.items()}

    return Cost(
        nominal_flops=workload.nominal_flops, flops=sum(step.flops for step in found),
        vector_flops=sum(step.vector_flops for step in found), exps=sum(step.exps for step in found),
        hbm=summed([step.hbm for step in found]), tile=summed([step.tile for step in found]))


def schedule_of(kernel: str, operands: tuple[Operand, ...], steps: Iterable[Step]) -> Schedule:
    """All launches in order."""
    return Schedule(kernel=kernel, operands=operands, launches=tuple(step.launch for step in steps))


def products_config(itemsize: int, device: Device) -> Config:
    """Tiles, warps and stages of products of such elements: float32 goes to the vector units, 8 columns at a time."""
    capability = device.capability or (0, 0)
    if itemsize == 4:
        return Config(params={"block_m": 128, "block_n": 128, "block_k": 8, "warps": 8, "stages": 2})
    if (9, 0) <= capability < (10, 0):
        return Config(params={"block_m": 128, "block_n": 256, "block_k": 64, "warps": 12, "stages": 3, "groups": 2})
    stages = 4 if capability >= (8, 0) else 2  # asynchronous copies came with 8.0
    return Config(params={"block_m": 128, "block_n": 128, "block_k": 32, "warps": 4, "stages": stages})


def with_resources(config: Config, steps: Iterable[Step]) -> Config:
    """The configuration with what each launch takes of an SM."""
    found = {}
    for step in steps:
        launch = step.launch
        sram = sum(slot.bytes for slot in launch.slots if slot.place == "sram")
        sums = sum(slot.bytes for slot in launch.slots if slot.place == "registers") // (4 * 32 * launch.warps)
        most = min(MOST_REGISTERS, 65536 // (32 * launch.warps) // 8 * 8)
        found[launch.name] = Resources(min(most, sums + OTHERS) if step.flops else REGISTERS, sram)
    return replace(config, resources=found)
