"""A front end's end of the line: what arrives, what a dead engine says, and that nothing blocks."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine import record
from engine import session as session_module
from engine.client import Client, ClientError, open_client
from engine.inbox import MOST_EVENTS, Inbox
from engine.protocol import (
    Bye,
    Configure,
    DeviceSample,
    Event,
    Fault,
    Hello,
    KernelSample,
    Phase,
    Planned,
    Refused,
    Shutdown,
    Start,
    encode,
)
from engine.session import Session
from tests.engine.fakes import CPU, PATIENCE_S, SMALL, configure, fake

E = TypeVar("E", bound=Event)


class Line:
    """An open engine, and all that it said."""

    def __init__(self, url: str, **options: Any) -> None:
        self._bell = threading.Event()
        self.said: list[Event] = []
        self.threads: list[threading.Thread] = []
        self.client: Client = open_client(url, notify=self._bell.set, spawn=self._spawn, **options)

    def _spawn(self, name: str, target: Callable[[], None]) -> Any:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

        class Joinable:
            def join(self, timeout_s: float) -> bool:
                thread.join(timeout_s)
                return not thread.is_alive()

        return Joinable()

    def wait(self, kind: type[E], **values: Any) -> E:
        """The first event of that kind with those values; waits for it."""
        while True:
            self._bell.clear()
            self.said += self.client.poll()
            for event in self.said:
                if isinstance(event, kind) and all(getattr(event, name) == value for name, value in values.items()):
                    return event
            assert self._bell.wait(PATIENCE_S), (kind, values, self.said[-5:])

    def all(self, kind: type[E]) -> list[E]:
        self.said += self.client.poll()
        return [event for event in self.said if isinstance(event, kind)]

    def ended(self) -> bool:
        """Waits for the threads of the client."""
        for thread in self.threads:
            thread.join(PATIENCE_S)
        return not any(thread.is_alive() for thread in self.threads)


Dial = Callable[..., Line]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Opens engines; all are closed at the end, and no thread is left."""
    lines: list[Line] = []

    def begin(url: str, **options: Any) -> Line:
        lines.append(Line(url, **options))
        return lines[-1]

    yield begin
    for line in lines:
        line.client.close()
        assert line.ended()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`local:` is a session of one fake kernel."""

    def make(emit: Callable[[Event], None]) -> Session:
        return Session(emit, catalog={"good": fake("good")}, devices=(CPU,), models=(), telemetry_s=None)

    monkeypatch.setattr(session_module, "Session", make)


def child(code: str) -> str:
    """A URL of a child that runs this instead of an engine."""
    return f'stdio:"{sys.executable}" -I -S -c "{code}"'


# --- the inbox ------------------------------------------------------------------------------------------------------


def test_the_bell_rings_once_until_the_inbox_has_been_emptied() -> None:
    rung: list[int] = []
    inbox = Inbox(lambda: rung.append(1), None)
    assert inbox.take() == []
    inbox.put(Bye(reason="1"))
    inbox.put(Bye(reason="2"))
    assert len(rung) == 1
    assert inbox.take() == [Bye(reason="1"), Bye(reason="2")]
    inbox.put(Bye(reason="3"))
    assert len(rung) == 2
    assert inbox.take() == [Bye(reason="3")]


def test_a_full_inbox_drops_the_oldest_samples_and_nothing_else() -> None:
    inbox = Inbox(lambda: None, None)
    sent: list[Event] = []
    for i in range(MOST_EVENTS + 500):
        match i % 4:
            case 0:
                sent.append(Phase(generation=i, name="measuring"))
            case 1:
                sent.append(DeviceSample(t_ns=i, device="cpu"))
            case _:
                sent.append(KernelSample(t_ns=i, generation=i, kernel="good", launches=1, time_ns=1.0))
        inbox.put(sent[-1])
    kept = inbox.take()
    assert len(kept) <= MOST_EVENTS
    assert [event for event in kept if isinstance(event, Phase)] == [event for event in sent if isinstance(event, Phase)]
    samples = [event for event in kept if not isinstance(event, Phase)]
    assert samples == [event for event in sent if not isinstance(event, Phase)][-len(samples):]
    assert kept[-1] is sent[-1]
    numbers = [event.generation if isinstance(event, Phase) else event.t_ns for event in kept]
    assert numbers == sorted(numbers)


def test_what_is_no_sample_is_kept_however_much_there_is() -> None:
    inbox = Inbox(lambda: None, None)
    for i in range(MOST_EVENTS + 3):
        inbox.put(Refused(generation=i, reason=""))
    assert [event.generation for event in inbox.take() if isinstance(event, Refused)] == list(range(MOST_EVENTS + 3))


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "cannot connect to '': give local:, stdio: or replay:FILE"),
        ("http://host", "cannot connect to 'http://host': give local:, stdio: or replay:FILE"),
        ("stdio:/no/such/engine", "cannot start '/no/such/engine': No such file or directory"),
        ("stdio:/", "cannot start '/': Permission denied"),
        ("stdio:engine 'unclosed", "cannot read the command \"engine 'unclosed\": No closing quotation"),
        ("replay:", "replay: needs an event log: give replay:FILE"),
        ("replay:/no/such/log", "cannot read /no/such/log: No such file or directory"),
        ("replay:log?speed=fast", "speed cannot be 'fast': give a number from 0 up, where 0 plays all at once"),
        ("replay:log?speed=-1", "speed cannot be '-1': give a number from 0 up, where 0 plays all at once"),
        ("replay:log?speed=nan", "speed cannot be 'nan': give a number from 0 up, where 0 plays all at once"),
        ("replay:log?speed=inf", "speed cannot be 'inf': give a number from 0 up, where 0 plays all at once"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence_and_leaves_no_record(tmp_path: Path, url: str, sentence: str) -> None:
    with pytest.raises(ClientError) as error:
        open_client(url, record_to=tmp_path / "new.jsonl")
    assert str(error.value) == sentence
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text("mine")
    with pytest.raises(ClientError, match=r"old.jsonl exists: give a new name for the record$"):
        open_client("local:", record_to=path)
    assert path.read_text() == "mine"


# --- local: ---------------------------------------------------------------------------------------------------------


def test_local_says_hello_of_this_machine_and_bye() -> None:
    line = Line("local:")
    hello = line.wait(Hello)
    assert line.said[0] is hello
    assert "cpu" in [device.id for device in hello.devices]
    assert {"naive", "flash"} <= {info.id for info in hello.kernels}
    assert hello.models
    line.client.send(Shutdown())
    line.wait(Bye)
    assert line.said[-1] == line.all(Bye)[0]
    assert line.ended()
    line.client.close()


@pytest.mark.usefixtures("fakes")
def test_close_ends_a_run_and_may_be_called_again(dial: Dial) -> None:
    line = dial("local:")
    line.client.send(configure())
    line.client.send(Start())
    line.wait(KernelSample)
    line.client.close()
    assert line.ended()
    line.wait(Bye)
    said = len(line.said)
    line.client.close()
    line.client.send(Start())
    assert line.client.poll() == []
    assert len(line.said) == said
    for thread in threading.enumerate():
        if thread.name == "runner":
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.mark.usefixtures("fakes")
def test_what_is_recorded_is_what_was_polled(dial: Dial, tmp_path: Path) -> None:
    line = dial("local:", record_to=tmp_path / "run.jsonl")
    line.client.send(configure())
    line.client.send(Start(seconds=0.05))
    line.wait(Phase, name="idle")
    line.client.close()
    line.wait(Bye)
    assert record.read(tmp_path / "run.jsonl") == line.said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.usefixtures("fakes")
def test_a_full_disk_is_one_fault_and_the_run_goes_on(dial: Dial, tmp_path: Path) -> None:
    line = dial("local:", record_to=tmp_path / "run.jsonl")
    line.wait(Hello)
    recorder: Any = line.client._inbox._recorder  # type: ignore[attr-defined]
    whole, recorder._file = recorder._file, open("/dev/full", "wb")  # noqa: SIM115, PTH123
    whole.close()
    line.client.send(configure())
    line.client.send(Start(seconds=0.05))
    line.wait(Phase, name="idle")
    assert [fault.message for fault in line.all(Fault)] == ["The record stopped: No space left on device"]
    assert line.all(KernelSample)
    assert record.read(tmp_path / "run.jsonl") == [line.said[0]]


# --- stdio: ---------------------------------------------------------------------------------------------------------


def test_a_child_serves_like_a_session(dial: Dial) -> None:
    line = dial("stdio:")
    line.client.send(Configure(generation=7, device="cpu", workload=SMALL, kernels=("flash",)))
    assert line.wait(Planned).generation == 7
    assert isinstance(line.said[0], Hello)
    line.client.close(PATIENCE_S)
    line.wait(Bye)
    assert not line.all(Fault)
    assert line.ended()
    line.client.close()


@pytest.mark.parametrize(
    ("end", "how"),
    [("sys.exit(3)", "exit code 3"), ("sys.exit(0)", "exit code 0"), ("os.kill(os.getpid(), 9)", "Killed")],
)
def test_a_child_that_dies_is_a_fatal_fault_with_its_last_words(dial: Dial, end: str, how: str) -> None:
    words = "sys.stderr.write(chr(10).join(map(str, range(50))) + chr(10) + 'out of luck')"
    line = dial(child(f"import os, sys; {words}; sys.stderr.flush(); {end}"))
    fault = line.wait(Fault)
    assert fault.fatal
    assert fault.message == f"The engine's process ended unexpectedly ({how})"
    assert fault.remedy == "Restart the engine."
    assert fault.details.splitlines()[-2:] == ["49", "out of luck"]
    assert len(fault.details.splitlines()) == 20


def test_a_command_after_death_neither_blocks_nor_raises(dial: Dial) -> None:
    line = dial(child("pass"))
    line.wait(Fault)
    for _ in range(1000):
        line.client.send(Start())
    line.client.close()
    line.client.send(Start())
    assert len(line.all(Fault)) == 1


def test_send_does_not_wait_for_a_child_that_does_not_read(dial: Dial) -> None:
    line = dial(child("import signal; signal.pause()"))
    large = Configure(generation=1, device="x" * 100_000, workload=SMALL, kernels=())

    def send() -> None:
        for _ in range(20):  # a pipe takes less than one of them
            line.client.send(large)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(PATIENCE_S)
    assert not sender.is_alive()
    line.client.close(0.05)
    assert line.ended()
    assert not line.all(Fault)


def test_close_does_not_wait_for_what_a_dead_child_left_behind(dial: Dial) -> None:
    left = "import signal; signal.pause()"
    line = dial(child(
        "import subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-I', '-S', '-c', '{left}']); "
        r"print('{\"type\":\"Phase\",\"name\":\"idle\",\"generation\":%d}' % p.pid, flush=True)"
    ))
    heir = line.wait(Phase).generation
    try:
        line.client.close(0.05)
    finally:
        os.kill(heir, signal.SIGKILL)
    assert line.ended()


def test_what_is_no_event_is_one_fault_and_the_rest_is_heard(dial: Dial) -> None:
    bye = encode(Bye(reason="done")).decode().strip().replace('"', '\\"')
    line = dial(child(f"print('Welcome'); print(); print('[1, 2'); print('{bye}'); print('logged out')"))
    assert line.wait(Bye).reason == "done"
    assert line.threads[1].name == "engine output"
    line.threads[1].join(PATIENCE_S)
    fault, = line.all(Fault)
    assert fault.message == "The engine sent what is no event"
    assert fault.details.startswith("not an event: JSON is malformed")
    assert not fault.fatal


def test_an_event_cut_off_by_death_is_told_and_so_is_the_death(dial: Dial) -> None:
    line = dial(child("import sys; sys.stdout.write('{')"))
    assert line.wait(Fault, fatal=True)
    assert [fault.fatal for fault in line.all(Fault)] == [False, True]


# --- replay: --------------------------------------------------------------------------------------------------------

HOUR_NS = 3600 * 10**9


def log(path: Path, *events: Event) -> Path:
    recorder = record.Recorder(path)
    for event in events:
        recorder.add(event)
    recorder.close()
    return path


def run(*times_ns: int) -> list[Event]:
    return [KernelSample(t_ns=t, generation=1, kernel="good", launches=1, time_ns=1.0) for t in times_ns]


@pytest.mark.parametrize("speed", ["0", "1e9"])
def test_a_log_is_played_in_order_and_shutdown_ends_it_with_bye(dial: Dial, tmp_path: Path, speed: str) -> None:
    events = run(5, HOUR_NS, HOUR_NS, 2, 90 * HOUR_NS)  # one came late
    line = dial(f"replay:{log(tmp_path / 'run.jsonl', *events)}?speed={speed}")
    line.wait(KernelSample, t_ns=90 * HOUR_NS)
    line.client.send(Start())
    line.client.send(Shutdown())
    line.client.send(Shutdown())
    line.wait(Bye)
    line.client.close()
    assert line.ended()
    line.all(Bye)
    assert line.said == [*events, Bye(reason="the replay was closed")]


def test_a_log_that_ends_with_bye_gives_no_other(dial: Dial, tmp_path: Path) -> None:
    line = dial(f"replay:{log(tmp_path / 'run.jsonl', *run(1), Bye(reason='shut down'))}?speed=0")
    line.wait(Bye)
    line.client.send(Shutdown())
    line.client.close()
    assert line.ended()
    assert line.all(Bye) == [Bye(reason="shut down")]


@pytest.mark.parametrize("query", ["", "?speed=0.001", "?speed=1e-300"])
def test_a_log_is_played_with_its_gaps_which_close_cuts_short(dial: Dial, tmp_path: Path, query: str) -> None:
    line = dial(f"replay:{log(tmp_path / 'run.jsonl', *run(7, HOUR_NS))}{query}")
    line.wait(KernelSample)
    line.client.close()
    assert line.ended()
    line.wait(Bye)
    assert line.said == [*run(7), Bye(reason="the replay was closed")]


def test_an_empty_log_plays_nothing(dial: Dial, tmp_path: Path) -> None:
    line = dial(f"replay:{log(tmp_path / 'run.jsonl')}")
    line.client.send(Shutdown())
    line.wait(Bye)
    assert len(line.said) == 1


def test_the_name_of_a_log_may_have_a_question_mark(dial: Dial, tmp_path: Path) -> None:
    line = dial(f"replay:{log(tmp_path / 'why?.jsonl', *run(1))}?speed=0")
    line.wait(KernelSample)


def test_a_log_cut_in_its_last_line_plays_what_is_whole(dial: Dial, tmp_path: Path) -> None:
    path = log(tmp_path / "run.jsonl", *run(1, 2))
    path.write_bytes(path.read_bytes()[:-9])
    line = dial(f"replay:{path}?speed=0")
    line.wait(KernelSample)
    line.client.close()
    line.wait(Bye)
    assert line.all(KernelSample) == run(1)


def test_a_broken_log_is_refused_with_its_line(tmp_path: Path) -> None:
    path = log(tmp_path / "run.jsonl", *run(1))
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    with pytest.raises(ClientError, match=r"run.jsonl, line 3: not an event: JSON is malformed"):
        open_client(f"replay:{path}")


def test_a_replay_can_be_recorded(dial: Dial, tmp_path: Path) -> None:
    line = dial(f"replay:{log(tmp_path / 'a.jsonl', *run(1, 2))}?speed=0", record_to=tmp_path / "b.jsonl")
    line.wait(KernelSample, t_ns=2)
    line.client.close()
    line.wait(Bye)
    assert record.read(tmp_path / "b.jsonl") == [*run(1, 2), Bye(reason="the replay was closed")]
