"""A decoding on a simulated GPU: the events of a run, and what the command prints of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from engine.decoding import Decoding, Lane
from engine.models import shapes
from engine.models.command import decode
from engine.models.memory import peak_bytes
from engine.models.simulated import events
from engine.options import BadInput
from engine.protocol import DecodeSample, DecodingPlanned, LaneDone, Refused
from engine.simulator.decoding import step
from engine.simulator.spec import resolve

GPT2 = next(model for model in shapes.load() if model.id == "gpt2")
T4 = resolve("sim:t4")


def decoded(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(decode, ["--json", *arguments], standalone_mode=False)
    assert done.return_value == code, done.output
    return json.loads(done.output)


def test_events_are_those_of_a_run_in_every_lane() -> None:
    lanes = tuple(Lane(cache=cache, kv_heads=12) for cache in ("dense", "none"))
    decoding = Decoding(model=GPT2, lanes=lanes, batch=2, prompt=7, new=4)
    planned, *rest = events(decoding, T4, generation=3)
    assert isinstance(planned, DecodingPlanned)
    assert planned.memory_bytes == T4.memory_bytes
    assert planned.peak_memory_bytes == peak_bytes(decoding, "cuda", fused=True, sms=T4.sms)  # as of a GPU that is here
    for lane in lanes:
        mine = [event for event in rest if getattr(event, "lane", "") == lane.id]
        samples = [event for event in mine if isinstance(event, DecodeSample)]
        assert [(sample.position, sample.prefill) for sample in samples] == [(8, True), (9, False), (10, False), (11, False)]
        assert [sample.kv_bytes for sample in samples] == [decoding.kv_bytes(lane, tokens) for tokens in (7, 8, 9, 10)]
        assert {(sample.generation, sample.provenance, sample.tokens) for sample in samples} == {(3, "simulated", ())}
        second = step(GPT2, lane, "float16", 2, 7, 1, T4)  # the token that the prompt chose is computed
        assert samples[1].time_ns == pytest.approx(second.seconds * 1e9)
        assert isinstance(mine[-1], LaneDone)


def test_the_command_prints_what_it_prints_of_a_gpu() -> None:
    found = decoded("--device", "sim:t4", "--model", "gpt2", "--batch", "2", "--prompt", "30", "--new", "40")
    assert (found["device"], found["provenance"], found["dtype"], found["refused"]) == ("sim:t4", "simulated", "float16", None)
    assert found["tokens"] == [[], []]
    assert len(found["us_per_token"]) == 39
    assert found["kv_bytes"] == {"formula": 2 * 2 * 70 * 768 * 12 * 2, "allocated": 2 * 2 * 70 * 768 * 12 * 2, "nvml": None}
    assert found["tokens_per_s"]["p50"] == pytest.approx(2e6 / found["us_per_token"][19], rel=1e-3)
    assert 0 < found["bandwidth_fraction"] < 1
    assert found["peak_memory_bytes"] > 2.4e8
    cached, growing = decoded("--device", "sim:t4", "--cache", "dense,none", "--prompt", "8", "--new", "900")
    assert cached["us_per_token"][-1] < 1.3 * cached["us_per_token"][0]
    assert growing["us_per_token"][-1] > 2 * growing["us_per_token"][0]
    assert growing["kv_bytes"] is None


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    for model, more, says in (("llama-3-8b", ("--dtype", "float32"), "Llama-3-8B needs "),
                              ("gpt2", ("--dtype", "bfloat16"), "T4 does not multiply bfloat16")):
        found = decoded("--device", "sim:t4", "--model", model, "--new", "4", *more, code=1)
        assert found["refused"].startswith(says)
        assert (found["tokens_per_s"], found["us_per_token"], found["provenance"]) == (None, [], "simulated")
    assert "free on sim:t4" in decoded("--device", "sim:t4", "--model", "llama-3-8b", "--batch", "400", code=1)["refused"]


def test_bad_devices_and_weights_are_one_sentence() -> None:
    for arguments, says in ((("--device", "sim:t5"), "there is no simulated GPU 't5'"),
                            (("--device", "sim:t4", "--weights", "there"), "leave out --weights")):
        done = CliRunner().invoke(decode, arguments)
        assert done.exit_code == BadInput.exit_code
        assert says in done.output


def test_a_file_is_a_device(tmp_path: Any) -> None:
    from importlib.resources import files

    path = tmp_path / "mine.toml"
    path.write_text((files("assets") / "devices" / "t4.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert decoded("--device", f"sim:{path}", "--new", "3")["device"] == f"sim:{path}"


def test_a_lane_that_cannot_be_predicted_is_refused_and_the_others_go_on() -> None:
    decoding = Decoding(model=GPT2, lanes=(Lane(cache="dense", kv_heads=12),), prompt=4, new=2, dtype="bfloat16")
    *_, last = events(decoding, T4)
    assert isinstance(last, Refused)
    assert last.kernel == "dense-12"
