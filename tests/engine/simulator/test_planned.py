"""What a kernel is predicted from: one plan for the command and the bench, and what cannot be set is refused in a sentence."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from engine import memory
from engine.__main__ import main
from engine.options import BadInput
from engine.planner import PlanError
from engine.simulator import spec as specs
from engine.simulator.planned import Unpublished, planned
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload

A100 = specs.device_of(specs.resolve("a100-sxm-40gb"))
W = AttentionWorkload(batch=4, heads=16, kv_heads=16, seq=1024, head_dim=64, dtype="float16", causal=False)


def predict(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["predict", "--device", "sim:a100-sxm-40gb", "--json", *arguments], standalone_mode=False)


def test_what_is_set_reaches_the_schedule_of_a_published_kernel() -> None:
    kernel = catalog()["flash_attn_1"]
    plain, more = (planned(kernel, W, A100, params) for params in ({}, {"dropout": 1}))
    assert (plain.config["dropout"], more.config["dropout"]) == (0, 1)
    assert plain.schedule != more.schedule
    assert more.config.resources == plain.config.resources
    times = [json.loads(predict("--kernel", "flash_attn_1", *setting).stdout)[0]["time_us"]
             for setting in ((), ("--set", "dropout=1"))]
    assert times[0] < times[1]


def test_what_is_set_compiles_a_kernel_of_ours_anew() -> None:
    found = planned(catalog()["flash"], W, A100, {"block_m": 64})
    assert found.config["block_m"] == 64
    assert found.schedule is not None
    assert found.peak_bytes == memory.peak_bytes(A100, W, [catalog()["flash"].operands(W)])


@pytest.mark.parametrize(("kernel", "params", "said"), [
    ("sdpa_flash", {"block_m": 64}, "has no parameter 'block_m': it has none"),
    ("flash_attn_1", {"block_m": 64}, "has no parameter 'block_m': it has dropout"),
    ("flash_attn_1", {"dropout": 2}, "cannot be 2: choose 0 or 1"), ("flash", {"block_m": 7}, "cannot be 7"),
])
def test_a_parameter_that_is_none_is_one_sentence(kernel: str, params: dict[str, int], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        planned(catalog()[kernel], W, A100, params)


def test_a_parameter_of_another_pass_is_one_sentence() -> None:
    [(kernel, param), *_] = [(kernel, param) for kernel in catalog().values() if "backward" in kernel.info.passes
                             for param in kernel.info.params if param.passes == ("forward",)]
    with pytest.raises(PlanError, match=f"{param.name} of .* means nothing in the backward pass: leave it out"):
        planned(kernel, replace(W, pass_="backward"), A100, {param.name: param.choices[0]})


@pytest.mark.parametrize(("kernel", "setting", "said"), [
    ("sdpa_flash", "block_m=64", "no such field or kernel parameter"), ("flash_attn_1", "dropout=2", "cannot be 2"),
])
def test_the_command_refuses_them_as_bad_input(kernel: str, setting: str, said: str) -> None:
    done = predict("--kernel", kernel, "--set", setting)
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)


def test_a_peer_beside_a_kernel_that_has_the_parameter_keeps_its_own() -> None:
    """As in `run`: what is set is for those kernels that have it."""
    both = json.loads(predict("--kernel", "flash,sdpa_flash", "--set", "block_m=64").stdout)
    alone = json.loads(predict("--kernel", "sdpa_flash").stdout)
    assert both[0]["config"]["block_m"] == 64
    assert both[1:] == alone


@pytest.mark.parametrize(("kernel", "more", "said"), [
    ("naive", {"pass_": "backward"}, "has no backward pass: choose forward"),
    ("sdpa_flash", {"dtype": "float32"}, "takes float16 and bfloat16 only"), ("split_kv", {}, "one query a sequence"),
])
def test_what_cannot_run_so_is_refused_and_has_no_schedule(kernel: str, more: dict[str, str], said: str) -> None:
    found = planned(catalog()[kernel], replace(W, **more), A100, {})
    assert found.schedule is None
    assert said in found.refused


def test_what_nobody_published_is_said() -> None:
    with pytest.raises(Unpublished, match="has no schedule that was published: it runs, and is not predicted"):
        planned(catalog()["sdpa_efficient"], W, A100, {})
    refused = json.loads(predict("--kernel", "sdpa_efficient").stdout)[0]
    assert "was published" in refused["refused"]
    assert refused["time_us"] is None
