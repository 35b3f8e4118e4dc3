"""The simulated caching allocator, against what PyTorch's documented rules make of a few tensors."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.allocator import MIB, Allocator


def test_tensors_up_to_a_mebibyte_share_segments_of_two() -> None:
    heap = Allocator()
    for _ in range(2):
        heap.take(MIB)
    assert heap.reserved == 2 * MIB
    heap.take(1)
    assert heap.reserved == 4 * MIB


def test_sizes_are_rounded_up_to_512_bytes() -> None:
    heap = Allocator()
    for _ in range(4096):
        heap.take(1)
    assert heap.reserved == 2 * MIB
    heap.take(1)
    assert heap.reserved == 4 * MIB


def test_tensors_below_ten_mebibytes_share_segments_of_twenty() -> None:
    heap = Allocator()
    for _ in range(2):
        heap.take(9 * MIB)
    assert heap.reserved == 20 * MIB
    heap.take(2 * MIB)  # what is left
    assert heap.reserved == 20 * MIB
    heap.take(2 * MIB)
    assert heap.reserved == 40 * MIB


def test_larger_ones_have_segments_of_their_own_in_steps_of_two_mebibytes() -> None:
    heap = Allocator()
    heap.take(10 * MIB)
    assert heap.reserved == 10 * MIB
    heap.take(11 * MIB)
    assert heap.reserved == 22 * MIB


def test_a_rest_of_a_mebibyte_or_less_is_not_split_off() -> None:
    """Of 12 MiB 11 leave one, which is lost; of the same 12 MiB the 10.5 after them leave 1.5, which serve."""
    heap = Allocator()
    whole = heap.take(11 * MIB)
    heap.take(3 * MIB // 2)
    assert heap.reserved == 12 * MIB + 20 * MIB
    heap.give(whole)
    heap.take(21 * MIB // 2)
    before = heap.reserved
    for _ in range(13):  # 18.5 MiB left of the segment of 20, and 1.5 of the one of 12
        heap.take(3 * MIB // 2)
    assert heap.reserved == before


def test_the_smallest_block_that_holds_it_is_taken() -> None:
    heap = Allocator()
    wide, narrow = heap.take(30 * MIB), heap.take(14 * MIB)
    heap.give(wide, narrow)
    heap.take(14 * MIB)
    heap.take(30 * MIB)
    assert heap.reserved == 44 * MIB


def test_a_block_that_is_split_no_longer_holds_what_it_held() -> None:
    heap = Allocator()
    heap.give(heap.take(30 * MIB))
    heap.take(14 * MIB)
    heap.take(30 * MIB)
    assert heap.reserved == 60 * MIB


def test_free_neighbours_merge_from_either_side() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1)):
        heap = Allocator()
        heap.give(heap.take(30 * MIB))
        parts = [heap.take(10 * MIB) for _ in range(3)]
        assert heap.reserved == 30 * MIB
        for part in order:
            heap.give(parts[part])
        heap.take(30 * MIB)
        assert heap.reserved == 30 * MIB


def test_neighbours_of_two_segments_do_not_merge() -> None:
    heap = Allocator()
    heap.give(heap.take(10 * MIB), heap.take(10 * MIB))
    heap.take(20 * MIB)
    assert heap.reserved == 40 * MIB


def test_beside_what_stays_only_what_was_free_serves() -> None:
    heap = Allocator()
    kept = heap.take(9 * MIB)
    other = heap.beside()
    other.take(9 * MIB)
    assert other.reserved == heap.reserved == 20 * MIB
    other.take(9 * MIB)
    assert (other.reserved, heap.reserved) == (40 * MIB, 20 * MIB)
    heap.give(kept)
    heap.take(20 * MIB)
    assert heap.reserved == 20 * MIB


@given(st.integers(0, 1 << 30))
def test_segments_are_whole_again_once_all_is_given_back(seed: int) -> None:
    dice, heap, segments = random.Random(seed), Allocator(), []
    taken, live = [], 0
    for _ in range(40):
        size, before = dice.randrange(1, 40 * MIB) >> dice.randrange(16), heap.reserved
        taken.append(heap.take(size))
        live += size
        assert heap.reserved >= live
        if heap.reserved > before:
            segments.append(heap.reserved - before)
    dice.shuffle(taken)
    heap.give(*taken)
    before = heap.reserved
    for segment in sorted(segments, reverse=True):
        for size in (MIB, MIB) if segment == 2 * MIB else (segment,):
            heap.take(size)
    assert heap.reserved == before == sum(segments)
