"""Decodings are planned: sizes by closed form, lanes refused with what would fit, all without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.decoding import Decoding, Lane, Model
from engine.models import shapes
from engine.models.memory import weights_blocks
from engine.models.plan import peak_bytes, plan
from engine.protocol import ConfigureDecoding, DecodingPlanned
from kernels.contract import Device
from kernels.contract.workload import PAGE
from tests.kernels.shapes import H200

MODELS = {model.id: model for model in shapes.load()}
GIB = 1 << 30


def decoding(name: str = "llama-3-8b", *lanes: Lane, **more: object) -> Decoding:
    model = MODELS[name]
    chosen = lanes or (Lane(cache="dense", kv_heads=model.kv_heads),)
    return Decoding(model=model, lanes=chosen, **{"prompt": 128, "new": 128, **more})  # type: ignore[arg-type]


def planned(decoding: Decoding, free: int, device: Device = H200) -> DecodingPlanned:
    return plan(ConfigureDecoding(generation=3, device=device.id, decoding=decoding), device, free)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.id)
def test_the_tensors_of_the_weights_sum_to_the_parameters(model: Model) -> None:
    for kv_heads in {model.kv_heads, model.heads, 1}:
        d = Decoding(model=model, lanes=(Lane(cache="dense", kv_heads=kv_heads),), prompt=1, new=1)
        assert sum(weights_blocks(d)) == model.parameters(kv_heads) * 2


@given(st.sampled_from(sorted(MODELS)), st.integers(1, 64), st.integers(1, 100), st.integers(1, 100))
def test_pages_waste_less_than_a_page_a_sequence(name: str, batch: int, prompt: int, new: int) -> None:
    lane = Lane(cache="paged", kv_heads=MODELS[name].kv_heads)
    d = decoding(name, lane, batch=batch, prompt=prompt, new=new)
    wasted = d.kv_allocated_bytes(lane) - d.kv_bytes(lane, d.tokens)
    assert 0 <= wasted < d.kv_bytes(lane, PAGE) + 4 * batch * (d.tokens + PAGE)


def test_cached_in_eight_bits_takes_half_and_the_scales() -> None:
    dense, eight = (Lane(cache=kind, kv_heads=8) for kind in ("dense", "int8"))
    d = decoding("llama-3-8b", dense, eight)
    assert d.kv_bytes(eight, 100) / d.kv_bytes(dense, 100) == (128 + 4) / (2 * 128)


def test_lanes_share_the_weights_that_do_not_depend_on_their_heads() -> None:
    one, two = Lane(cache="dense", kv_heads=8), Lane(cache="dense", kv_heads=1)
    d = decoding("llama-3-8b", one, two)
    alone, together = (peak_bytes(d, lanes, H200) for lanes in ([one], [one, two]))
    assert 0 < together - alone < d.weights_bytes(two) / 4
    assert together < sum(peak_bytes(d, [lane], H200) for lane in (one, two))


def test_what_cannot_fit_is_refused_with_what_does() -> None:
    d = decoding("llama-3-8b", batch=64, prompt=4000, new=4000)
    (refused,) = planned(d, 40 * GIB).plans
    assert refused.refused
    assert refused.longest
    assert refused.largest_batch
    assert f"at most {refused.longest:,} tokens of a sequence or a batch of {refused.largest_batch:,}" in refused.refused
    fits = replace(d, batch=refused.largest_batch)
    assert planned(fits, 40 * GIB).plans[0].refused is None
    assert planned(replace(d, batch=refused.largest_batch + 1), 40 * GIB).plans[0].refused
    assert planned(replace(d, prompt=10, new=refused.longest - 10), 40 * GIB).plans[0].refused is None


def test_a_model_that_never_fits_says_so() -> None:
    (refused,) = planned(decoding("llama-3-8b"), 4 * GIB).plans
    assert (refused.refused or "").endswith("choose a smaller model")


def test_lanes_that_fit_alone_are_refused_until_the_rest_fits_together() -> None:
    lanes = [Lane(cache=cache, kv_heads=8) for cache in ("dense", "paged", "int8")]
    d = decoding("llama-3-8b", *lanes, batch=32, prompt=2000, new=6000)
    whole = planned(d, 200 * GIB)
    assert not any(plan.refused for plan in whole.plans)
    tight = planned(d, whole.peak_memory_bytes - 1)
    assert [bool(plan.refused) for plan in tight.plans].count(True) == 1
    assert tight.peak_memory_bytes <= whole.peak_memory_bytes - 1


@pytest.mark.parametrize(("changes", "says"), [
    ({"batch": 0}, "batch 0 is out of range"), ({"new": 0}, "new 0 is out of range"),
    ({"prompt": 9000}, "are more than the context of Llama-3-8B, 8192"), ({"lanes": ()}, "each lane is wanted once"),
    ({"lanes": (Lane(cache="dense", kv_heads=8),) * 2}, "each lane is wanted once"),
    ({"lanes": (Lane(cache="dense", kv_heads=5),)}, "kv-heads 5 does not divide the 32 heads"),
    ({"temperature": -1.0}, "temperature -1 is out of range"),
    ({"temperature": float("nan")}, "temperature nan is out of range"),
    ({"top_k": -1}, "top-k -1 is out of range"),
])
def test_a_wrong_decoding_is_refused_in_a_sentence(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(decoding(), **changes)


def test_planning_loads_no_torch() -> None:
    code = "import sys, engine.models.plan, engine.models.command; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
