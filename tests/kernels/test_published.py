"""The laws over what is predicted from what its authors published: executed op by op, as if it could be run."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from kernels.attention import chain_steps
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Cost, Device, KernelSpec, Refusal, Schedule
from kernels.contract.walk import live_bytes, ops_of, program_steps
from tests.kernels import test_laws as laws
from tests.kernels.shapes import CPU, H200, name, of_passes, shape
from tests.kernels.test_compile import matrix

A100 = Device(id="sim:a100", kind="sim", name="A100", capability=(8, 0), sms=108, sram_bytes_per_block=163 << 10)
A6000 = Device(id="sim:a6000", kind="sim", name="A6000", capability=(8, 6), sms=84, sram_bytes_per_block=99 << 10)
T4 = Device(id="sim:t4", kind="sim", name="T4", capability=(7, 5), sms=40, sram_bytes_per_block=64 << 10)
DEVICES = (T4, A6000, A100, H200)


def as_run(spec: KernelSpec) -> KernelSpec:
    """The kernel with what is published of it in the place of its own."""
    found = spec.published
    assert found
    return replace(spec, operands=found.operands, configure=found.configure, constraints=found.constraints, cost=found.cost,
                   schedule=found.schedule, tolerance=found.tolerance, save=found.save)


PUBLISHED = [as_run(spec) for spec in catalog().values() if spec.published]
LIKE = {"sdpa_flash": "flash_attn_2", "sdpa_cudnn": "flash_attn_3"}
CHAINS = [spec for spec in PUBLISHED if spec.id in ("eager", "eager_masked", "sdpa_math")]
NEVER_RUN = [spec for spec in catalog().values() if spec.info.role == "published"]
GPT2_MEDIUM = AttentionWorkload(batch=64, heads=16, kv_heads=16, seq=1024, head_dim=64, dtype="float16", causal=False)


def schedule_of(kernel: str, workload: AttentionWorkload, device: Device = H200) -> Schedule:
    blueprint = catalog()[kernel].blueprint
    assert blueprint
    return blueprint.schedule(workload, blueprint.configure(workload, device))


def by_id(value: object) -> str | None:
    return value.id if isinstance(value, KernelSpec) else name(value) if isinstance(value, AttentionWorkload) else None


@pytest.fixture(autouse=True)
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles for the laws: FlashAttention-1's blocks of keys are whole numbers of its blocks of rows."""
    spec = request.node.callspec.params.get("spec") if hasattr(request.node, "callspec") else None
    sizes = {"block_m": 16, "block_n": 32, "block_d": 128} if spec and spec.id == "flash_attn_1" else {
        "block_m": 64, "block_n": 32, "block_k": 32, "stages": 2}
    monkeypatch.setattr(laws, "SMALL", Config(params={**sizes, "warps": 4}))


def taken(spec: KernelSpec, workload: AttentionWorkload) -> bool:
    """Whether the mask and the heads are such as were published, on some device."""
    w = msgspec.structs.replace(workload, dtype="float16", seq=max(2, workload.seq))
    return any(not spec.constraints(w, spec.configure(w, device), device) for device in DEVICES)


def cases(workloads: list[AttentionWorkload]) -> pytest.MarkDecorator:
    own = [spec for spec in PUBLISHED if spec.id not in LIKE]
    found = [(spec, w) for spec, w in of_passes(own, workloads) if taken(spec, w)]
    return pytest.mark.parametrize(("spec", "workload"), found, ids=by_id)


SHAPES = [  # masks, grouped heads, odd lengths; flash's laws have them all for the builders that it shares
    shape(63, 4), shape(100, 4, causal=False), shape(130, 1), shape(63, 2, window=16), shape(130, 2, window=37),
    shape(100, 2, seq_kv=130, causal=False), shape(40, 2, seq_kv=64), shape(70, 4, head_dim=40), shape(70, 2, head_dim=96),
    shape(40, 4, head_dim=128, causal=False), shape(100, 2, seq_kv=160, window=20), shape(160, 1, seq_kv=100, window=20),
]
every = pytest.mark.parametrize("spec", PUBLISHED, ids=by_id)


