"""A session decodes: planned, prompted, stepped, told lane by lane; stopped, replaced and refused as a run of kernels is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread

import pytest
from msgspec.structs import replace

from engine.__main__ import main
from engine.decoding import Decoding, Lane
from engine.models import shapes
from engine.models.plan import plan
from engine.models.results import Collector
from engine.options import run_command
from engine.protocol import (
    Bye,
    Command,
    ConfigureDecoding,
    DecodeSample,
    DecodingPlanned,
    Event,
    Hello,
    LaneDone,
    MemorySample,
    Pause,
    Phase,
    Refused,
    Shutdown,
    Start,
    Stop,
)
from engine.session import Session
from kernels.contract import KernelSpec
from tests.kernels.shapes import CPU

TINY = next(model for model in shapes.load() if model.id == "tiny")
DENSE, NONE = Lane(cache="dense", kv_heads=2), Lane(cache="none", kv_heads=2)
LONG_S = 120


def decoding(*lanes: Lane, **more: object) -> Decoding:
    return Decoding(model=TINY, lanes=lanes or (DENSE,), **{"prompt": 7, "new": 12, "dtype": "float32", **more})  # type: ignore[arg-type]


def configure(decoding: Decoding, generation: int = 1, device: str = "cpu") -> ConfigureDecoding:
    return ConfigureDecoding(generation=generation, device=device, decoding=decoding)


@dataclass
class Conversation:
    """A session in a thread, and what it says."""

    catalog: Mapping[str, KernelSpec] = field(default_factory=dict)
    events: SimpleQueue[Event] = field(default_factory=SimpleQueue)
    heard: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = Session(self.events.put, catalog=self.catalog, devices=(CPU,), models=(TINY,), telemetry_s=None)
        self.thread = Thread(target=self.session.run, daemon=True)
        self.thread.start()

    def send(self, *commands: Command) -> None:
        for command in commands:
            self.session.send(command)

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        while True:
            event = self.events.get(timeout=LONG_S)
            self.heard.append(event)
            if wanted(event):
                return event
            assert not isinstance(event, Bye)

    def idle(self) -> None:
        self.until(lambda event: isinstance(event, Phase) and event.name == "idle")

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.heard if isinstance(event, kind)]

    def close(self) -> None:
        self.send(Shutdown())
        self.until(lambda event: isinstance(event, Bye))
        self.thread.join(LONG_S)


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


def test_every_lane_comes_to_its_last_token(talk: Conversation) -> None:
    wanted = decoding(NONE, DENSE, replace(DENSE, cache="paged"), replace(DENSE, kv_heads=1), batch=2)
    talk.send(configure(wanted), Start())
    talk.idle()
    assert isinstance(talk.heard[0], Hello)
    assert [event.decoding for event in talk.heard if isinstance(event, DecodingPlanned)] == [wanted]
    done = {event.lane: event for event in talk.heard if isinstance(event, LaneDone)}
    assert set(done) == {"none-2", "dense-2", "paged-2", "dense-1"}
    assert done["none-2"].tokens == done["dense-2"].tokens == done["paged-2"].tokens != done["dense-1"].tokens
    for lane in wanted.lanes:
        samples = [event for event in talk.heard if isinstance(event, DecodeSample) and event.lane == lane.id]
        assert samples[0].prefill
        assert samples[0].position == wanted.prompt + 1
        assert not any(sample.prefill for sample in samples[1:])
        assert sum(sample.steps for sample in samples) == wanted.new
        assert samples[-1].position == wanted.tokens
        assert [token for sample in samples for token in sample.tokens] == list(done[lane.id].tokens[0])
        assert all(sample.time_ns > 0 and sample.source == "host clock" for sample in samples)
        assert {sample.kv_allocated_bytes for sample in samples} == {wanted.kv_allocated_bytes(lane)}
        assert samples[-1].kv_bytes == wanted.kv_bytes(lane, wanted.tokens - 1)
    owners = next(event.owners for event in talk.heard if isinstance(event, MemorySample))
    assert owners["KV cache"] == sum(wanted.kv_allocated_bytes(lane) for lane in wanted.lanes)
    own = wanted.weights_bytes(wanted.lanes[-1]) - 4 * TINY.vocab * TINY.hidden
    assert wanted.weights_bytes(DENSE) < owners["weights"] < wanted.weights_bytes(DENSE) + own
    talk.close()


def test_stopped_it_falls_silent_and_starts_again_from_the_prompt(talk: Conversation) -> None:
    talk.send(configure(decoding(new=240)), Start())
    talk.until(lambda event: isinstance(event, DecodeSample))
    talk.send(Stop())
    talk.idle()
    heard = len(talk.heard)
    talk.send(configure(decoding(), generation=2), Start())
    talk.idle()
    later = [event for event in talk.heard[heard:] if isinstance(event, DecodeSample)]
    assert {event.generation for event in later} == {2}
    assert later[0].prefill
    talk.close()


def test_no_step_is_lost_in_a_pause(talk: Conversation) -> None:
    wanted = decoding(new=200)
    talk.send(configure(wanted), Start())
    for _ in range(4):
        talk.until(lambda event: isinstance(event, DecodeSample))
        talk.send(Pause())
        talk.until(lambda event: isinstance(event, Phase) and event.name == "paused")
        talk.send(Start())
    talk.idle()
    samples = [event for event in talk.heard if isinstance(event, DecodeSample)]
    (done,) = [event for event in talk.heard if isinstance(event, LaneDone)]
    assert sum(sample.steps for sample in samples) == wanted.new
    assert [token for sample in samples for token in sample.tokens] == list(done.tokens[0])
    talk.close()


def test_what_has_ended_cannot_be_paused(talk: Conversation) -> None:
    talk.send(configure(decoding()), Start())
    talk.idle()
    talk.send(Pause())
    talk.idle()
    talk.close()


def test_a_finished_decoding_can_be_started_again(talk: Conversation) -> None:
    talk.send(configure(decoding()), Start())
    talk.idle()
    talk.send(Start())
    talk.idle()
    first, second = (event for event in talk.heard if isinstance(event, LaneDone))
    assert first.tokens == second.tokens
    talk.close()


def test_what_cannot_be_found_is_refused_and_the_session_goes_on(talk: Conversation) -> None:
    talk.send(configure(decoding(), device="cuda:9"))
    refused = talk.until(lambda event: isinstance(event, Refused))
    assert isinstance(refused, Refused)
    assert refused.reason == "there is no device 'cuda:9' here: choose cpu"
    talk.send(configure(decoding(weights="/nowhere/at/all"), generation=2), Start())
    talk.idle()
    (lane,) = [event for event in talk.heard if isinstance(event, Refused) and event.kernel]
    assert lane.kernel == "dense-2"
    assert "/nowhere/at/all" in lane.reason
    assert len(lane.reason.splitlines()) == 1
    talk.close()


def test_sampling_follows_its_seed(talk: Conversation) -> None:
    drawn = []
    for generation, seed in enumerate((1, 1, 2)):
        talk.send(configure(decoding(temperature=1.0, top_k=50, seed=seed), generation), Start())
        done = talk.until(lambda event: isinstance(event, LaneDone))
        assert isinstance(done, LaneDone)
        drawn.append(done.tokens)
        talk.idle()
    assert drawn[0] == drawn[1] != drawn[2]
    talk.close()


def test_a_lane_that_did_not_finish_says_so() -> None:
    collector = Collector()
    collector.add(plan(configure(decoding()), CPU, 1 << 30))
    (result,) = collector.results(CPU)
    assert result.refused == "it was not finished: the run ended before its last token"
    assert result.tokens_per_s is None


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_command(main, ["decode", "--device", "cpu", "--model", "tiny", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_decode_prints_what_the_command_line_promises(capsys: pytest.CaptureFixture[str]) -> None:
    lane = ("--cache", "paged", "--attention", "mqa", "--batch", "2")
    code, out, _ = run(capsys, *lane, "--prompt", "5", "--new", "9", "--json")
    said = json.loads(out)
    assert code == 0
    promised = ("model", "cache", "attention", "device", "provenance", "tokens", "tokens_per_s", "us_per_token", "kv_bytes",
                "peak_memory_bytes", "bandwidth_fraction")
    assert set(promised) <= set(said)
    assert (said["model"], said["cache"], said["attention"], said["device"]) == ("tiny", "paged", "mqa", "cpu")
    assert [len(row) for row in said["tokens"]] == [9, 9]
    assert len(said["us_per_token"]) == 8
    assert set(said["tokens_per_s"]) == {"p20", "p50", "p80"}
    assert said["kv_bytes"]["formula"] <= said["kv_bytes"]["allocated"]
    assert said["kv_bytes"]["nvml"] is None


def test_decode_prints_a_table_of_caches(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--cache", "none,dense", "--prompt", "5", "--new", "9")
    assert code == 0
    assert [line.split()[0] for line in out.strip().splitlines()] == ["cache", "none", "dense"]


@pytest.mark.parametrize(("arguments", "says"), [
    (("--cache", "ring"), "there is no cache 'ring': choose from none, dense, paged, int8, fp8"),
    (("--model", "gpt9"), "there is no model 'gpt9': choose from"),
    (("--prompt", "200", "--new", "100"), "are more than the context of Tiny, 256: choose fewer"),
    (("--kv-heads", "3"), "kv-heads 3 does not divide the 4 heads of Tiny: choose one that does"),
    (("--batch", "0"), "batch 0 is out of range"),
    (("--temperature", "-2"), "temperature -2 is out of range"),
    (("--attention", "gta"), "'gta' is not one of 'mha', 'gqa', 'mqa'"),
])
def test_bad_input_is_one_sentence_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert says in error
    assert len(error.strip().splitlines()) == 1
