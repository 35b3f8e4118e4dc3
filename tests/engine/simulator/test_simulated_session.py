"""Conversations about GPUs that are not here: what is predicted, runs at their speed, and can be stopped."""

from __future__ import annotations

import time
from importlib.resources import files
from itertools import pairwise

import pytest
from msgspec.structs import replace

from engine import home
from engine.protocol import (
    Configure,
    DeviceFound,
    DeviceSample,
    Fault,
    Hello,
    KernelSample,
    MemorySample,
    Phase,
    Planned,
    Predicted,
    Refused,
    Start,
    Stop,
)
from engine.simulator import forecast, prediction, spec
from engine.simulator.counters import Counters
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Device
from tests.engine.conftest import Talk
from tests.engine.fakes import CPU

WORKLOAD = AttentionWorkload(batch=2, heads=8, kv_heads=8, seq=1024, head_dim=128, dtype="bfloat16")
H200 = Device(id="cuda:0", kind="cuda", name="NVIDIA H200", capability=(9, 0), sms=132, memory_bytes=150 << 30)


def configure(
    *kernels: str, device: str = "sim:h100-sxm", workload: AttentionWorkload = WORKLOAD, generation: int = 1
) -> Configure:
    return Configure(generation=generation, device=device, workload=workload, kernels=kernels)