@cases(SHAPES)
def test_schedule_executed_agrees_with_reference(spec: KernelSpec, workload: AttentionWorkload) -> None:
    laws.test_schedule_executed_agrees_with_reference(spec, workload)


@cases(SHAPES[:3])
def test_schedule_executed_in_16_bits_agrees_with_reference(spec: KernelSpec, workload: AttentionWorkload) -> None:
    laws.test_schedule_executed_agrees_with_reference(spec, msgspec.structs.replace(workload, dtype="float16"))


@cases(SHAPES)
def test_it_obeys_the_laws(spec: KernelSpec, workload: AttentionWorkload) -> None:
    laws.test_a_schedule_survives_the_wire(spec, workload)
    laws.test_ops_sum_to_the_closed_form(spec, workload)
    laws.test_every_output_has_one_last_store_and_scratch_is_written_before_it_is_read(spec, workload)
    if workload.batch * workload.seq <= 200:
        laws.test_totals_are_the_sum_over_programs_and_steps(spec, workload)
        laws.test_distinct_touches_are_the_compulsory_bytes(spec, workload)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kernel", LIKE)
def test_one_that_is_like_another_differs_in_its_name_alone(kernel: str, direction: str) -> None:
    w = shape(1000, 2, head_dim=128, dtype="float16", direction=direction)
    mine, its = (schedule_of(name, w) for name in (kernel, LIKE[kernel]))
    assert (mine.kernel, its.kernel) == (kernel, LIKE[kernel])
    assert msgspec.structs.replace(mine, kernel=its.kernel) == its


@every
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_dim", [32, 64, 80, 96, 128, 192, 256])
def test_live_slots_fit_what_is_stated_and_the_device(spec: KernelSpec, head_dim: int, causal: bool) -> None:
    tried = 0
    for direction in spec.info.passes:
        w = AttentionWorkload(batch=1, heads=2, kv_heads=2, seq=1024, head_dim=head_dim, causal=causal, dtype="float16",
                              pass_=direction)
        for device in DEVICES:
            config = spec.configure(w, device)
            if spec.constraints(w, config, device):
                continue
            assert spec.schedule
            schedule = spec.schedule(w, config)
            assert schedule.kernel == spec.id
            tried += 1
            for launch in schedule.launches:
                steps = program_steps(schedule, launch, launch.programs - 1)
                assert launch.sram_bytes is not None
                assert launch.registers is not None
                assert live_bytes(launch, steps, "sram").max() <= launch.sram_bytes <= (device.sram_bytes_per_block or 0)
                packed = sum(slot.bytes for slot in launch.slots if slot.name == "P")  # P takes the place of S as it is rounded
                assert live_bytes(launch, steps, "registers").max() <= launch.registers * launch.warps * 128 + packed
                assert launch.registers * launch.warps * 32 <= 65536
                assert launch.streams <= launch.warps / 4
                for op, _ in ops_of(launch.body):
                    assert not (op.early and op.ahead), "what runs ahead is early"
    assert tried or head_dim > 128, "some device takes it"


@every
def test_where_nothing_is_published_is_said_in_a_sentence(spec: KernelSpec) -> None:
    w = shape(64, dtype="float16", head_dim=64)
    assert "on GPUs alone" in spec.constraints(w, spec.configure(w, CPU), CPU)[0]
    unknown = msgspec.structs.replace(H200, capability=None)
    assert "an unknown one" in spec.constraints(w, spec.configure(w, unknown), unknown)[0]


