"""The laws, over the whole catalog: a new kernel file is covered with no new test."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace

from kernels import execute
from kernels.attention import flash_hopper_backward
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, KernelSpec, Schedule, Traffic
from kernels.contract.series import profile
from kernels.contract.walk import launch_totals, live_bytes, ops_of, program_steps, programs, totals, touches
from tests.kernels.shapes import CPU, H200, SMALL, error, grid, name, of_family, of_passes, shape, tensors_for

SCHEDULED = [spec for spec in catalog().values() if spec.schedule and spec.info.family == "attention"]
PEERS = [spec for spec in catalog().values() if spec.info.opaque and spec.info.family == "attention"]


def by_id(value: object) -> str | None:
    return value.id if isinstance(value, KernelSpec) else name(value) if isinstance(value, AttentionWorkload) else None


every = pytest.mark.parametrize("spec", SCHEDULED, ids=by_id)
shapes = pytest.mark.parametrize(("spec", "workload"), of_passes(SCHEDULED, grid()), ids=by_id)


def small(tokens: int) -> pytest.MarkDecorator:
    """The shapes of no more queries."""
    few = [w for w in grid() if w.batch * w.seq <= tokens]
    return pytest.mark.parametrize(("spec", "workload"), of_passes(SCHEDULED, few), ids=by_id)


@pytest.mark.parametrize(("spec", "workload"), of_passes(SCHEDULED, [
    *grid(), *(replace(w, dtype="float16") for w in grid()[::4])]), ids=by_id)
def test_schedule_executed_agrees_with_reference(spec: KernelSpec, workload: AttentionWorkload) -> None:
    w = workload
    tensors = tensors_for(spec, w)
    before = {o.name: tensors[o.name].clone() for o in spec.operands(w) if o.role == "input"}
    got = execute.bind(spec, w, SMALL, tensors)()
    wanted = spec.reference(w, tensors, None)
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(w)
    assert all(torch.equal(before[name], tensors[name]) for name in before), "an input was written"


@pytest.mark.parametrize(("spec", "workload"), of_passes(SCHEDULED, [shape(1000, 2)]), ids=by_id)
def test_long_schedule_agrees_with_reference(spec: KernelSpec, workload: AttentionWorkload) -> None:
    tensors = tensors_for(spec, workload)
    got = execute.bind(spec, workload, spec.configure(workload, CPU), tensors)()
    wanted = spec.reference(workload, tensors, None)
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(workload)


@shapes
def test_a_schedule_survives_the_wire(spec: KernelSpec, workload: AttentionWorkload) -> None:
    assert spec.schedule
    schedule = spec.schedule(workload, SMALL)
    assert msgspec.json.decode(msgspec.json.encode(schedule), type=Schedule) == schedule


@shapes
def test_ops_sum_to_the_closed_form(spec: KernelSpec, workload: AttentionWorkload) -> None:
    assert spec.schedule
    schedule, cost = spec.schedule(workload, SMALL), spec.cost(workload, SMALL)
    sums = totals(schedule)
    moved = {n: Traffic(sums.read.get(n, 0), sums.written.get(n, 0)) for n in {*sums.read, *sums.written}}
    assert moved == {name: traffic for name, traffic in cost.tile.items() if traffic != Traffic()}
    assert (sums.matrix_flops, sums.vector_flops, sums.exps) == (cost.flops, cost.vector_flops, cost.exps)
    assert cost.nominal_flops == workload.nominal_flops


@small(200)
def test_totals_are_the_sum_over_programs_and_steps(spec: KernelSpec, workload: AttentionWorkload) -> None:
    assert spec.schedule
    schedule = spec.schedule(workload, SMALL)
    for launch in schedule.launches:
        whole, each = launch_totals(schedule, launch), profile(schedule, launch)
        steps = [program_steps(schedule, launch, p) for p in range(launch.programs)]
        every_one = np.arange(launch.programs)
        assert whole.steps == each.steps.total == sum(map(len, steps))
        assert [len(s) for s in steps] == each.steps.at(every_one).tolist()
        for side, kind in ((whole.read, "load"), (whole.written, "store")):
            per_program = each.read if kind == "load" else each.written
            for operand, moved in side.items():
                walked = [sum(s.bytes for s in p if s.op.kind == kind and s.op.operand == operand) for p in steps]
                assert walked == per_program[operand].at(every_one).tolist()
                assert sum(walked) == moved
        assert whole.matrix_flops == sum(s.op.matrix_flops for p in steps for s in p)


@small(260)
def test_distinct_touches_are_the_compulsory_bytes(spec: KernelSpec, workload: AttentionWorkload) -> None:
    assert spec.schedule
    schedule, cost = spec.schedule(workload, SMALL), spec.cost(workload, SMALL)
    read: dict[str, int] = {}
    written: dict[str, int] = {}
    for launch in schedule.launches:
        for side, counts in zip((read, written), touches(schedule, launch), strict=True):
            for operand, count in counts.items():
                side[operand] = side.get(operand, 0) + int((count > 0).sum()) * schedule.operand(operand).itemsize
    for operand, traffic in cost.hbm.items():
        assert (read.get(operand, 0), written.get(operand, 0)) == (traffic.read, traffic.written), operand


@shapes
def test_every_output_has_one_last_store_and_scratch_is_written_before_it_is_read(
    spec: KernelSpec, workload: AttentionWorkload
) -> None:
    assert spec.schedule
    schedule = spec.schedule(workload, SMALL)
    ready = {o.name: np.zeros(o.shape, dtype=bool) for o in schedule.operands if o.role in ("output", "scratch")}
    for launch in schedule.launches:
        modes = {op.operand: op.mode for op, _ in ops_of(launch.body) if op.kind == "store"}
        loaded, stored = touches(schedule, launch)
        for operand, counts in loaded.items():
            assert schedule.operand(operand).materialised
            if operand in ready and operand not in stored:
                assert ready[operand][counts > 0].all(), f"{operand} is read before it is written"
        for operand, counts in stored.items():
            assert schedule.operand(operand).materialised
            assert operand in ready, f"{operand} is an input"
            assert modes[operand] != "add" or ready[operand][counts > 0].all(), f"{operand} is added to before it is written"
            assert counts.max() <= 1 or modes[operand] in ("rewrite", "add")
            ready[operand] |= counts > 0
    assert all(ready[o.name].all() for o in schedule.operands if o.role == "output")


@every
@pytest.mark.parametrize("head_dim", [32, 64, 96, 128, 192, 256])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("mask", [{"causal": False}, {"causal": True}, {"causal": True, "window": 256}], ids=str)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_live_slots_fit_what_was_compiled_and_the_device(
    spec: KernelSpec, direction: str, head_dim: int, dtype: str, mask: dict[str, int]
) -> None:
    assert spec.schedule
    if direction not in spec.info.passes:
        return
    w = AttentionWorkload(
        batch=1, heads=2, kv_heads=2, seq=1024, head_dim=head_dim, dtype=dtype, pass_=direction, **mask)  # type: ignore[arg-type]
    w, = of_family(spec, [w])
    config = spec.configure(w, H200)
    if dtype not in spec.info.dtypes:
        assert "float32" in spec.constraints(w, config, H200)[0]
        return
    if reasons := spec.constraints(w, config, H200):
        assert (spec.id, direction, head_dim > 128) == ("flash_hopper", "backward", True), reasons
        assert f"head dims up to 128, not {head_dim}" in reasons[0]
        return
    schedule = spec.schedule(w, config)
    for launch in schedule.launches:
        steps = program_steps(schedule, launch, launch.programs - 1)
        assert launch.sram_bytes is not None
        assert launch.registers is not None, f"{launch.name} was not recorded"
        assert live_bytes(launch, steps, "sram").max() <= launch.sram_bytes <= (H200.sram_bytes_per_block or 0)
        held = launch.registers + config.resources[launch.name].spill_bytes // 4
        assert live_bytes(launch, steps, "registers").max() <= held * launch.warps * 32 * 4


@every
def test_tiles_that_do_not_fit_the_device_are_refused(spec: KernelSpec) -> None:
    assert spec.schedule
    widest = "float32" if "float32" in spec.info.dtypes else "bfloat16"
    w = AttentionWorkload(batch=1, heads=1, kv_heads=1, seq=512, head_dim=256, dtype=widest)  # type: ignore[arg-type]
    w, = of_family(spec, [w])
    config = Config(params={"block_m": 128, "block_n": 256, "warps": 8, "stages": 4})
    launches = spec.schedule(w, config).launches
    need = max(live_bytes(launch, program_steps(spec.schedule(w, config), launch, 0), "sram").max() for launch in launches)
    assert need > (H200.sram_bytes_per_block or 0)
    reason, = spec.constraints(w, config, H200)
    assert reason.startswith(f"{spec.info.title}'s tiles need ")
    assert not spec.constraints(w, config, CPU)


@pytest.mark.parametrize("wanted", [1, 4, 6, 528])
@pytest.mark.parametrize("workload", [
    shape(100, 1, direction="backward"), shape(130, 1, causal=False, direction="backward"),
    shape(100, 2, seq_kv=160, window=20, direction="backward")], ids=name)
def test_any_number_of_programs_may_share_a_kv_head(
    workload: AttentionWorkload, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that walks over all query heads of the group, some that share them, one for each."""
    monkeypatch.setattr(flash_hopper_backward, "PROGRAMS", wanted)
    spec = catalog()["flash_hopper"]
    test_schedule_executed_agrees_with_reference(spec, workload)
    test_ops_sum_to_the_closed_form(spec, workload)
    test_distinct_touches_are_the_compulsory_bytes(spec, workload)