def test_what_runs_takes_as_long_as_is_predicted(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(configure("naive", "flash"), Start(seconds=0.2))
    said.idle()
    planned = said.wait(Planned)
    for plan in planned.plans:
        found = said.wait(Predicted, kernel=plan.kernel)
        assert plan.schedule is not None
        direct = prediction.predict(plan.schedule, spec.resolve("sim:h100-sxm"))
        assert found.time_ns == pytest.approx(direct.seconds * 1e9)
        assert found.breakdown_ns[found.limiter] == max(found.breakdown_ns.values())
        samples = said.all(KernelSample, kernel=plan.kernel)
        assert samples
        assert {(sample.time_ns, sample.provenance) for sample in samples} == {(found.time_ns, "simulated")}
        assert "H100" in samples[0].source
    assert said.all(Phase, name="importing") == []
    owners = said.wait(MemorySample).owners
    size = 2 * 8 * 1024 * 2
    assert owners["Q K V O"] == 5 * size * 128  # an O each
    assert owners["S and P"] == 2 * size * 1024


def test_a_sample_is_told_when_the_device_would_be_done(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(configure("flash"), Start(seconds=0.3))
    said.idle()
    samples = said.all(KernelSample)
    spans = [(late.t_ns - early.t_ns) / (late.launches * late.time_ns) for early, late in pairwise(samples)]
    assert len(spans) > 3
    assert min(spans) >= 0.99  # never sooner: the host may come late, and then nothing is made up for


def test_a_launch_of_minutes_is_stopped_at_once(talk: Talk) -> None:
    said = talk(*catalog().values())
    long = replace(WORKLOAD, batch=8, heads=64, kv_heads=64, seq=131072)
    said.send(configure("flash", workload=long, device="sim:a100-sxm-80gb@clock=0.25"), Start())
    said.wait(Phase, name="measuring")
    before = time.monotonic()
    said.send(Stop())
    said.idle()
    said.send(configure("flash", generation=2), Start(seconds=0.05))
    said.wait(KernelSample, generation=2)
    assert time.monotonic() - before < 20
    assert said.all(KernelSample, generation=1) == []


def test_libraries_run_as_published_and_what_was_not_published_is_refused(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(configure("flash_attn_3", "sdpa_flash", "eager", "flex"), Start(seconds=0.1))
    said.idle()
    plans = {plan.kernel: plan for plan in said.wait(Planned).plans}
    assert {name for name, plan in plans.items() if plan.schedule is not None and not plan.refused} == {
        "flash_attn_3", "sdpa_flash", "eager"}
    assert "no schedule that was published" in (plans["flex"].refused or "")
    assert {sample.kernel for sample in said.all(KernelSample)} == {"flash_attn_3", "sdpa_flash", "eager"}


def test_on_a_gpu_that_triton_has_no_matrix_units_of_our_kernels_are_refused(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(configure("flash", "flash_attn_1", "eager", device="sim:t4", workload=replace(WORKLOAD, dtype="float16")))
    plans = {plan.kernel: plan for plan in said.wait(Planned).plans}
    assert "from compute capability 8.0 on" in (plans["flash"].refused or "")
    assert plans["flash_attn_1"].refused is None
    assert said.wait(Predicted, kernel="flash_attn_1").time_ns


def test_what_differs_of_a_gpu_makes_another_one(talk: Talk) -> None:
    said = talk(*catalog().values())
    times = []
    for generation, device in enumerate(("sim:h100-sxm", "sim:h100-sxm@bandwidth=2", "sim:h100-sxm@sms=66"), 1):
        said.send(configure("naive", "flash", device=device, generation=generation))
        times.append([said.wait(Predicted, generation=generation, kernel=kernel).time_ns or 0.0
                      for kernel in ("naive", "flash")])
    (naive, flash), (wide, _), (_, few) = times
    assert wide < naive
    assert few > 1.5 * flash
    assert [found.device.id for found in said.all(DeviceFound)][1:] == ["sim:h100-sxm@bandwidth=2", "sim:h100-sxm@sms=66"]
    assert all("simulated" in found.device.name for found in said.all(DeviceFound))


def test_a_stop_takes_nothing_from_what_is_predicted(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(configure("naive", "flash"), Stop())
    for kernel in ("naive", "flash"):
        assert said.wait(Predicted, kernel=kernel).time_ns


def test_a_file_is_read_anew_each_time(talk: Talk) -> None:
    path = home.folder() / "devices" / "mine.toml"
    path.parent.mkdir(parents=True)
    text = (files("assets") / "devices" / "h100-sxm.toml").read_text()
    path.write_text(text)
    said = talk(*catalog().values())
    said.send(configure("flash", device="sim:mine"))
    before = said.wait(Predicted).time_ns or 0.0
    path.write_text(text.replace("\nmemory_bytes = ", "\nmemory_bytes = 8_589_934_592  # ", 1))
    said.send(configure("flash", device="sim:mine", generation=2))
    assert said.wait(DeviceFound, device=spec.device_of(spec.resolve("sim:mine"))).device.memory_bytes == 8 << 30
    assert said.wait(Planned, generation=2).memory_bytes < 8 << 30
    assert said.wait(Predicted, generation=2).time_ns == before
    path.write_text("sms = ")
    said.send(configure("flash", device="sim:mine", generation=3))
    assert str(path) in said.wait(Refused).reason


def test_what_a_gpu_does_not_multiply_is_refused(talk: Talk) -> None:
    said = talk(*catalog().values())
    said.send(configure("flash_attn_1", "eager", device="sim:t4"))
    assert all("does not multiply bfloat16" in (plan.refused or "") for plan in said.wait(Planned).plans)


@pytest.mark.parametrize(("device", "says"), [
    ("sim:nothing", "there is no simulated GPU 'nothing'"), ("sim:t4@clock=9", "a factor of 9 is out of range"),
    ("sim:t4@ram=2", "there is no changing 'ram=2'"), ("sim:t4@sms=1.5", "sms cannot be '1.5'"),
    ("sim:t4@clock=nan", "a factor of nan is out of range"), ("sim:t4@clock=1,clock=2", "there is no changing 'clock=2'"),
])
def test_a_device_that_cannot_be_is_refused_in_a_sentence(talk: Talk, device: str, says: str) -> None:
    said = talk(*catalog().values())
    said.send(configure("flash", device=device))
    assert says in said.wait(Refused).reason


def test_a_real_gpu_is_predicted_beside_what_it_measures(talk: Talk) -> None:
    said = talk(*catalog().values(), devices=(H200,))
    said.send(configure("flash", "sdpa_flash", device="cuda:0"))
    for kernel in ("flash", "sdpa_flash"):
        assert said.wait(Predicted, kernel=kernel).provenance == "simulated"


def test_a_processor_and_a_gpu_without_a_spec_are_not_predicted(talk: Talk) -> None:
    other = replace(H200, id="cuda:1", name="NVIDIA Unheard Of")
    said = talk(*catalog().values(), devices=(other, CPU, H200))
    said.send(configure("flash", device="cuda:1"), configure("flash", device="cpu", generation=2),
              configure("flash", device="cuda:0", generation=3))
    said.wait(Predicted, generation=3)
    assert {found.generation for found in said.all(Predicted)} == {3}


def test_a_command_line_that_measures_predicts_nothing_beside_it(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(forecast.Forecasts, "of", never)
    said = talk(*catalog().values(), devices=(CPU, H200), foresees=False)
    small = replace(WORKLOAD, batch=1, heads=1, kv_heads=1, seq=64)
    said.send(configure("flash", device="cuda:0"), configure("naive", device="cpu", workload=small, generation=2), Start())
    said.wait(KernelSample)
    assert not said.all(Predicted)
    assert not said.all(Fault)


def test_simulated_gpus_are_listed_and_a_wrong_file_is_told() -> None:
    from engine.session import Session

    path = home.folder() / "devices" / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text("sms = 7")
    events: list[object] = []
    session = Session(events.append, telemetry_s=None)
    session.reject("enough")
    session._open()
    hello = next(event for event in events if isinstance(event, Hello))
    assert {f"sim:{one.id}" for one in spec.found()[0]} == {d.id for d in hello.devices if d.kind == "sim"}
    assert hello.devices[0].kind != "sim"
    assert [event.message for event in events if isinstance(event, Fault)] == [f"{path}: title: it is missing"]


def test_its_counters_are_busy_while_something_runs(talk: Talk) -> None:
    said = talk(*catalog().values(), telemetry_s=0.02)
    said.send(configure("naive"))
    assert said.wait(DeviceSample, utilisation=0.0, device="sim:h100-sxm").memory_used_bytes == 0
    said.send(Start())
    busy = said.wait(DeviceSample, utilisation=1.0)
    assert busy.memory_used_bytes == said.wait(Planned).peak_memory_bytes
    assert busy.dram_utilisation is not None
    assert 0 < busy.dram_utilisation <= 1
    assert (busy.source, busy.power_w, busy.missing["power_w"]) == ("simulator", None, "it is not simulated")
    said.send(Stop())
    said.wait(DeviceSample, after=len(said.events), utilisation=0.0)


def test_an_idle_one_moves_nothing() -> None:
    sample = Counters(spec.device_of(spec.resolve("sim:t4"))).sample(1)
    assert (sample.utilisation, sample.dram_utilisation, sample.sm_clock_hz) == (0.0, 0.0, spec.resolve("sim:t4").clock_hz)


def test_the_roof_is_that_of_the_data_sheet() -> None:
    roof = forecast.roof_of(spec.resolve("sim:h100-sxm"), "bfloat16")
    assert roof.flops_per_s == pytest.approx(989.4e12, rel=0.001)
    assert roof.dram_bytes_per_s == pytest.approx(3.35e12, rel=0.01)
    assert forecast.roof_of(spec.resolve("sim:t4"), "float32").flops_per_s < 10e12
