"""Conversations with a session: order, cancelling, and what breaks, each provoked by a fake kernel."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from engine import machine
from engine.protocol import (
    Bye,
    Checked,
    Configure,
    DeviceSample,
    Fault,
    Hello,
    KernelSample,
    MemorySample,
    Pause,
    Phase,
    Planned,
    Refused,
    Shutdown,
    Start,
    Stop,
    decode_event,
    encode,
)
from kernels.contract import Device, KernelSpec, Refusal
from tests.engine.conftest import Talk
from tests.engine.fakes import CPU, PATIENCE_S, SMALL, Conversation, configure, fake


class Gate:
    """A place in a kernel where it stops until the test lets it go."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE_S)


@pytest.fixture
def gate() -> Any:
    gate = Gate()
    yield gate
    gate.open.set()


def raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_hello_comes_first_and_says_what_there_is(talk: Talk) -> None:
    said = talk(fake("good"))
    hello = said.wait(Hello)
    assert said.events[0] is hello
    assert hello.t_ns > 0
    assert hello.devices == (CPU,)
    assert [info.id for info in hello.kernels] == ["good"]
    assert [field.name for field in hello.fields][:2] == ["batch", "seq"]
    assert {"python", "torch", "numpy"} <= set(hello.software)


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys\nfrom engine.session import Session\nfrom engine.protocol import *\n"
        "said = []\nsession = Session(said.append, telemetry_s=None)\n"
        "session.send(Configure(generation=1, device='cpu', workload=AttentionWorkload(), kernels=('naive', 'flash')))\n"
        "session.send(Shutdown())\nsession.run()\n"
        "print([type(e).__name__ for e in said], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['Hello', 'Planned', 'Bye'] False"


def test_a_run_goes_through_its_phases_and_checks_before_it_measures(talk: Talk) -> None:
    said = talk(fake("good"), fake("other"))
    said.send(configure(7, "good", "other"), Start())
    said.wait(Phase, name="measuring", done=2, total=2)
    said.wait(KernelSample, kernel="other")
    names = list(dict.fromkeys(phase.name for phase in said.all(Phase)))
    assert names == ["importing", "allocating", "warming", "checking", "measuring"]
    for kernel in ("good", "other"):
        kinds = [type(e) for e in said.events if getattr(e, "kernel", "") == kernel and isinstance(e, Checked | KernelSample)]
        assert kinds[0] is Checked
    sample, checked = said.wait(KernelSample), said.wait(Checked)
    assert sample.generation == checked.generation == 7
    assert sample.source == "host clock"
    assert sample.launches >= 1
    assert sample.time_ns > 0
    assert checked.ok
    assert checked.rows == 64
    assert checked.max_error <= checked.tolerance


def test_times_of_samples_do_not_run_backwards_nor_overlap(talk: Talk) -> None:
    said = talk(fake("good"))
    said.send(configure(), Start(seconds=0.2))
    said.idle()
    samples = said.all(KernelSample)
    assert len(samples) >= 2
    for before, after in pairwise(samples):
        assert after.t_ns >= before.t_ns


def test_seconds_end_the_run_and_free_it(talk: Talk) -> None:
    said = talk(fake("good"))
    said.send(configure(), Start(seconds=0.01))
    said.idle()
    assert said.all(KernelSample)
    said.send(Start(seconds=0.01))
    said.idle(after=len(said.events))


def test_every_event_travels_as_json(talk: Talk) -> None:
    said = talk(fake("good"), fake("bad", rows=10), fake("broken", run=raising(KeyError("x"))))
    said.send(configure(1, "good", "bad", "broken"), Start(seconds=0.01))
    said.idle()
    for event in said.events:
        assert decode_event(encode(event)) == event


def test_stop_is_acknowledged_while_a_kernel_compiles_and_its_results_are_dropped(talk: Talk, gate: Gate) -> None:
    said = talk(fake("slow", bind=gate), fake("good"))
    said.send(configure(1, "slow"), Start())
    assert gate.reached.wait(PATIENCE_S)
    said.send(Stop())
    said.idle()
    here = len(said.events)
    gate.open.set()
    said.send(configure(2, "good"), Start())
    said.wait(KernelSample, generation=2)
    assert not [event for event in said.events[here:] if getattr(event, "generation", 2) != 2]


