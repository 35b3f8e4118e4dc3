"""Batchings are planned without torch: what each batch size takes, the programs that fill the device, and what does not fit."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

from engine.allocator import LARGE_SEGMENT
from engine.batching.plan import OURS, plan, workload_of
from engine.batching.work import BATCHES, Batching
from engine.models import shapes
from engine.protocol import BatchingPlanned, ConfigureBatching
from kernels.catalog import catalog
from kernels.contract import Device
from kernels.linear import splits
from tests.kernels.shapes import CPU, H200

GIB = 1 << 30
MODELS = {model.id: model for model in shapes.load()}


def planned(batching: Batching, free: int = 100 * GIB, device: Device = H200) -> BatchingPlanned:
    return plan(ConfigureBatching(generation=3, device=device.id, batching=batching), device, free, catalog())


def test_a_layer_is_planned_by_its_own_arithmetic_and_the_kernels_tiles() -> None:
    run = Batching(width=4096)
    found = planned(run)
    assert (found.generation, found.device, found.batching, found.memory_bytes) == (3, "cuda:0", run, 100 * GIB)
    assert tuple(one.batch for one in found.plans) == BATCHES
    for one in found.plans:
        assert (one.flops, one.moved_bytes) == (run.flops(one.batch), run.moved_bytes(one.batch))
        layer = workload_of(run, one.batch)
        config = catalog()[OURS].configure(layer, H200)
        tiles = -(-one.batch // config["block_m"]), -(-4096 // config["block_n"])
        assert (one.programs, one.rows) == (tiles[0] * tiles[1] * splits.count(layer, config), config["block_m"])
        assert one.refused is None
    peaks = [one.peak_memory_bytes for one in found.plans]
    assert all(more > less - LARGE_SEGMENT for less, more in pairwise(peaks)), "a larger tensor may fill its segment better"
    assert peaks[-1] > peaks[0]
    assert peaks[0] > 2 * 4096**2


def test_programs_are_those_of_one_step_of_an_rnn() -> None:
    one, many = planned(Batching(width=1024)), planned(Batching(work="rnn", width=1024, steps=9))
    assert [plan.programs for plan in one.plans] == [plan.programs for plan in many.plans]
    assert many.plans[0].flops == 9 * one.plans[0].flops


def test_a_model_grows_by_its_cache() -> None:
    found = planned(Batching(work="model", model=MODELS["llama-3-8b"], cached=1000))
    assert {(one.programs, one.rows) for one in found.plans} == {(None, None)}
    grown = found.plans[-1].peak_memory_bytes - found.plans[0].peak_memory_bytes
    assert grown > 255 * 1000 * 128 * 1024


def test_what_does_not_fit_is_refused_from_the_batch_on_that_does_not() -> None:
    found = planned(Batching(work="model", model=MODELS["llama-2-7b"], cached=3000), free=140 * GIB)
    assert [one.batch for one in found.plans if one.refused] == [128, 256]
    assert found.plans[-1].refused is not None
    assert found.plans[-1].refused.endswith("140 GiB are free on cuda:0: choose fewer cached tokens, or a smaller model")
    small = planned(Batching(width=4096, dtype="float32"), free=1 << 20, device=CPU)
    assert all(one.refused is not None and one.refused.endswith("choose a smaller width") for one in small.plans)


def test_planning_loads_no_torch() -> None:
    code = ("import sys; from engine.batching.plan import plan; from engine.batching.work import Batching; "
            "from engine.protocol import ConfigureBatching; from kernels.catalog import catalog; "
            "from kernels.contract import Device; "
            "device = Device(id='cuda:0', kind='cuda', name='a GPU', capability=(9, 0), sms=132); "
            "plan(ConfigureBatching(generation=1, device='cuda:0', batching=Batching()), device, 1 << 40, catalog()); "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
