"""The tensors of a pass in order, against those that torch takes and gives back on the host; and what a GPU reserved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from torch.profiler import ProfilerActivity, profile

from engine.allocator import Allocator
from engine.decoding import CACHES, CacheKind, Decoding, Lane, Model
from engine.memory import GIB, KIB, MIB
from engine.models import shapes
from engine.models.activations import ROWS, Passes, groups, largest, padded, recordings, rows_at_once, warmed
from engine.models.generate import Generation, Sampling
from engine.models.memory import RECORDED, peak_bytes
from engine.models.operations import FUSED_ROWS
from engine.models.plan import plan
from engine.protocol import ConfigureDecoding
from kernels.contract import Device
from kernels.contract.workload import DType
from tests.engine.models.small import GPT, QWEN, TINY, decoder, tokens

LEAST = 128 * KIB  # smaller ones are indices, and what products and attention of short prompts take on this host for themselves
MODELS = {model.id: model for model in shapes.load()}


class Told:
    """A heap that writes down what is taken (+) and given back (-), where it is not less than `least`."""

    def __init__(self, least: int = LEAST) -> None:
        self.least, self.events = least, list[int]()

    def take(self, size: int) -> int:
        if size >= self.least:
            self.events.append(size)
        return size

    def give(self, *given: int | None) -> None:
        self.events += [-size for size in given if size and size >= self.least]


def allocations(run: Callable[[], None], least: int = LEAST) -> list[int]:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return [size for size in sizes if abs(size) >= least]


def setting(model: Model, kv_heads: int, dtype: DType, batch: int, prompt: int, kind: CacheKind) -> Decoding:
    return Decoding(model=model, lanes=(Lane(cache=kind, kv_heads=kv_heads),), batch=batch, prompt=prompt, new=2, dtype=dtype)


@pytest.mark.parametrize(("model", "kv_heads", "dtype", "batch", "prompt", "least"), [
    (TINY, 2, "float32", 3, 100, LEAST), (TINY, 1, "float16", 50, 150, LEAST), (GPT, 4, "bfloat16", 30, 150, LEAST),
    (QWEN, 2, "float16", 6, 250, LEAST), (replace(TINY, context=2 * ROWS), 2, "float32", 1, ROWS + 900, MIB),
], ids=["tiny", "two groups", "gpt", "qwen", "two chunks"])
@pytest.mark.parametrize("kind", CACHES)
def test_a_prompt_takes_and_gives_back_what_torch_does(
    model: Model, kv_heads: int, dtype: DType, batch: int, prompt: int, least: int, kind: CacheKind,
) -> None:
    decoding, told = setting(model, kv_heads, dtype, batch, prompt, kind), Told(least)
    run, prompts = Generation(decoder(model, kv_heads, dtype), kind, batch, decoding.tokens), tokens(model, batch, prompt)
    passes = Passes(decoding, decoding.lanes[0], told)
    passes.choose(passes.prompts(prompt))
    assert len(told.events) > 50
    assert told.events == allocations(lambda: run.prefill(prompts), least)


@pytest.mark.parametrize(("model", "kv_heads", "dtype", "sampling"), [
    (TINY, 2, "float32", False), (TINY, 1, "float16", True), (GPT, 4, "float32", False), (QWEN, 2, "float32", True),
], ids=["tiny", "mqa", "gpt", "qwen"])
@pytest.mark.parametrize("kind", [kind for kind in CACHES if kind != "none"])
def test_a_step_takes_and_gives_back_what_torch_does(
    model: Model, kv_heads: int, dtype: DType, sampling: bool, kind: CacheKind,
) -> None:
    """In a batch so large that nothing but indices is small."""
    decoding, told = setting(model, kv_heads, dtype, 1200, 3, kind), Told()
    how = Sampling(top_k=5) if sampling else None
    run = Generation(decoder(model, kv_heads, dtype), kind, decoding.batch, decoding.tokens, sampling=how)
    run.prefill(tokens(model, decoding.batch, decoding.prompt))
    assert run.cache is not None
    run.cache.whole = True  # as in a captured step
    passes = Passes(decoding, decoding.lanes[0], told, sampling=sampling)
    passes.choose(passes.step())
    assert len(told.events) > 30
    assert told.events == allocations(run.step)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("model", [TINY, GPT, QWEN], ids=lambda model: model.id)
def test_a_pass_gives_back_all_but_what_kernels_keep(model: Model, kind: CacheKind, fused: bool) -> None:
    for batch in (1, FUSED_ROWS, FUSED_ROWS + 1):
        decoding, told = setting(model, 2, "float16", batch, 40, kind), Told(1)
        passes = Passes(decoding, decoding.lanes[0], told, fused=fused, sampling=True)
        passes.choose(passes.prompts(40))
        assert sum(told.events) == 0
        if kind == "none":
            continue
        passes.choose(passes.step())
        kept = sum(told.events)
        assert (kept > 0) == fused
        passes.choose(passes.step())
        assert sum(told.events) == kept


def test_our_kernels_make_no_copy_of_the_cache_and_few_rows_need_no_library() -> None:
    plain, fused = Told(1), Told(1)
    decoding = setting(TINY, 2, "float16", 2, 200, "int8")
    for told in (plain, fused):
        Passes(decoding, decoding.lanes[0], told, fused=told is fused).step()
    assert max(fused.events) < decoding.kv_bytes(decoding.lanes[0], decoding.tokens) // TINY.layers < max(plain.events)
    few, more = (peak_bytes(setting(TINY, 2, "float16", 1, prompt, "dense"), "cuda", fused=True)
                 for prompt in (FUSED_ROWS, FUSED_ROWS + 1))
    assert more - few >= 32 * MIB


def test_attention_is_split_where_a_prompt_leaves_a_gpu_idle() -> None:
    """On 132 multiprocessors 12 heads of 1,016 queries are 192 programs of 264: four splits of K and V fill it best."""
    decoding = setting(MODELS["gpt2"], 12, "float16", 1, 1016, "none")
    split = 4 * 12 * 1016 * 64 * 4
    for sms, expected in ((132, True), (16, False)):
        told = Told()
        Passes(decoding, decoding.lanes[0], told, fused=True, sms=sms).prompts(1016)
        assert (split in told.events) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 5000))
def test_the_largest_lengths_are_the_longest_and_that_of_most_rows(batch: int, first: int, more: int) -> None:
    found = largest(batch, first, first + more)
    assert found[-1] == first + more
    most = max(rows_at_once(batch, tokens) for tokens in range(first, first + more + 1))
    assert rows_at_once(batch, found[0]) == most


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 5000))
def test_every_length_has_its_recording_and_is_filled_up_by_little(batch: int, first: int, more: int) -> None:
    capacity = first + more
    found = recordings(batch, first, capacity)
    assert len(found) == len(set(found)) <= 2 * (16 + 8 * 13)
    lengths = {longest: padded(longest, capacity) for longest in range(first, capacity)}
    assert all(longest <= length <= min(capacity, max(longest + 63, longest * 9 / 8)) for longest, length in lengths.items())
    for length in set(lengths.values()):
        assert sum(groups(batch, length)) == batch
        assert {(some, length) for some in groups(batch, length)} <= set(found)
    assert found[0][0] * found[0][1] == max(some * length for some, length in found)
    assert {some for some, _ in warmed(found)} == {some for some, _ in found}


@pytest.mark.parametrize(("model", "batch", "first", "last"), [
    ("llama-3-8b", 2, 1746, 2300), ("gpt2", 8, 300, 900), ("gpt2", 1, 16, 1024), ("qwen3-0.6b", 37, 16, 3000)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_recordings_of_fewer_rows_lie_where_those_of_more_lay(
    model: str, batch: int, first: int, last: int, dtype: DType,
) -> None:
    shape = MODELS[model]
    decoding = setting(shape, shape.kv_heads, dtype, batch, last - 2, "none")
    heap, wanted = Allocator(), recordings(batch, first, last)
    passes, before = Passes(decoding, decoding.lanes[0], heap, fused=True), 0
    for number, pair in enumerate((*warmed(wanted), *wanted)):
        heap.give(passes.group(*pair))
        before = heap.reserved if number < len(warmed(wanted)) + RECORDED else before
    assert heap.reserved - before <= max(16 * MIB, 0.01 * before)


@pytest.mark.parametrize(("model", "dtype", "batch", "prompt", "new", "reserved"), [
    ("qwen3-0.6b", "float16", 2, 3000, 40, {"dense": 2062, "paged": 2062, "int8": 1742, "fp8": 1742}),
    ("gpt2", "float32", 1, 16, 1000, {"none": 620, "dense": 601}),
    ("gpt2", "float16", 1, 16, 1000, {"none": 315, "dense": 296, "paged": 296}),
    ("llama-3-8b", "bfloat16", 1, 6000, 128, {"dense": 16880}),
    ("llama-3-8b", "bfloat16", 1, 16, 256, {"dense": 15354, "int8": 15345}),
])
def test_what_an_h200_reserved_is_predicted(
    model: str, dtype: DType, batch: int, prompt: int, new: int, reserved: dict[CacheKind, int],
) -> None:
    """MiB of torch.cuda.max_memory_reserved, torch 2.11: within 2 % or 64 MiB."""
    for kind, measured in reserved.items():
        shape = setting(MODELS[model], MODELS[model].kv_heads, dtype, batch, prompt, kind)
        predicted = peak_bytes(replace(shape, new=new), "cuda", fused=True) / MIB
        assert abs(predicted - measured) <= max(0.02 * measured, 64), kind


def test_the_longest_that_is_offered_is_the_longest_that_fits() -> None:
    """The prediction grows with the tokens, but for what blocks happen to serve: bisection ends where it should."""
    model, free = MODELS["llama-3-8b"], 24 * GIB
    decoding = replace(setting(model, 8, "bfloat16", 16, 4000, "dense"), new=4000)
    device = Device(id="cuda:0", kind="cuda", name="", sms=132)
    longest = plan(ConfigureDecoding(generation=1, device="cuda:0", decoding=decoding), device, free).plans[0].longest
    assert longest

    def needed(count: int) -> int:
        return peak_bytes(replace(decoding, prompt=min(4000, count - 1), new=count - min(4000, count - 1)), "cuda", fused=True)

    assert needed(longest) <= free < needed(longest + 1)
