"""What is planned without torch: memory, refusals, parameters."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import memory, planner
from engine.protocol import Configure, Planned
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Device, KernelSpec
from tests.engine.fakes import CPU, SMALL, configure, fake

GPU = Device(id="cuda:0", kind="cuda", name="H200", capability=(9, 0), sms=132, sram_bytes_per_block=232448,
             memory_bytes=140 << 30)
LARGE = AttentionWorkload(batch=4, heads=16, kv_heads=16, seq=4096, head_dim=128)


def plan(command: Configure, *specs: KernelSpec, free: int = 1 << 40) -> Planned:
    return planner.plan(command, (CPU, GPU), {spec.id: spec for spec in specs}, lambda device: free)  # noqa: ARG005


def plan_real(kernels: tuple[str, ...], workload: AttentionWorkload, free: int = 1 << 40, device: str = "cuda:0") -> Planned:
    command = Configure(generation=3, device=device, workload=workload, kernels=kernels)
    return planner.plan(command, (CPU, GPU), catalog(), lambda device: free)  # noqa: ARG005


def test_a_plan_says_how_and_at_what_cost() -> None:
    planned = plan_real(("naive", "flash", "sdpa_flash"), LARGE)
    naive, flash, peer = planned.plans
    assert (planned.generation, planned.device, planned.workload) == (3, "cuda:0", LARGE)
    assert planned.memory_bytes == 1 << 40
    assert not any(p.refused for p in planned.plans)
    assert naive.cost.hbm_bytes > 30 * flash.cost.hbm_bytes
    assert naive.schedule
    assert len(naive.schedule.launches) == 4
    assert flash.schedule
    assert flash.schedule.launches[0].sram_bytes
    assert peer.schedule is None
    assert flash.config == catalog()["flash"].configure(LARGE, GPU)


def test_the_peak_counts_inputs_once_and_each_kernels_own() -> None:
    operand = LARGE.batch * LARGE.heads * LARGE.seq * LARGE.head_dim * 2
    square = LARGE.batch * LARGE.heads * LARGE.seq**2 * 2
    fixed = memory.WORKSPACE_BYTES + memory.reserved([memory.check_bytes(LARGE)])
    planned = plan_real(("naive", "flash"), LARGE)
    naive, flash = planned.plans
    assert flash.peak_memory_bytes == 4 * operand + fixed
    assert naive.peak_memory_bytes == 4 * operand + 2 * square + fixed
    assert planned.peak_memory_bytes == 5 * operand + 2 * square + fixed


def test_naive_alone_is_refused_where_it_cannot_fit_and_the_longest_sequence_is_exact() -> None:
    free = 20 << 30
    long = replace(LARGE, seq=65536)
    naive, flash = plan_real(("naive", "flash"), long, free).plans
    assert flash.refused is None
    assert flash.longest_seq == plan_real(("flash",), LARGE, free).plans[0].longest_seq
    longest = naive.longest_seq
    assert longest
    assert naive.refused == (
        f"naive needs {memory.text(naive.peak_memory_bytes)}, of it 1.00 TiB for S and P; 20.0 GiB are free on cuda:0: "
        f"choose a sequence of at most {longest:,}"
    )
    assert naive.schedule, "the theatre plays it all the same"
    assert plan_real(("naive",), replace(LARGE, seq=longest), free).plans[0].refused is None
    assert plan_real(("naive",), replace(LARGE, seq=longest + 1), free).plans[0].refused


def test_decoding_is_told_the_longest_cache_that_fits() -> None:
    free, cache = 4 << 30, replace(LARGE, seq=1, seq_kv=1 << 18, heads=32, kv_heads=32)
    split, = plan_real(("split_kv",), cache, free).plans
    assert split.longest_seq
    assert split.refused
    assert split.refused.endswith(f"choose a KV length of at most {split.longest_seq:,}")
    assert plan_real(("split_kv",), replace(cache, seq_kv=split.longest_seq), free).plans[0].refused is None
    assert plan_real(("split_kv",), replace(cache, seq_kv=split.longest_seq + 1), free).plans[0].refused


def test_where_no_sequence_fits_another_remedy_is_named() -> None:
    small, = plan_real(("flash",), replace(LARGE, batch=4096), 1 << 20).plans
    assert small.longest_seq == 0
    assert small.refused
    assert small.refused.endswith("choose a smaller batch or fewer heads")
    roomy, = plan_real(("flash",), SMALL, 1 << 60).plans
    assert roomy.longest_seq is None


def test_kernels_that_fit_alone_but_not_together_lose_the_largest() -> None:
    alone = [p.peak_memory_bytes for p in plan_real(("naive", "flash"), LARGE).plans]
    planned = plan_real(("flash", "naive"), LARGE, max(alone))
    assert planned.plans[0].refused is None
    assert planned.plans[1].refused
    assert planned.plans[1].refused.startswith("naive does not fit beside the other kernels: together they need ")
    assert planned.peak_memory_bytes == planned.plans[0].peak_memory_bytes


@pytest.mark.parametrize(
    ("spec", "workload", "reason"),
    [
        (fake("good"), replace(SMALL, pass_="backward"), "Good has no backward pass: choose forward, or another kernel"),
        (fake("good"), replace(SMALL, dtype="bfloat16"), "Good does not take bfloat16: choose float32"),
        (fake("good", dtypes=("float16", "float32")), replace(SMALL, dtype="bfloat16"),
         "Good does not take bfloat16: choose float16 or float32"),
        (fake("good", constraint="too wide: choose less"), SMALL, "too wide: choose less"),
    ],
)
def test_what_a_kernel_does_not_take_is_refused_for_it_alone(
    spec: KernelSpec, workload: AttentionWorkload, reason: str
) -> None:
    other = fake("other", passes=("forward", "backward"), dtypes=("float16", "bfloat16", "float32"))
    first, second = plan(configure(1, "good", "other", workload=workload), spec, other).plans
    assert first.refused == reason
    assert second.refused is None


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (configure(1, "bad"), "there is no kernel 'bad': choose from good or other"),
        (configure(1, device="tpu:0"), "there is no device 'tpu:0' here: choose cpu or cuda:0"),
        (replace(configure(1), kernels=()), "no kernel is chosen: choose at least one of good or other"),
        (replace(configure(1), params={"bad": {"block_m": 16}}), "there is no kernel 'bad': choose from good or other"),
        (replace(configure(1), params={"good": {"bm": 16}}), "Good has no parameter 'bm': it has block_m"),
        (replace(configure(1), params={"good": {"block_m": 17}}), "block_m of Good cannot be 17: choose 16 or 32"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(command: Configure, sentence: str) -> None:
    with pytest.raises(planner.PlanError) as error:
        plan(command, fake("good"), fake("other"))
    assert str(error.value) == sentence


def test_parameters_replace_the_kernels_choice_and_bring_their_own_resources() -> None:
    command = replace(configure(1), params={"good": {"block_m": 16}})
    assert plan(command, fake("good")).plans[0].config.params == {"block_m": 16, "other": 1}
    command = Configure(generation=1, device="cuda:0", workload=LARGE, kernels=("naive",), params={"naive": {"block_m": 16}})
    changed = planner.plan(command, (GPU,), catalog(), lambda device: 1 << 40).plans[0]  # noqa: ARG005
    assert changed.config["block_m"] == 16
    tuned = catalog()["naive"].configure(LARGE, GPU)
    assert changed.config.resources.get("scores") != tuned.resources["scores"]
    assert changed.config.resources["softmax"] == tuned.resources["softmax"]


def test_a_kernel_named_twice_is_planned_once() -> None:
    assert len(plan(configure(1, "good", "good"), fake("good")).plans) == 1


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_longest_is_the_last_that_fits(limit: int, most: int) -> None:
    found = memory.longest(lambda n: n <= limit, most)
    assert found == (None if limit >= most else limit)


@given(st.lists(st.integers(0, 1 << 32), max_size=8))
def test_reserved_is_never_less_than_the_blocks_and_never_much_more(sizes: list[int]) -> None:
    reserved = memory.reserved(sizes)
    assert sum(sizes) <= reserved <= sum(sizes) + 22 * memory.MIB + len(sizes) * 2 * memory.MIB


def workloads() -> st.SearchStrategy[AttentionWorkload]:
    def build(batch: int, kv: int, group: int, seq: int, seq_kv: int, dim: int, backward: bool) -> AttentionWorkload:
        return AttentionWorkload(batch=batch, heads=kv * group, kv_heads=kv, seq=seq, seq_kv=seq_kv, head_dim=8 * dim,
                                 pass_="backward" if backward else "forward")

    return st.builds(build, st.integers(1, 64), st.integers(1, 32), st.integers(1, 8), st.integers(1, 1 << 16),
                     st.integers(0, 1 << 16), st.integers(1, 32), st.booleans())


@given(workloads())
def test_a_chunk_of_the_check_stays_within_its_bytes_if_one_head_does(workload: AttentionWorkload) -> None:
    sequences, heads, group = memory.check_chunk(workload)
    assert 1 <= sequences <= workload.batch
    assert 1 <= heads <= workload.kv_heads
    assert 1 <= group <= workload.group
    least = 1 if workload.pass_ == "forward" else workload.group
    assert sequences * heads * group == least or memory.check_bytes(workload) <= memory.CHECK_CHUNK_BYTES * 3 // 2


@settings(max_examples=40, deadline=None)
@given(workloads(), st.integers(0, 1 << 40))
def test_any_workload_is_planned_and_what_is_not_refused_fits(workload: AttentionWorkload, free: int) -> None:
    planned = plan_real(("naive", "flash", "sdpa_flash", "sdpa_math"), workload, free)
    assert planned.peak_memory_bytes <= free
    for one in planned.plans:
        assert one.refused or one.peak_memory_bytes <= free
        assert one.refused is None or "\n" not in one.refused


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0.00 KiB"), (1536, "1.50 KiB"), (10 << 20, "10.0 MiB"), (1000 << 20, "1000 MiB"), (137 << 30, "137 GiB"),
     (1 << 41, "2.00 TiB")],
)
def test_bytes_in_sentences(size: int, shown: str) -> None:
    assert memory.text(size) == shown


def test_a_free_gpu_keeps_the_drivers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.protocol import DeviceSample

    kept = memory.CONTEXT_BYTES + memory.SPARE_BYTES
    sample = DeviceSample(device="cuda:0", memory_total_bytes=140 << 30, memory_used_bytes=10 << 30)
    assert memory.free_bytes(GPU, sample) == (130 << 30) - kept
    assert memory.free_bytes(GPU, sample, context=True) == (130 << 30) - memory.SPARE_BYTES
    assert memory.free_bytes(GPU, None) == (140 << 30) - kept
    assert memory.free_bytes(replace(GPU, memory_bytes=None), None) == 0
    ram: Callable[[], object] = lambda: type("ram", (), {"available": 5 << 30, "total": 10 << 30})  # noqa: E731
    monkeypatch.setattr(psutil, "virtual_memory", ram)
    assert memory.free_bytes(CPU, None) == 4 << 30
