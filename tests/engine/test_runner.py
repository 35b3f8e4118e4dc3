"""The parts of the runner: the pool of inputs, the check, the clocks."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import buffers, checking, machine, memory
from engine.orders import Job, Order, Replaced, Task
from engine.protocol import Event, Phase
from kernels.attention import reference
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Device, Operand
from tests.engine.fakes import CPU, SMALL, fake


def inputs_of(workload: AttentionWorkload) -> list[Operand]:
    return memory.inputs_of(reference.operands(workload))


def test_the_pool_gives_random_views_that_do_not_overlap() -> None:
    workload = replace(SMALL, seq=77, pass_="backward")
    views = buffers.Pool("cpu").views(workload, inputs_of(workload))
    assert [tuple(t.shape) for t in views.values()] == [o.shape for o in inputs_of(workload)]
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in views.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(start % 1024 == spans[0][0] % 1024 for start, _ in spans)
    for tensor in views.values():
        assert tensor.is_contiguous()
        assert abs(float(tensor.mean())) < 0.1
        assert 0.9 < float(tensor.std()) < 1.1
    assert not torch.equal(views["K"], views["V"])


def test_what_is_saved_for_a_pass_is_the_kernels_own_and_counted() -> None:
    workload = replace(SMALL, pass_="backward")
    own = memory.owned(catalog()["flash"].operands(workload))
    assert [o.name for o in own if o.role == "saved"] == ["O", "lse"]
    half = replace(workload, dtype="bfloat16")
    tensors = buffers.allocate(half, memory.owned(catalog()["flash"].operands(half)), "cpu")
    assert (tensors["O"].dtype, tensors["lse"].dtype, tensors["dQ sum"].dtype) == (torch.bfloat16, torch.float32, torch.float32)
    operands = catalog()["flash"].operands(workload)
    without = [o for o in operands if o.role != "saved"]
    more = memory.peak_bytes(CPU, workload, [operands]) - memory.peak_bytes(CPU, workload, [without])
    assert more == sum(o.bytes for o in own if o.role == "saved")


def test_the_pool_is_kept_for_a_like_shape_and_refilled_for_another() -> None:
    pool = buffers.Pool("cpu")
    first = pool.views(SMALL, inputs_of(SMALL))["Q"].data_ptr()
    held = pool.bytes
    shorter = replace(SMALL, seq=40)
    assert pool.views(shorter, inputs_of(shorter))["Q"].data_ptr() == first
    assert pool.bytes == held
    longer = replace(SMALL, seq=200)
    pool.views(longer, inputs_of(longer))
    assert pool.bytes > held
    half = replace(SMALL, dtype="bfloat16")
    assert pool.views(half, inputs_of(half))["Q"].dtype == torch.bfloat16
    assert pool.bytes < held
    pool.clear()
    assert pool.bytes == 0


def test_the_pool_gives_back_what_is_far_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "SLACK_BYTES", 4096)
    pool = buffers.Pool("cpu")
    pool.views(SMALL, inputs_of(SMALL))
    held = pool.bytes
    pool.views(replace(SMALL, seq=10), inputs_of(replace(SMALL, seq=10)))
    assert pool.bytes < held / 4


@example(1, 2, 1, 1, 0, False, 1, True)  # dQ is zero but for the roundings of float64
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 150), st.integers(0, 150), st.booleans(),
    st.integers(1, 1 << 20), st.booleans(),
)
def test_a_check_in_chunks_is_the_check_of_the_whole(
    batch: int, kv: int, group: int, seq: int, seq_kv: int, causal: bool, chunk: int, backward: bool
) -> None:
    w = AttentionWorkload(batch=batch, heads=kv * group, kv_heads=kv, seq=seq, seq_kv=seq_kv, head_dim=8, dtype="float32",
                          causal=causal, pass_="backward" if backward else "forward")
    inputs = reference.inputs(w, "cpu", torch.Generator().manual_seed(1))
    wanted = reference.reference(w, inputs)
    outputs = {name: t.float() + 0.25 for name, t in wanted.items() if name != "lse"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "CHECK_CHUNK_BYTES", chunk)
        verdict = checking.check(fake("good"), w, inputs, outputs)
    assert verdict.rows == min(64, seq)
    assert not verdict.ok
    if seq <= 64:
        tops = [float(t.abs().max()) for name, t in wanted.items() if name != "lse"]
        whole = max(0.25 / (top if top > checking.ZERO else 1.0) for top in tops)
        assert verdict.max_error == pytest.approx(whole, rel=1e-3)
    right = {name: t.float() for name, t in wanted.items() if name != "lse"}
    assert checking.check(fake("good"), w, inputs, right).ok


def test_one_wrong_row_in_one_head_is_found_wherever_it_lies() -> None:
    inputs = reference.inputs(SMALL, "cpu", torch.Generator().manual_seed(1))
    right = reference.reference(SMALL, inputs)["O"].float()
    rows = torch.randperm(SMALL.seq, generator=torch.Generator().manual_seed(SMALL.seq))[: memory.CHECK_ROWS]
    for batch, head in ((0, 0), (1, 3)):
        wrong = right.clone()
        wrong[batch, head, rows[5], 3] += 0.5
        assert not checking.check(fake("good"), SMALL, inputs, {"O": wrong}).ok


def test_an_output_that_was_not_written_fails_with_a_finite_number() -> None:
    inputs = reference.inputs(SMALL, "cpu", torch.Generator().manual_seed(1))
    output = {"O": torch.empty(SMALL.batch, SMALL.heads, SMALL.seq, SMALL.head_dim)}
    checking.poison(output)
    verdict = checking.check(fake("good"), SMALL, inputs, output)
    assert not verdict.ok
    assert verdict.max_error == sys.float_info.max


def nothing() -> None:
    """What may end a launch, and does not."""


def test_a_newer_order_ends_a_launch_of_the_host_between_two_programs() -> None:
    spec = catalog()["flash"]
    left = [2]

    def look() -> None:
        left[0] -= 1
        if not left[0]:
            raise Replaced

    inputs = reference.inputs(SMALL, "cpu", torch.Generator().manual_seed(1))
    output = torch.full((SMALL.batch, SMALL.heads, SMALL.seq, SMALL.head_dim), torch.nan)
    config = Config(params={"block_m": 16, "block_n": 16, "warps": 4, "stages": 1})
    run = machine.HostMachine(look).bind(spec, SMALL, config, {**inputs, "O": output})
    with pytest.raises(Replaced):
        run()
    assert output.isnan().any()
    assert not output.isnan().all()
    run()
    assert not output.isnan().any()


def test_the_hosts_clock_counts_enough_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])

    def launch() -> dict[str, torch.Tensor]:
        now[0] += 50_000
        return {}

    timings = list(machine.HostTimer(launch, 80_000).burst())
    assert {t.launches for t in timings} == {machine.SAMPLE_NS // 50_000}
    assert {t.time_ns for t in timings} == {50_000.0}
    assert sum(t.launches * t.time_ns for t in timings) >= machine.BURST_NS


def test_a_launch_longer_than_a_burst_is_one_sample_from_the_checked_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now, launches = [0], [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])

    def launch() -> dict[str, torch.Tensor]:
        now[0] += 3 * machine.BURST_NS
        launches[0] += 1
        return {}

    timer = machine.HostTimer(launch, 3 * machine.BURST_NS)
    for burst in (0, 1, 2):
        assert list(timer.burst()) == [machine.Timing(1, 3.0 * machine.BURST_NS)]
        assert launches[0] == burst


def test_a_task_knows_when_it_is_replaced() -> None:
    said: list[tuple[Order, Event]] = []
    job = Job(4, CPU, SMALL, ())
    order, newest = Order(job, running=True), [Order()]
    task = Task(order, job, lambda: newest[0], lambda o, e: said.append((o, e)), lambda: 17)
    with pytest.raises(Replaced):
        task.look()
    newest[0] = order
    task.look()
    task.phase("warming", "flash", 1, 2)
    assert said == [(order, Phase(t_ns=17, generation=4, name="warming", kernel="flash", done=1, total=2))]


def test_the_host_refines_nothing_and_a_missing_gpu_is_named() -> None:
    assert machine.open_machine(CPU, nothing).refine(CPU) == CPU
    if not torch.cuda.is_available():
        with pytest.raises(machine.Unusable, match="cannot use cuda:0"):
            machine.open_machine(Device(id="cuda:0", kind="cuda", name=""), nothing)


def test_a_graphs_timer_keeps_what_the_launch_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A captured launch reads the tensors of its closure at each replay: a mask, what autograd saved for a backward pass."""

    class Mark:
        def synchronize(self) -> None: ...

        def elapsed_time(self, _: object) -> float:
            return 1.0

    class Graph:
        def replay(self) -> None: ...

    def bound() -> tuple[machine.Run, weakref.ref[torch.Tensor]]:
        mask = torch.ones(3)
        return lambda: {"O": mask}, weakref.ref(mask)

    monkeypatch.setattr(machine, "_mark", Mark)
    monkeypatch.setattr(machine, "_capture", lambda *_: Graph())
    run, mask = bound()
    timer = machine.CudaTimer(run, nothing)
    del run
    gc.collect()
    assert list(timer.burst())
    assert mask() is not None
