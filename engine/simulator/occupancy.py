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
    registers = launch.registers if launch.registers is not None else REGISTERS
    of_warp = -(-max(1, registers) * WARP // REGISTER_UNIT) * REGISTER_UNIT
    return {
        "blocks": spec.blocks_per_sm, "warps": spec.warps_per_sm // launch.warps,
        "registers": spec.registers_per_sm // of_warp // launch.warps,
        "shared memory": spec.sram_bytes_per_sm // (sram_bytes(launch) + spec.sram_reserved_bytes or 1),
    }