def test_the_numbers_of_programs_are_all_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = set()
    for wanted in (1, 4, 6, 528):
        monkeypatch.setattr(flash_hopper_backward, "PROGRAMS", wanted)
        tried.add(flash_hopper_backward.parts(shape(100, 1, direction="backward")))
    assert tried == {1, 2, 4}


def test_without_triton_a_backward_pass_is_planned_all_the_same() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from kernels.catalog import catalog\n"
        "from kernels.contract import AttentionWorkload, Device\n"
        "cpu = Device(id='cpu', kind='cpu', name='a CPU')\n"
        "w = AttentionWorkload(seq=64, head_dim=32, pass_='backward')\n"
        "for spec in catalog().values():\n"
        "    if spec.schedule and 'backward' in spec.info.passes:\n"
        "        assert spec.schedule(w, spec.configure(w, cpu)).launches\n"
        "        print(spec.id)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["flash", "flash_hopper"]


def test_fusion_saves_what_the_mask_kernel_moves() -> None:
    naive, fused = catalog()["naive"], catalog()["fused_softmax"]
    for workload in grid():
        square = workload.batch * workload.heads * workload.seq * workload.keys * workload.itemsize
        costs = [spec.cost(workload, SMALL) for spec in (naive, fused)]
        assert costs[0].hbm_bytes - costs[1].hbm_bytes == (2 * square if workload.causal else 0)
        assert costs[0].flops == costs[1].flops, "the same products"