def test_pause_holds_a_run_and_start_goes_on(talk: Talk, gate: Gate) -> None:
    said = talk(fake("slow", bind=gate))
    said.send(configure(1, "slow"), Start())
    assert gate.reached.wait(PATIENCE_S)
    said.send(Pause())
    said.wait(Phase, name="paused")
    here = len(said.events)
    gate.open.set()
    assert not said.all(KernelSample)
    said.send(Start())
    said.wait(KernelSample)
    said.send(Pause())
    said.wait(Phase, after=here, name="paused")
    there = len(said.events)
    said.send(Start())
    said.wait(KernelSample, after=there)
    assert not said.all(Phase, after=there, name="compiling"), "what was ready was made ready again"
    assert not said.all(Phase, name="idle")


def test_pause_and_stop_with_nothing_running_say_idle(talk: Talk) -> None:
    said = talk(fake("good"))
    said.send(Pause())
    said.idle()
    said.send(Stop())
    assert len(said.wait(Hello).kernels) == 1
    said.send(Shutdown())
    said.wait(Bye)
    assert [phase.name for phase in said.all(Phase)] == ["idle", "idle"]


def test_shutdown_leaves_a_hanging_compile_behind(gate: Gate) -> None:
    said = Conversation({"slow": fake("slow", bind=gate)})
    said.send(configure(1, "slow"), Start())
    assert gate.reached.wait(PATIENCE_S)
    said.send(Shutdown())
    said.wait(Bye)
    said._thread.join(PATIENCE_S)
    assert said.session.left_behind
    gate.open.set()
    said.close()


def test_a_new_configuration_goes_on_running_and_drops_the_old(talk: Talk) -> None:
    said = talk(fake("good"))
    said.send(configure(1), Start())
    said.wait(KernelSample, generation=1)
    said.send(configure(2, workload=replace(SMALL, seq=96)))
    said.wait(KernelSample, generation=2)
    planned = next(i for i, e in enumerate(said.events) if isinstance(e, Planned) and e.generation == 2)
    assert not [e for e in said.events[planned:] if getattr(e, "generation", 2) == 1]


def test_a_configuration_that_is_refused_leaves_the_run_going(talk: Talk) -> None:
    said = talk(fake("good"))
    said.send(configure(1), Start())
    said.wait(KernelSample)
    said.send(configure(2, "nonsense"))
    refused = said.wait(Refused)
    assert (refused.generation, refused.kernel) == (2, "")
    assert refused.reason == "there is no kernel 'nonsense': choose from good"
    said.wait(KernelSample, after=len(said.events), generation=1)


def test_a_check_is_made_once_for_a_kernel_configuration_and_shape(talk: Talk) -> None:
    calls: list[int] = []
    said = talk(fake("good", on_reference=lambda: calls.append(1)))
    for generation in (1, 2):
        said.send(configure(generation), Start())
        said.wait(KernelSample, generation=generation)
        said.wait(Checked, generation=generation, ok=True)
    assert len(calls) == 1


@pytest.mark.parametrize("wrong", [fake("bad", error=0.5), fake("bad", rows=40), fake("bad", error=float("nan"))],
                         ids=["error", "some rows", "nan"])
def test_a_wrong_kernel_shows_no_speed(talk: Talk, wrong: KernelSpec) -> None:
    said = talk(wrong, fake("good"))
    said.send(configure(1, "bad", "good"), Start(seconds=0.01))
    said.idle()
    checked = said.wait(Checked, kernel="bad")
    assert not checked.ok
    assert checked.max_error > checked.tolerance
    assert not said.all(KernelSample, kernel="bad")
    assert said.all(KernelSample, kernel="good")


@pytest.mark.parametrize("where", ["bind", "run"])
def test_a_kernel_out_of_memory_is_refused_and_gives_its_memory_back(talk: Talk, where: str) -> None:
    big = fake("big", squares=True, **{where: raising(MemoryError())})  # type: ignore[arg-type]
    said = talk(big, fake("good"))
    said.send(configure(1, "big", "good"), Start(seconds=0.01))
    said.idle()
    assert said.wait(Refused, kernel="big").reason.startswith("cpu has too little free memory for Big: choose")
    assert said.all(KernelSample, kernel="good")
    first, *_, last = said.all(MemorySample)
    square = 2 * 4 * 80 * 80 * 4
    assert first.owners["S and P"] == 2 * square
    assert last.owners["S and P"] == 0
    assert last.owners["Q K V O"] >= 3 * 2 * 4 * 80 * 16 * 4
    assert not said.all(Fault)


def test_a_kernel_that_refuses_is_refused_with_its_own_words(talk: Talk) -> None:
    said = talk(fake("proud", bind=raising(Refusal("not on a Tuesday: wait"))), fake("good"))
    said.send(configure(1, "proud", "good"), Start(seconds=0.01))
    said.idle()
    assert said.wait(Refused, kernel="proud").reason == "not on a Tuesday: wait"
    assert said.all(KernelSample, kernel="good")