def test_a_kernel_with_a_schedule_is_predicted_from_it() -> None:
    flash, peer = catalog()["flash"], catalog()["flash_attn_2"]
    assert flash.published is None
    assert flash.blueprint
    assert flash.blueprint.schedule is flash.schedule
    assert peer.schedule is None
    assert peer.blueprint is peer.published
    assert catalog()["flex"].blueprint is None


@pytest.mark.parametrize(("kernel", "device", "head_dim", "causal", "tile", "warps"), [
    ("flash_attn_2", A100, 64, False, (128, 128), 4), ("flash_attn_2", A100, 128, True, (128, 64), 4),
    ("flash_attn_2", A6000, 128, False, (128, 32), 4), ("flash_attn_2", A6000, 128, True, (64, 64), 4),
    ("flash_attn_2", A100, 256, True, (128, 64), 8), ("flash_attn_2", H200, 256, True, (64, 64), 4),
    ("flash_attn_3", H200, 64, True, (192, 128), 16), ("flash_attn_3", H200, 128, True, (128, 128), 12),
    ("flash_attn_3", H200, 128, False, (128, 176), 12), ("flash_attn_3", H200, 256, False, (128, 80), 12),
    ("sdpa_flash", A100, 64, False, (128, 128), 4), ("sdpa_cudnn", H200, 128, False, (128, 176), 12),
    ("flash_attn_1", A100, 64, False, (16, 256), 4), ("flash_attn_1", T4, 128, False, (16, 128), 4),
    ("eager", A100, 64, False, (128, 128), 4), ("sdpa_math", H200, 64, False, (128, 128), 8),
])
def test_tiles_are_those_that_were_published(
    kernel: str, device: Device, head_dim: int, causal: bool, tile: tuple[int, int], warps: int
) -> None:
    w = shape(4096, head_dim=head_dim, causal=causal, dtype="float16")
    blueprint = catalog()[kernel].blueprint
    assert blueprint
    config = blueprint.configure(w, device)
    assert (config["block_m"], config["block_n"], config["warps"]) == (*tile, warps)


def test_what_tells_flash_attention_3_from_2() -> None:
    """Softmax beside products, programs that stay, one read of K and V for two."""
    for causal in (False, True):
        w = shape(4096, head_dim=128, causal=causal, dtype="float16")
        two, three = (schedule_of(kernel, w).launches[0] for kernel in ("flash_attn_2", "flash_attn_3"))
        assert (two.async_products, two.streams, two.resident, two.dynamic) == (False, 1, 0, False)
        assert (three.async_products, three.streams, three.resident, three.dynamic) == (True, 2, 132, causal)
        keys = [op for op, _ in ops_of(three.body) if op.kind == "load" and op.operand in "KV"]
        assert [op.multicast for op in keys] == [1 if causal else 2] * 2
        assert [op.early for op, _ in ops_of(two.body) if op.kind == "load"] == [False, True, True]


