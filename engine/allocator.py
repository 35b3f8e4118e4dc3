"""PyTorch's caching allocator for GPUs, simulated: what it reserves for a sequence of tensors that come and go.

Sizes are rounded up to 512 bytes. Those up to 1 MiB live in segments of 2 MiB, those below 10 MiB in segments of 20 MiB, larger
ones in segments of their own, rounded up to 2 MiB. A tensor gets the smallest free block of its pool that holds it, the lowest
of several; the rest of the block is split off where it is large enough, and what becomes free merges with free neighbours of
its segment. Nothing goes back to the device. One stream; a CUDA graph has an allocator of its own.
Source: PyTorch, c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h (kMinBlockSize, kSmallSize, kSmallBuffer,
kLargeBuffer, kMinLargeAlloc, kRoundLarge), should_split and get_free_block.
"""

from __future__ import annotations

from bisect import bisect_left, insort

MIB = 1 << 20

LEAST = 512                 # bytes that sizes are rounded up to
SMALL, SMALL_SEGMENT = MIB, 2 * MIB
LARGE, LARGE_SEGMENT = 10 * MIB, 20 * MIB
ROUND = 2 * MIB             # of segments for one large tensor


class Block:
    """A part of a segment, between its neighbours there. `pool`: the free ones that it is among when it is free."""

    __slots__ = ("address", "after", "before", "pool", "size", "used")

    def __init__(self, address: int, size: int, pool: Pool) -> None:
        self.address, self.size, self.pool, self.used = address, size, pool, False
        self.before: Block | None = None
        self.after: Block | None = None


Pool = list[tuple[int, int, Block]]  # size, address: sorted


class Allocator:
    """Of one device and stream. `reserved`: bytes of all segments."""

    def __init__(self) -> None:
        self.reserved = 0
        self._small: Pool = []
        self._large: Pool = []

    def take(self, size: int) -> Block | None:
        """A block for a tensor of so many bytes; None for none."""
        if not size:
            return None
        size = -(-size // LEAST) * LEAST
        small = size <= SMALL
        pool = self._small if small else self._large
        at = bisect_left(pool, (size,))
        block = pool.pop(at)[2] if at < len(pool) else self._segment(size, pool)
        block.used = True
        rest = block.size - size
        if rest >= LEAST if small else rest > SMALL:
            self._split(block, size)
        return block

    def give(self, *blocks: Block | None) -> None:
        """Tensors end, in this order."""
        for block in blocks:
            if block is not None:
                block.used = False
                for other in (block.before, block.after):
                    if other is not None and not other.used:
                        block = _merged(block, other)
                insort(block.pool, (block.size, block.address, block))

    def beside(self) -> Allocator:
        """Another one, where all that is taken here stays taken for good."""
        made = Allocator()
        made.reserved = self.reserved
        for pool, same in ((self._small, made._small), (self._large, made._large)):
            same.extend((size, address, Block(address, size, same)) for size, address, _ in pool)
        return made

    def _segment(self, size: int, pool: Pool) -> Block:
        whole = SMALL_SEGMENT if size <= SMALL else LARGE_SEGMENT if size < LARGE else -(-size // ROUND) * ROUND
        block = Block(self.reserved, whole, pool)  # what it reserved already are the addresses below
        self.reserved += whole
        return block

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.size - size, block.pool)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.size, block.after = size, rest
        insort(block.pool, (rest.size, rest.address, rest))


def _merged(block: Block, other: Block) -> Block:
    """A free block with a free neighbour, which leaves the pool."""
    del other.pool[bisect_left(other.pool, (other.size, other.address))]
    low, high = (block, other) if block.address < other.address else (other, block)
    low.size += high.size
    low.after = high.after
    if low.after is not None:
        low.after.before = low
    return low

