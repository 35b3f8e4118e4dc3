"""How many programs of a launch an SM holds at once. Source: CUDA's occupancy calculator."""

from __future__ import annotations

from engine.simulator.figures import WARP, DeviceSpec
from kernels.contract import Launch

REGISTER_UNIT = 256     # registers that a warp's are rounded up to
REGISTERS = 128         # of a thread, where no compiler has said


def sram_bytes(launch: Launch) -> int:
    """Shared memory of a program: as compiled, else what its slots say."""
    if launch.sram_bytes is not None:
        return launch.sram_bytes
    return sum(slot.bytes for slot in launch.slots if slot.place == "sram")


def limits(launch: Launch, spec: DeviceSpec) -> dict[str, int]:
    """Programs that an SM holds by each of its limits, of which the least binds: 0 where a program does not fit."""
    return {name: has // (need or 1) for name, (need, has) in _needs(launch, spec).items()}


def beside(launch: Launch, residents: int, other: Launch, spec: DeviceSpec) -> bool:
    """Whether an SM that holds so many programs of a launch has room for one of another."""
    mine, others = _needs(launch, spec), _needs(other, spec)
    return all(residents * need + others[name][0] <= has for name, (need, has) in mine.items())


def _needs(launch: Launch, spec: DeviceSpec) -> dict[str, tuple[int, int]]:
    """Of each resource what a program takes, and what an SM has."""
    registers = launch.registers if launch.registers is not None else REGISTERS
    of_warp = -(-max(1, registers) * WARP // REGISTER_UNIT) * REGISTER_UNIT
    return {
        "blocks": (1, spec.blocks_per_sm), "warps": (launch.warps, spec.warps_per_sm),
        "registers": (of_warp * launch.warps, spec.registers_per_sm),
        "shared memory": (sram_bytes(launch) + spec.sram_reserved_bytes, spec.sram_bytes_per_sm),
    }
