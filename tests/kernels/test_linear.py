"""The laws for linear kernels, at their own shapes, and what only layers have: steps, tables by batch."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kernels import execute
from kernels.catalog import catalog
from kernels.contract import Config, KernelSpec, LinearWorkload, Traffic, Workload
from kernels.contract.walk import live_bytes, program_steps
from kernels.linear import splits
from kernels.tuned import tables
from tests.kernels import test_laws as laws
from tests.kernels.shapes import CPU, H200, error, tensors_for

LINEAR = [spec for spec in catalog().values() if spec.info.family == "linear"]
OURS = [spec for spec in LINEAR if spec.schedule]


def layer(batch: int, d_in: int, d_out: int = 0, repeat: int = 1) -> LinearWorkload:
    return LinearWorkload(batch=batch, d_in=d_in, d_out=d_out or d_in, repeat=repeat, dtype="float32")


LAYERS = [layer(1, 1), layer(1, 64, 16), layer(3, 100, 7), layer(33, 17, 50), layer(64, 32, 64), layer(70, 48, 33),
          layer(5, 40, repeat=2), layer(33, 20, repeat=3), layer(1, 64, repeat=5)]


def name(value: object) -> str | None:
    if isinstance(value, LinearWorkload):
        return f"B{value.batch}-{value.d_in}x{value.d_out}-R{value.repeat}"
    return value.id if isinstance(value, KernelSpec) else None


every = pytest.mark.parametrize("spec", OURS, ids=name)
layers = pytest.mark.parametrize("workload", LAYERS, ids=name)


@every
@layers
def test_the_laws_of_the_catalog_hold(spec: KernelSpec, workload: LinearWorkload) -> None:
    for dtype in ("float32", "float16"):
        w = replace(workload, dtype=dtype)
        laws.test_schedule_executed_agrees_with_reference(spec, w)  # type: ignore[arg-type]
    for law in (
        laws.test_a_schedule_survives_the_wire, laws.test_ops_sum_to_the_closed_form,
        laws.test_totals_are_the_sum_over_programs_and_steps, laws.test_distinct_touches_are_the_compulsory_bytes,
        laws.test_every_output_has_one_last_store_and_scratch_is_written_before_it_is_read,
        laws.test_programs_cover_the_grid_once,
    ):
        law(spec, workload)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", LINEAR, ids=name)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("workload", [*LAYERS, layer(8, 300, 200), layer(200, 256, repeat=64)], ids=name)
def test_it_runs_on_this_cpu_as_chosen_for_it(spec: KernelSpec, workload: LinearWorkload, dtype: str) -> None:
    w = replace(workload, dtype=dtype)
    tensors = tensors_for(spec, w)
    config = spec.configure(w, CPU)
    got = (execute.bind(spec, w, config, tensors) if spec.schedule else spec.launch(w, config, tensors))()
    assert error(got["Y"], spec.reference(w, tensors, None)["Y"]) <= spec.tolerance(w)


@every
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("batch", [1, 16, 17, 64, 100, 256, 1000])
@pytest.mark.parametrize("width", [8192, 4096, 1000])
def test_live_slots_fit_what_was_compiled_and_the_device(spec: KernelSpec, batch: int, dtype: str, width: int) -> None:
    w = LinearWorkload(batch=batch, d_in=width, d_out=width, dtype=dtype)  # type: ignore[arg-type]
    config = spec.configure(w, H200)
    assert not spec.constraints(w, config, H200)
    assert spec.schedule
    for launch in spec.schedule(w, config).launches:
        steps = program_steps(spec.schedule(w, config), launch, launch.programs - 1)
        assert launch.registers is not None, "it was not recorded"
        assert live_bytes(launch, steps, "sram").max() <= (launch.sram_bytes or 0) <= (H200.sram_bytes_per_block or 0)
        assert live_bytes(launch, steps, "registers").max() <= launch.registers * launch.warps * 32 * 4


@every
def test_tiles_that_do_not_fit_the_device_are_refused(spec: KernelSpec) -> None:
    config = Config(params={"block_m": 128, "block_n": 128, "block_k": 256, "warps": 8, "stages": 4})
    reason, = spec.constraints(LinearWorkload(), config, H200)
    assert reason.startswith("batched_linear's tiles need 384 KiB of SRAM")
    assert not spec.constraints(LinearWorkload(), config, CPU)


@every
def test_tma_is_refused_where_there_is_none(spec: KernelSpec) -> None:
    config = Config(params={"block_m": 64, "block_n": 64, "block_k": 64, "warps": 4, "stages": 2, "tma": 1})
    reason, = spec.constraints(LinearWorkload(), config, replace(H200, capability=(8, 0)))
    assert reason == "tma of batched_linear needs compute capability 9.0: set it to 0"
    assert not spec.constraints(LinearWorkload(), config, H200)


@pytest.mark.parametrize("batch", [1, 64, 128, 200, 256, 1000])
@pytest.mark.parametrize("width", [512, 2048, 4096, 8192, 14336])
def test_splits_fill_one_wave_and_no_more_and_are_worth_their_launch(batch: int, width: int) -> None:
    spec, w = catalog()["batched_linear"], LinearWorkload(batch=batch, d_in=width, d_out=4096)
    config = spec.configure(w, H200)
    config = replace(config, params=config.params | {"splits": 0})
    assert spec.schedule
    programs, count = spec.schedule(w, config).launches[0].programs, splits.count(w, config)
    tiles = programs // count
    assert count == 1 or (programs <= 132 and width // count >= splits.WORTH_INPUTS)
    more = count + 1
    assert tiles * more > 132 or width // more < splits.WORTH_INPUTS or more > splits.most(w)
    assert len(spec.schedule(w, config).launches) == (1 if count == 1 else 2)


@every
@pytest.mark.parametrize("table", sorted(tables()))
def test_every_batch_has_a_row_and_a_larger_batch_no_smaller_tile(spec: KernelSpec, table: str) -> None:
    rows = tables()[table].kernels[spec.id]
    for size in (2, 4):
        known = sorted((row for row in rows if row.itemsize == size), key=lambda row: row.batch or math.inf)
        assert known[-1].batch == 0
        assert [row.block_m for row in known] == sorted(row.block_m for row in known)
        assert all(row.batch <= row.block_m or row.block_m >= 64 for row in known)


@given(
    st.integers(1, 4096), st.integers(1, 1 << 17), st.integers(1, 1 << 17), st.integers(1, 256),
    st.sampled_from(["float16", "bfloat16", "float32"]))
def test_any_layer_is_planned_at_its_closed_form_or_refused_in_a_sentence(
    batch: int, d_in: int, d_out: int, repeat: int, dtype: str
) -> None:
    fields = {"type": "linear", "batch": batch, "d_in": d_in, "d_out": d_out, "repeat": repeat, "dtype": dtype}
    if repeat > 1 and d_in != d_out:
        with pytest.raises(msgspec.ValidationError, match="make d_in and d_out the same"):
            msgspec.convert(fields, Workload)
        fields["d_out"] = d_out = d_in
    w = msgspec.convert(fields, Workload)
    assert isinstance(w, LinearWorkload)
    size = {"float16": 2, "bfloat16": 2, "float32": 4}[dtype]
    for spec in LINEAR:
        cost = spec.cost(w, spec.configure(w, H200))
        assert cost.nominal_flops == 2 * batch * d_in * d_out * repeat <= cost.flops
        parts = cost.hbm.get("Y_part", Traffic())
        assert cost.hbm_bytes - parts.read - parts.written == repeat * size * (batch * d_in + d_in * d_out + batch * d_out)
        assert set(cost.hbm) <= {o.name for o in spec.operands(w)}


@pytest.mark.parametrize("repeat", [1, 3])
def test_reference_rows_are_rows_of_the_whole(repeat: int) -> None:
    spec, w = LINEAR[0], layer(20, 16, repeat=repeat)
    tensors, rows = tensors_for(spec, w), torch.tensor([0, 7, 19])
    whole, part = spec.reference(w, tensors, None)["Y"], spec.reference(w, tensors, rows)["Y"]
    assert torch.allclose(part, whole[rows], atol=1e-12)


def test_the_steps_are_those_of_a_recurrent_network() -> None:
    spec, w = LINEAR[0], layer(4, 12, repeat=3)
    tensors = tensors_for(spec, w)
    cell = torch.nn.RNN(12, 12, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        cell.get_parameter("weight_hh_l0").copy_(tensors["W"].double() / 12**0.5)
        cell.get_parameter("weight_ih_l0").zero_()
        wanted, _ = cell(torch.zeros(4, 3, 12, dtype=torch.float64), tensors["X"].double()[None])
    assert torch.allclose(spec.reference(w, tensors, None)["Y"], wanted[:, -1], atol=1e-12)


def test_a_step_reads_the_weights_again() -> None:
    spec, w = catalog()["batched_linear"], layer(8, 64, repeat=4)
    once, rows = spec.cost(replace(w, repeat=1), spec.configure(w, H200)), 8 * 64 * 4
    steps = spec.cost(w, spec.configure(w, H200))
    assert steps.hbm["W"].read == 4 * once.hbm["W"].read
    assert steps.hbm["H"] == Traffic(3 * rows, 3 * rows)
