"""What ops ask of an SM's units, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from engine.simulator import spec as specs
from engine.simulator import units
from engine.simulator.launches import Product
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, KernelSpec, Launch, TileOp
from kernels.contract.series import runs_of
from kernels.contract.walk import ops_of

SPECS = {spec.id: spec for spec in specs.load()}
H200, A100 = SPECS["h200-sxm"], SPECS["a100-sxm-80gb"]
FORWARD = AttentionWorkload(batch=1, heads=4, kv_heads=4, seq=2048, head_dim=128, dtype="float16")
BACKWARD = replace(FORWARD, pass_="backward")


def launch_of(kernel: KernelSpec, workload: AttentionWorkload, name: str, device: specs.DeviceSpec = H200) -> Launch:
    blueprint = kernel.blueprint
    assert blueprint is not None
    schedule = blueprint.schedule(workload, blueprint.configure(workload, specs.device_of(device)))
    return next(launch for launch in schedule.launches if launch.name == name)


def op_of(launch: Launch, gives: str) -> TileOp:
    return next(op for op, _ in ops_of(launch.body) if op.kind == "compute" and op.matrix_flops and op.writes[0] == gives)


def test_wgmma_reads_the_right_factor_for_every_64_rows_and_the_left_one_where_it_lies_in_sram() -> None:
    """128 rows of Q, 128 keys, D 128, 16 bits: Q once and K for each of two groups; P is in registers, V as K."""
    launch = launch_of(catalog()["flash_hopper"], FORWARD, "flash_hopper")
    tile = 2 * 128 * 128
    assert launch.slot("S").shape == (128, 128)
    assert units.sram_bytes(op_of(launch, "S"), launch) == tile + 2 * tile
    assert units.sram_bytes(op_of(launch, "O"), launch) == 2 * tile


def test_of_fewer_rows_than_groups_have_each_reads_them_all() -> None:
    """64 queries, 128 keys, D 128, eight warps, as in docs/performance.md: each of two groups reads Q, and its half of K."""
    launch = launch_of(catalog()["flash"], BACKWARD, "flash_backward")
    assert (launch.slot("S").shape, launch.warps) == ((64, 128), 8)
    assert units.sram_bytes(op_of(launch, "S"), launch) == 2 * (2 * 64 + 128) * 128
    assert units.sram_bytes(op_of(launch, "dV"), launch) == 2 * 2 * 64 * 128  # P is in registers, dO is read by both
    leaves = 4 * 64 * 128  # dQ, float32, which the copy engine takes from SRAM
    assert units.put_bytes(op_of(launch, "dQ"), launch) == leaves
    assert units.sram_bytes(op_of(launch, "dQ"), launch) == leaves + 2 * (2 * 64 + 128) * 128


def test_a_warp_of_mma_reads_the_right_factor_whole() -> None:
    """On an A100, as its machine code does: K for each of eight warps of 16 rows, and of Q each its own rows."""
    launch = launch_of(catalog()["flash"], FORWARD, "flash", A100)
    assert (launch.slot("S").shape, launch.warps, launch.wgmma) == ((128, 64), 8, False)
    assert units.sram_bytes(op_of(launch, "S"), launch) == 2 * 128 * (8 * 64 + 128)


def test_an_mma_waits_for_the_one_whose_sums_it_adds_to() -> None:
    """Few rows times a matrix: a warp has one or two sums, to which all that is as deep as a tile is added, 16 at a time."""
    [launch] = Product(8, 768, 768, "float16", fused=True).schedule(H200).launches
    op = op_of(launch, "C")
    rows, columns = launch.slot("C").shape
    deep = op.matrix_flops / (2 * rows * columns)
    assert (launch.wgmma, rows, columns, deep) == (False, 16, 16, 256)
    multiplied = op.matrix_flops / (4096 * units.MMA_SHARE)
    assert units.chained(op, launch, H200) == pytest.approx(units.MMA * 256 / 16 - multiplied)
    parts = replace(op, depth_warps=4)
    assert units.chained(parts, launch, H200) == pytest.approx(units.MMA * 64 / 16 - multiplied)


def test_a_warp_that_has_many_sums_waits_for_none() -> None:
    launch = launch_of(catalog()["flash"], FORWARD, "flash", A100)
    assert all(units.chained(op_of(launch, gives), launch, A100) < 0 for gives in ("S", "O"))
    launch = launch_of(catalog()["flash"], FORWARD, "flash")
    assert launch.wgmma
    assert units.chained(op_of(launch, "S"), launch, H200) == 0


@pytest.mark.parametrize(("device", "share"), [(H200, units.UNIT), (A100, units.UNIT)])
def test_units_by_hand(device: specs.DeviceSpec, share: float) -> None:
    """One turn of flash's walk: products at the rate of their instructions, an issue slot for every operation and exponential,
    and for each product and warp what is around it."""
    kernel = catalog()["flash"]
    schedule = kernel.schedule(FORWARD, kernel.configure(FORWARD, specs.device_of(device)))  # type: ignore[misc]
    launch = schedule.launches[0]
    runs, clock = runs_of(schedule, launch), 1e9
    asked = np.stack([units.seconds(op, launch, device, clock) for op in runs.ops]).sum(axis=0)  # [stations, alike programs]
    found = dict(zip(units.STATIONS, asked.reshape(len(units.STATIONS), -1)[:, 0], strict=True))
    rows, keys = launch.slot("S").shape
    turns = FORWARD.keys / keys
    assert launch.wgmma == (device is H200)
    matrix = turns * 4 * rows * keys * 128 / (device.matrix_flops_per_clock["float16"] * share)
    operations = turns * (rows * keys * 5 + rows * 4 + rows * 128) + rows * 128  # and O / l
    issued = operations / 128 + turns * 2 * units.AROUND * launch.warps / 4
    assert found["matrix"] * clock == pytest.approx(matrix)
    assert found["exponential"] * clock == pytest.approx(turns * rows * (keys + 1) / 16)
    assert found["vector"] * clock == pytest.approx(issued)


def test_products_of_single_warps_are_slower_on_hopper_alone() -> None:
    launch = launch_of(catalog()["sdpa_flash"], FORWARD, "flash_fwd")
    assert units.share_of_peak(launch, H200) == units.MMA_SHARE
    assert units.share_of_peak(launch, A100) == units.UNIT
    assert units.share_of_peak(replace(launch, wgmma=True), H200) == units.UNIT


def test_warps_that_compute_leave_out_a_producer() -> None:
    hopper = launch_of(catalog()["flash_hopper"], BACKWARD, "flash_hopper_backward")
    assert (hopper.warps, hopper.groups, units.fours(hopper)) == (12, 2, 2)
    flash = launch_of(catalog()["flash"], BACKWARD, "flash_backward")
    assert (flash.warps, flash.groups, units.fours(flash)) == (8, 1, 2)