@pytest.mark.parametrize("kernel", ["naive", "fused_softmax"])
def test_the_products_may_have_tiles_of_their_own(kernel: str) -> None:
    spec, own = catalog()[kernel], {"scores_block_n": 64, "pv_block_m": 16, "scores_warps": 8, "pv_stages": 3}
    config = Config(params={**SMALL.params, **own})
    for w in grid():
        assert spec.schedule
        schedule, cost = spec.schedule(w, config), spec.cost(w, config)
        sums = totals(schedule)
        assert {n: Traffic(sums.read.get(n, 0), sums.written.get(n, 0)) for n in cost.tile} == cost.tile
        assert (sums.matrix_flops, sums.vector_flops) == (cost.flops, cost.vector_flops)
        first, last = schedule.launches[0], schedule.launches[-1]
        assert (first.slot("S").shape, first.slot("K").copies, first.warps) == ((32, 64), 1, 8)
        assert (last.slot("P").shape, last.slot("P").copies, last.warps) == ((16, 16), 2, 4)


def test_flash_v1_rewrites_o_at_every_block_of_keys() -> None:
    w = shape(130, 2, seq_kv=100, causal=False)
    spec, blocks = catalog()["flash_v1"], -(-100 // SMALL["block_n"])
    assert spec.schedule
    schedule = spec.schedule(w, SMALL)
    moved = totals(schedule)
    for operand in "Oml":
        size = schedule.operand(operand).bytes
        assert moved.read[operand] == blocks * size
        assert moved.written[operand] == (blocks + 1) * size, "once to begin with"
        assert touches(schedule, schedule.launches[0])[1][operand].max() == blocks + 1
    assert moved.read["K"] == w.group * schedule.operand("K").bytes, "each query head reads its KV head once"


@pytest.mark.parametrize(("spec", "workload"), of_passes(SCHEDULED, [shape(130, 2)]), ids=by_id)
def test_programs_cover_the_grid_once(spec: KernelSpec, workload: AttentionWorkload) -> None:
    assert spec.schedule
    schedule = spec.schedule(workload, SMALL)
    for launch in schedule.launches:
        coordinates = programs(schedule, launch)
        points = set(zip(*(values.tolist() for values in coordinates.values()), strict=True))
        assert len(points) == launch.programs


@pytest.mark.parametrize("spec", PEERS, ids=by_id)
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("causal", [True, False])
def test_peers_agree_with_reference_on_this_cpu(spec: KernelSpec, direction: str, causal: bool) -> None:
    w = AttentionWorkload(
        batch=2, heads=4, kv_heads=2, seq=63, seq_kv=100, head_dim=32, causal=causal, dtype="float32",
        pass_=direction,  # type: ignore[arg-type]
    )
    if spec.constraints(w, Config(), CPU):
        pytest.skip(spec.constraints(w, Config(), CPU)[0])
    tensors = tensors_for(spec, w)
    got = spec.launch(w, Config(), tensors)()
    wanted = spec.reference(w, tensors, None)
    assert set(got) == {o.name for o in spec.operands(w) if o.role == "output"}
    for output in got:
        assert error(got[output], wanted[output]) <= spec.tolerance(w)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_reference_rows_are_rows_of_the_whole(direction: str) -> None:
    w = AttentionWorkload(batch=1, heads=2, kv_heads=1, seq=50, seq_kv=30, head_dim=16, dtype="float32",
                          pass_=direction)  # type: ignore[arg-type]
    spec = catalog()["sdpa_math"]
    tensors = tensors_for(spec, w)
    rows = torch.tensor([0, 7, 20, 49])
    whole, part = spec.reference(w, tensors, None), spec.reference(w, tensors, rows)
    for output, value in part.items():
        assert torch.allclose(value, whole[output][:, :, rows], atol=1e-12)
    if direction == "forward":
        assert (whole["O"][:, :, :20] == 0).all()
        assert (whole["lse"][:, :, :20] == -torch.inf).all()


def test_reference_gradients_are_those_of_autograd() -> None:
    w = AttentionWorkload(batch=2, heads=4, kv_heads=2, seq=20, seq_kv=24, head_dim=8, dtype="float32", pass_="backward")
    spec = catalog()["sdpa_math"]
    tensors = {name: t.double() for name, t in spec.inputs(w, "cpu", torch.Generator().manual_seed(1)).items()}
    leaves = {name: tensors[name].requires_grad_() for name in "QKV"}
    k, v = (leaves[n].repeat_interleave(2, dim=1) for n in "KV")
    hidden = torch.ones(20, 24, dtype=torch.bool).triu(24 - 20 + 1)
    p = (leaves["Q"] @ k.mT * 8**-0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    wanted = torch.autograd.grad(p @ v, list(leaves.values()), tensors["dO"])
    got = spec.reference(w, {n: t.detach() for n, t in tensors.items()}, None)
    for output, gradient in zip(("dQ", "dK", "dV"), wanted, strict=True):
        assert torch.allclose(got[output], gradient, atol=1e-12)
