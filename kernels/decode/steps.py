"""What the steps of one program's walk ask of an SM beside its products, by the machine code for sm_90.

Vector operations are those of a lane at full rate: an integer operation, which runs at half rate, counts as two (CUDA C++
programming guide, "Throughput of native arithmetic instructions", 9.0). An exchange is a store to shared memory and a load of
what another warp has stored there, a barrier between; before a place is written again there is a barrier too.
Source: cuobjdump of split_kv, paged, int8 and fp8 at D 128, bfloat16, with Triton 3.6 (kernels/tuned).
"""

from __future__ import annotations

from dataclasses import dataclass

CHUNK_BYTES = 16          # that a thread copies at once
ADDRESS_OPS = 14          # of such a copy from a page: its number from shared memory, the address of its row, the copy itself
UNPACK_OPS = {"": 0, "int8": 8, "fp8": 14}  # for four numbers of float16: three integer operations and two of halves, or seven
SCALED_OPS = 3            # of a score: by its row's factor, by k_scale, and P by v_scale
DIVIDED_OPS = 8           # of an element of Q where the cache is in 8 bits: its row's maximum, and a division by it


@dataclass(frozen=True)
class Steps:
    """Of a walk over tiles of `keys` keys and `width` columns by `rows` query heads.

    Attributes:
        teams: warps that walk over keys of their own, each with an m, l and O of its own; 1: all share them.
        itemsize: bytes of a number that is multiplied. `stored`: of one in the cache.
        code: of a cache in 8 bits. `paged`: rows are copied from pages by the threads themselves, else by the copy engine.
    """

    rows: int
    keys: int
    width: int
    teams: int
    warps: int
    itemsize: int
    stored: int
    code: str = ""
    paged: bool = False

    @property
    def shared(self) -> bool:
        """Whether warps hold parts of the same rows, since 16 rows at least are a warp's in a product."""
        return self.teams == 1 and self.rows < 16 * self.warps

    @property
    def tile_flops(self) -> int:
        """Vector operations till a tile of K, or of V, can be multiplied."""
        elements = self.keys * self.width
        copies = elements * self.stored // CHUNK_BYTES if self.paged else 0
        return elements * UNPACK_OPS[self.code] // 4 + copies * ADDRESS_OPS

    @property
    def softmax_flops(self) -> int:
        """Scale and subtract, max, sum over S; of each team m, l and O."""
        scaled = SCALED_OPS if self.code else 0
        return (4 + scaled) * self.rows * self.keys + self.teams * self.rows * (3 + self.width)

    @property
    def softmax_exchanges(self) -> int:
        """Maxima and sums of rows that several warps hold parts of, there and back, and P."""
        return 5 if self.shared else 0

    @property
    def softmax_barriers(self) -> int:
        """Those of its exchanges, and before the places of sums and of P are written."""
        return 7 if self.shared else 0

    @property
    def ring_barriers(self) -> int:
        """Till the places of K, V and their scales are free, and more is asked for."""
        return 2 if self.paged else 4 if self.code else 3

    def product_bytes(self, shared_width: int) -> int:
        """Between shared memory and registers for a product: the tile of K or V, and for each warp the other operand, rows of
        `shared_width` elements, where warps do not keep it in registers."""
        other = self.warps * self.rows * shared_width * self.itemsize if self.shared else 0
        return self.keys * self.width * self.stored + other

    @property
    def start_flops(self) -> int:
        """Vector operations on Q."""
        return DIVIDED_OPS * self.rows * self.width if self.code else 0

    @property
    def start_exchanges(self) -> int:
        """Q as an operand of all warps; in 8 bits the maxima of even and odd dims too, there and back, and the factors."""
        return 6 if self.code else 2 if self.teams > 1 else 1

    @property
    def start_barriers(self) -> int:
        """Those of its exchanges, and of the ring that is made ready."""
        ring, own = 4 if self.paged else 6, 7 if self.code else 1
        return ring + own + (2 if self.teams > 1 else 0)

    @property
    def end_flops(self) -> int:
        """O / l; before it the sums of all teams, weighted."""
        joined = self.teams * self.rows * (2 * self.width + 3) if self.teams > 1 else 0
        return joined + self.rows * self.width

    @property
    def end_exchanges(self) -> int:
        """m and l of all teams, there and back, and their O; lse and O as they are stored; in 8 bits even and odd dims."""
        return (7 if self.code else 6) if self.teams > 1 else 6 if self.code else 3

    @property
    def end_barriers(self) -> int:
        """Those of its exchanges, and of the ring that is taken down."""
        return (1 if self.paged else 3) + (12 if self.code else 10 if self.teams > 1 else 6)
