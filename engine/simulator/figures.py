"""The spec of a GPU: what its data sheet and published micro-benchmarks say of it, as far as a simulation asks."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

WARP = 32
RESERVED_BYTES = 1024  # shared memory that the system takes of each block. Source: CUDA C++ programming guide, from 8.0 on

MatrixDtype = Literal["float16", "bfloat16", "tf32", "float8", "int8"]
PeakDtype = Literal["float16", "bfloat16", "tf32", "float8", "int8", "float32"]

LIMITS: dict[str, tuple[float, float]] = {  # of every figure: the smallest and the largest that a file may say
    "sms": (1, 1024), "clock_hz": (1e8, 2e10), "max_clock_hz": (1e8, 2e10), "matrix_flops_per_clock": (1, 1 << 20),
    "achievable_matrix": (0.01, 1), "vector_flops_per_clock": (1, 1 << 16), "exps_per_clock": (1, 1 << 12),
    "registers_per_sm": (1 << 10, 1 << 22), "warps_per_sm": (1, 1024), "blocks_per_sm": (1, 1024),
    "sram_bytes_per_sm": (1 << 12, 1 << 27), "sram_bytes_per_block": (1 << 10, 1 << 27), "sram_bytes_per_clock": (1, 1 << 16),
    "l2_bytes": (1 << 16, 1 << 36), "l2_bytes_per_clock": (1, 1 << 24), "achievable_l2": (0.01, 1),
    "l2_latency_s": (1e-9, 1e-4),
    "memory_bytes": (1 << 26, 1 << 44), "bandwidth_bytes_per_s": (1e9, 1e15), "achievable_bandwidth": (0.01, 1),
    "achievable_copy": (0.01, 1), "memory_latency_s": (1e-9, 1e-4), "memory_ramp_s": (0, 1e-4),
    "launch_s": (1e-9, 1e-2), "graph_launch_s": (1e-9, 1e-2),
    "power_w": (1, 1e5),
}


class SpecError(ValueError):
    """A spec is wrong; the text is one sentence that names the file, the field and the reason."""


class DeviceSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One GPU. Rates are dense and a clock's; those of the matrix, vector and exponential units and of the SRAM are one SM's.

    `published_tflops` are the data sheet's peaks, float32 of the vector units at `max_clock_hz`, the others of the matrix
    units at `clock_hz`. `sources` says of every figure where it comes from, and `estimated` names those that nobody published.
    """

    id: str
    title: str
    capability: tuple[int, int]
    sms: int
    clock_hz: float                     # at which the matrix units' peaks are quoted: what a prediction runs at
    max_clock_hz: float                 # the highest that the SMs reach
    matrix_flops_per_clock: dict[MatrixDtype, int]  # two a multiply-add; float32 without TF32 runs on the vector units
    achievable_matrix: float            # share of the peak at clock_hz that large products hold; none is faster
    vector_flops_per_clock: int         # of float32, two a multiply-add
    exps_per_clock: int                 # MUFU.EX2
    registers_per_sm: int               # of 32 bits
    warps_per_sm: int
    blocks_per_sm: int
    sram_bytes_per_sm: int
    sram_bytes_per_block: int           # the most shared memory that one block may ask for
    sram_bytes_per_clock: int
    l2_bytes: int
    l2_bytes_per_clock: int             # at max_clock_hz, that plain reads take from the whole L2
    achievable_l2: float                # share of the L2 up to which data that is read again comes at full speed
    l2_latency_s: float                 # of a load that hits, in the near part of the L2
    memory_bytes: int                   # as the driver reports it
    bandwidth_bytes_per_s: float        # of the data sheet
    achievable_bandwidth: float         # share of it that plain reads reach
    achievable_copy: float              # share of it that a copy reaches, read and written together
    memory_latency_s: float             # of a load that misses the L2
    memory_ramp_s: float                # that reading it takes beside the latency and bytes over the bandwidth
    launch_s: float                     # between the starts of launches that the host makes one after the other
    graph_launch_s: float               # between the end of one launch and the start of the next in a CUDA graph
    power_w: float
    sources: dict[str, str]
    estimated: tuple[str, ...] = ()
    names: tuple[str, ...] = ()         # what its driver calls it
    published_tflops: dict[PeakDtype, float] = {}

    @property
    def threads_per_sm(self) -> int:
        """Threads that an SM holds at once."""
        return WARP * self.warps_per_sm

    @property
    def sram_reserved_bytes(self) -> int:
        """What the system adds to the shared memory of each block."""
        return RESERVED_BYTES if self.capability >= (8, 0) else 0

    @property
    def tma(self) -> bool:
        """Whether there is a copy engine for tiles. Source: CUDA C++ programming guide, from 9.0 on."""
        return self.capability >= (9, 0)

    @property
    def l2_parts(self) -> int:
        """Parts of the L2, each of which keeps what the SMs beside it read. Source: NVIDIA A100 and H100 whitepapers; the L2 of
        other parts is one."""
        return 2 if self.capability[0] in (8, 9, 10) and self.capability[1] in (0, 3) else 1

    @property
    def l2_bytes_per_s(self) -> float:
        """Of the whole L2, whose clock is its own and does not fall with that of the SMs."""
        return self.l2_bytes_per_clock * self.max_clock_hz

    @property
    def products_from_sram(self) -> bool:
        """Whether the matrix units read shared memory themselves, for groups of warps. Source: PTX ISA, wgmma and tcgen05."""
        return self.capability[0] in (9, 10)

    def flops_per_clock(self, dtype: PeakDtype) -> int | None:
        """Of one SM: of the matrix units, for float32 of the vector units; None where the part does not have the dtype."""
        return self.vector_flops_per_clock if dtype == "float32" else self.matrix_flops_per_clock.get(dtype)

    def peak_tflops(self, dtype: PeakDtype) -> float | None:
        """Of the whole GPU, at the clock at which data sheets quote it."""
        rate = self.flops_per_clock(dtype)
        clock_hz = self.max_clock_hz if dtype == "float32" else self.clock_hz
        return None if rate is None else self.sms * clock_hz * rate / 1e12


def out_of_range(name: str, value: float) -> str:
    """Why a figure cannot be that; empty where it can."""
    lo, hi = LIMITS[name]
    return "" if lo <= value <= hi else f"{shown(value)} is out of range: choose from {shown(lo)} to {shown(hi)}"  # NaN is too


def shown(value: float) -> str:
    """A number in a sentence."""
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if abs(value) < 10**18 else "a number of that size"