def test_of_our_kernels_flash_for_hopper_alone_hides_its_softmax() -> None:
    """Triton waits for P V together with the next S: on Hopper too flash's softmax runs beside other groups' products alone. In
    backward passes nothing is under way from one turn to the next, and flash's eight warps meet wherever they hand dS over."""
    for spec in catalog().values():
        if spec.schedule is None or spec.info.family != "attention":
            continue
        for direction in spec.info.passes:
            w = shape(4096, head_dim=128, dtype="bfloat16", direction=direction)
            for launch in spec.schedule(w, spec.configure(w, H200)).launches:
                assert launch.async_products == (launch.name == "flash_hopper")
                together = {"flash_hopper": 2, "flash_hopper_backward": 2, "flash_backward": 1}
                assert launch.streams == together.get(launch.name, launch.warps // 4)


def test_wgmma_is_where_the_compiler_was_seen_to_use_it() -> None:
    """test_compile.py finds the instruction in the code of these launches."""
    seen = set()
    for spec in catalog().values():
        if spec.schedule is None:
            continue
        for direction in spec.info.passes:
            w = spec.kind()
            w = msgspec.structs.replace(w, pass_=direction) if isinstance(w, AttentionWorkload) else w
            config = spec.configure(w, H200)
            wanted = {c.launch: matrix("sm_90", c) == "HGMMA" for c in spec.compilations(w, config)}
            for launch in spec.schedule(w, config).launches:
                if any(op.matrix_flops for op, _ in ops_of(launch.body)):
                    few = spec.info.family == "decode"  # rows: 16 heads of a group
                    assert launch.wgmma == (wanted[launch.name] and not few), (spec.id, launch.name)
                    seen.add(launch.wgmma)
                else:
                    assert not launch.wgmma
    assert seen == {True, False}


def test_an_odd_number_of_blocks_makes_no_clusters() -> None:
    odd = schedule_of("flash_attn_3", shape(3 * 128, head_dim=128, causal=False, dtype="float16"))
    assert {op.multicast for op, _ in ops_of(odd.launches[0].body)} == {1}
    few = schedule_of("flash_attn_3", shape(64, head_dim=128, dtype="float16"))
    assert few.launches[0].resident == 0, "every item has its own program"




def test_shared_memory_is_what_was_published() -> None:
    """144 KiB of an A100 for the backward passes at D 64 and 128, 48 and 64 for the forward ones."""
    for head_dim, forward, backward in ((64, 48, 144), (128, 64, 144)):
        w = shape(1024, head_dim=head_dim, dtype="float16")
        assert schedule_of("flash_attn_2", w, A100).launches[0].sram_bytes == forward << 10
        walk = schedule_of("flash_attn_2", msgspec.structs.replace(w, pass_="backward"), A100).launches[1]
        assert walk.sram_bytes == backward << 10
        assert (walk.warps, walk.streams) == (8, 1), "warps that hand P and dS to one another go together"


def test_a_matrix_unit_moves_no_more_than_shared_memory_gives_it() -> None:
    """At D 128 FlashAttention-2's backward pass asks SRAM for nearly as many clocks as the matrix units take."""
    w = shape(1024, head_dim=128, dtype="float16", causal=False)
    for direction, share in (("forward", 0.625), ("backward", 0.95)):
        schedule = schedule_of("flash_attn_2", msgspec.structs.replace(w, pass_=direction), A100)
        walk = next(launch for launch in schedule.launches if launch.name.startswith("flash"))
        ops = [op for op, loops in ops_of(walk.body) if loops and op.matrix_flops]
        sram_clocks = sum(op.moved_bytes for op, loops in ops_of(walk.body) if loops) / 128
        assert sram_clocks == pytest.approx(share * sum(op.matrix_flops for op in ops) / 2048, rel=0.01)


@pytest.mark.parametrize(
    ("spec", "workload"), of_passes(CHAINS, [shape(70, 2), shape(40, 4, seq_kv=100, causal=False)]), ids=by_id)
def test_rows_that_no_program_holds_are_read_twice(
    spec: KernelSpec, workload: AttentionWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_steps, "ROW_ELEMENTS", 32)
    monkeypatch.setattr(chain_steps, "ELEMENTS", 32)
    laws.test_schedule_executed_agrees_with_reference(spec, workload)
    laws.test_ops_sum_to_the_closed_form(spec, workload)
    laws.test_distinct_touches_are_the_compulsory_bytes(spec, workload)


def cost_of(kernel: str, workload: AttentionWorkload) -> Cost:
    blueprint = catalog()[kernel].blueprint
    assert blueprint
    return blueprint.cost(workload, blueprint.configure(workload, A100))


def both(workload: AttentionWorkload) -> list[AttentionWorkload]:
    return [msgspec.structs.replace(workload, pass_=direction) for direction in ("forward", "backward")]


def test_the_first_papers_figure_standard_attention() -> None:
    """40.3 GB of HBM, forward and backward: 18 passes over N_q N_kv in 16 bits, and 12 over N D."""
    costs = [cost_of("eager_masked", w) for w in both(GPT2_MEDIUM)]
    square, rows = (GPT2_MEDIUM.batch * GPT2_MEDIUM.heads * GPT2_MEDIUM.seq * n * 2 for n in (1024, 64))
    assert sum(cost.hbm_bytes for cost in costs) == 18 * square + 12 * rows + 1024 * 1024 * 2
    assert sum(cost.hbm_bytes for cost in costs) == pytest.approx(40.3e9, rel=0.01)
    assert [sum(t.read + t.written for name, t in cost.hbm.items() if name[0] in "SPk" or name.startswith(("dP", "dS")))
            for cost in costs] == [int(8.5 * square), int(9.5 * square)]


def test_the_first_papers_figure_flash() -> None:
    """4.4 GB of HBM lie between what cannot be avoided and what crosses to the SMs: some of what waits is found in the L2."""
    costs = [cost_of("flash_attn_1", w) for w in both(GPT2_MEDIUM)]
    assert sum(cost.hbm_bytes for cost in costs) < 4.4e9 < sum(cost.tile_bytes for cost in costs)
    causal = [cost_of("flash_attn_1", w) for w in both(msgspec.structs.replace(GPT2_MEDIUM, causal=True))]
    assert sum(cost.tile_bytes for cost in causal) < 4.4e9, "the figure's mask hides no blocks"


def test_flash_attention_1_moves_q_for_each_block_and_o_once_less() -> None:
    cost, row = cost_of("flash_attn_1", GPT2_MEDIUM), 64 * 16 * 1024 * 64
    assert cost.tile["Q"].read == 4 * row * 2
    assert (cost.tile["O sum"].read, cost.tile["O sum"].written, cost.tile["O"].written) == (3 * row * 4, 3 * row * 4, row * 2)
    short = cost_of("flash_attn_1", msgspec.structs.replace(GPT2_MEDIUM, seq=128))
    assert short.tile["O sum"].read == 0, "one block leaves nothing to wait"


def test_dropout_is_work_and_no_bytes() -> None:
    for w in both(GPT2_MEDIUM):
        blueprint = catalog()["flash_attn_1"].blueprint
        assert blueprint
        config = blueprint.configure(w, A100)
        dropping = msgspec.structs.replace(config, params={**config.params, "dropout": 1})
        plain, more = blueprint.cost(w, config), blueprint.cost(w, dropping)
        assert (more.tile, more.hbm, more.flops, more.exps) == (plain.tile, plain.hbm, plain.flops, plain.exps)
        assert more.vector_flops - plain.vector_flops == 11 * w.batch * w.heads * w.seq * w.keys


def test_sdpa_math_works_in_float32_whatever_the_dtype() -> None:
    """36 bytes an element of S forward in 16 bits, 30 in float32, 8 more with a mask."""
    w = shape(512, head_dim=64, causal=False)
    square = w.batch * w.heads * w.seq * w.keys
    for dtype, causal, each in (("float16", False, 36), ("float32", False, 30), ("float16", True, 44)):
        cost = cost_of("sdpa_math", msgspec.structs.replace(w, dtype=dtype, causal=causal))
        moved = sum(t.read + t.written for name, t in cost.hbm.items() if name[0] in "SPh")
        assert moved == each * square


@pytest.mark.parametrize("spec", NEVER_RUN, ids=by_id)
def test_what_is_predicted_alone_refuses_to_run_in_a_sentence(spec: KernelSpec) -> None:
    w = shape(64, dtype="float16")
    for device in (CPU, H200):
        (said,) = spec.constraints(w, spec.configure(w, device), device)
        assert "is predicted, never run" in said
        assert ": choose " in said
    with pytest.raises(Refusal, match="is predicted, never run"):
        spec.launch(w, Config(), {})
    assert spec.info.opaque
    assert spec.blueprint