def test_a_kernel_that_breaks_is_a_fault_with_details_and_the_session_lives(talk: Talk) -> None:
    said = talk(fake("broken", run=raising(KeyError("m_i"))), fake("good"))
    said.send(configure(1, "broken", "good"), Start(seconds=0.01))
    said.idle()
    fault = said.wait(Fault)
    assert fault.message == "Broken broke: 'm_i'"
    assert not fault.fatal
    assert "Traceback" in fault.details
    assert said.wait(Refused, kernel="broken")
    assert said.all(KernelSample, kernel="good")
    here = len(said.events)
    said.send(configure(2, "good"), Start(seconds=0.01))
    said.wait(KernelSample, after=here, generation=2)


def test_a_lost_device_is_a_fatal_fault(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.HostMachine, "alive", lambda self: False)  # noqa: ARG005
    said = talk(fake("broken", run=raising(RuntimeError("CUDA error: an illegal memory access"))))
    said.send(configure(1, "broken"), Start())
    fault = said.wait(Fault)
    assert fault.fatal
    assert "Restart the engine" in fault.remedy
    said.idle()
    here = len(said.events)
    said.send(Start())
    assert said.wait(Fault, after=here).fatal


def test_a_device_that_torch_cannot_use_is_a_fault(talk: Talk) -> None:
    gpu = Device(id="cuda:7", kind="cuda", name="a GPU that is not here", memory_bytes=80 << 30)
    said = talk(fake("good"), devices=(gpu, CPU))
    said.send(configure(1, device="cuda:7"), Start())
    fault = said.wait(Fault)
    assert "cannot use cuda:7" in fault.message or "does not see cuda:7" in fault.message
    assert not fault.fatal
    said.idle()
    said.send(configure(2, device="cpu"), Start())
    said.wait(KernelSample, generation=2)


def test_what_cannot_run_at_all_ends_idle(talk: Talk) -> None:
    said = talk(fake("never", constraint="not here: go elsewhere"))
    said.send(configure(1, "never"), Start())
    said.idle()
    assert said.wait(Planned).plans[0].refused == "not here: go elsewhere"


@pytest.mark.parametrize(
    ("commands", "reason"),
    [([Start()], "nothing is configured: send Configure before Start"),
     ([configure(), Start(seconds=0.0)], "seconds 0 is out of range: give more than 0 and less than a million"),
     ([configure(), Start(seconds=-1.5)], "seconds -1.5 is out of range: give more than 0 and less than a million"),
     ([configure(device="tpu")], "there is no device 'tpu' here: choose cpu")],
)
def test_commands_that_make_no_sense_are_refused(talk: Talk, commands: list[Any], reason: str) -> None:
    said = talk(fake("good"))
    said.send(*commands)
    assert said.wait(Refused).reason == reason


def test_counters_are_sampled_while_anyone_listens(talk: Talk) -> None:
    class Counter:
        def __init__(self, device: Device) -> None:
            self.device = device

        def sample(self, t_ns: int) -> DeviceSample:
            return DeviceSample(t_ns=t_ns, device=self.device.id, utilisation=0.5)

    said = talk(fake("good"), sampler=Counter, telemetry_s=0.001)
    first = said.wait(DeviceSample, device="cpu")
    said.wait(DeviceSample, after=said.events.index(first) + 1)


@pytest.mark.parametrize("breaks", ["made", "read"])
def test_counters_that_break_are_a_fault_once(talk: Talk, breaks: str) -> None:
    class Broken:
        def __init__(self, device: Device) -> None:  # noqa: ARG002
            if breaks == "made":
                raise OSError("no such counter")

        def sample(self, t_ns: int) -> DeviceSample:  # noqa: ARG002
            raise OSError("no such counter")

    said = talk(fake("good"), sampler=Broken, telemetry_s=0.001)
    assert said.wait(Fault).message == "no such counter"
    said.send(configure(), Start(seconds=0.01))
    said.idle()
    assert said.all(KernelSample)
    assert len(said.all(Fault)) == 1


def test_a_session_that_cannot_open_says_why_and_ends(talk: Talk) -> None:
    class Rotten:
        def __iter__(self) -> Any:
            raise OSError("the catalog is torn")

    said = talk(fake("good"), devices=Rotten())
    assert said.wait(Fault).fatal
    said.wait(Bye)


def test_an_unknown_command_does_not_end_the_session(talk: Talk) -> None:
    said = talk(fake("good"))
    bad = Configure(generation=1, device="cpu", workload=SMALL, kernels=(None,))  # type: ignore[arg-type]
    said.send(bad, configure(2))
    said.wait(Planned, generation=2)
