"""A run that nobody watches, in this process: what is printed, what is written, and the exit code."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from msgspec.structs import replace
from PySide6.QtCore import QTimer
from pytestqt.qtbot import QtBot

from app import unattended
from app.unattended import run
from app.window import Window
from engine.client import Client
from engine.options import INTERRUPTED, BadInput
from engine.protocol import Checked, Configure, Fault, Hello, Refused
from engine.protocol import Event as EngineEvent
from tests.app import decode_feed, feed
from tests.app.test_configuration import one_sentence
from tests.app.windows import Listener, opened, taken


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return tmp_path / "a.png"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes is waited for a moment only."""
    monkeypatch.setattr(unattended, "MOST_EXTRA_S", 0.2)


def watched(
    qtbot: QtBot, picture: Path, *events: EngineEvent, client: Client | None = None, stopped: Event | None = None,
    seconds: float = 0.0, asked: dict[str, Any] | None = None, **options: Any,
) -> int:
    """Runs a window on what an engine says."""
    window = opened(qtbot, client or Listener(*events), size=(1024, 700), asked=asked, **options)
    return run(window, picture, seconds, asked or {}, stopped or Event())


def refused(qtbot: QtBot, picture: Path, *events: EngineEvent, **options: Any) -> str:
    """The one sentence; and there is no picture."""
    with pytest.raises(BadInput) as error:
        watched(qtbot, picture, *events, **options)
    assert one_sentence(error.value.message)
    assert list(picture.parent.glob("*.png")) == []
    return error.value.message


def test_a_run_is_a_table_and_a_picture(qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Listener(*feed.run(("naive", "flash", "sdpa_flash"), seconds=3))
    assert watched(qtbot, picture, client=engine) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NVIDIA H200 (cuda:0)"
    assert lines[1].split()[:2] == ["kernel", "TFLOP/s"]
    assert [line.split()[0] for line in lines[2:5]] == ["naive", "flash", "sdpa_flash"]
    assert lines[3].split()[1:4] == ["119", "2.31", "ms"]
    assert lines[3].rstrip().endswith("30       passed (4.1e-3)")
    assert lines[5] == f"picture: {picture.resolve()}"
    assert taken(picture).kernels == ("naive", "flash", "sdpa_flash")
    assert engine.closed == 1


def test_a_name_that_is_taken_is_left_alone_and_the_new_one_told(
    qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture.write_text("a picture of the user's")
    assert watched(qtbot, picture, *feed.run(seconds=1)) == 0
    assert picture.read_text() == "a picture of the user's"
    assert str(picture.with_name("a-2.png")) in capsys.readouterr().out


def test_an_svg_is_saved_where_the_name_says_so(qtbot: QtBot, picture: Path) -> None:
    assert watched(qtbot, picture.with_suffix(".svg"), *feed.run(seconds=1)) == 0
    assert taken(picture.with_suffix(".svg")).workload == feed.WORKLOAD


def test_brackets_in_a_name_are_no_markup(qtbot: QtBot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = replace(feed.H200, name="[red]GPU[/] :smile: [/b]")
    hello, planned, *rest = feed.run(seconds=1, device=odd)
    assert isinstance(hello, Hello)
    (tmp_path / "[b]").mkdir()
    assert watched(qtbot, tmp_path / "[b]" / "[x].png", replace(hello, devices=(odd,)), planned, *rest) == 0
    out = capsys.readouterr().out
    assert "[red]GPU[/] :smile: [/b] (cuda:0)" in out
    assert str(tmp_path / "[b]" / "[x].png") in out


def test_a_kernel_without_a_speed_says_why_and_fails_the_run(
    qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = feed.run(("naive", "flash"), seconds=1)
    wrong = Checked(generation=1, kernel="flash", ok=False, max_error=0.5, tolerance=0.01, rows=64)
    assert watched(qtbot, picture, *events, wrong) == 1
    assert "its output differs from the reference" in " ".join(capsys.readouterr().out.split())


def test_a_kernel_that_was_refused_is_no_failure(qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = feed.planned(("naive", "flash"), refused={"naive": "naive needs 1 TiB"})
    assert watched(qtbot, picture, feed.hello(), plan, feed.sample("flash", 1.0, 2e6)) == 0
    assert "naive needs 1 TiB" in capsys.readouterr().out


def test_a_decoding_is_a_table_of_lanes(qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = decode_feed.decoding("llama-2-7b", prompt=1000, new=3000, batch=128)
    assert watched(qtbot, picture, *decode_feed.run(run, until=0.01), lab="decode") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == ["no", "cache"]
    assert lines[3].split()[:3] == ["dense", "n/a", "n/a"]
    assert "it needs 270.9 GiB" in " ".join(lines[3:])


def test_a_decoding_of_which_nothing_can_run_fails(qtbot: QtBot, picture: Path) -> None:
    run = decode_feed.decoding("llama-2-7b", ("dense",), prompt=1000, new=3000, batch=128)
    assert watched(qtbot, picture, *decode_feed.run(run), lab="decode") == 1
    assert picture.exists()


def test_a_model_that_is_none_is_one_sentence(qtbot: QtBot, picture: Path) -> None:
    said = refused(qtbot, picture, decode_feed.hello(), lab="decode", asked={"decoding": {"model": "bert"}})
    assert said.startswith("there is no model 'bert': choose gpt2")


def test_a_run_without_a_sample_is_saved_and_fails(qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(qtbot, picture, feed.hello(), feed.planned()) == 1
    assert "no sample yet" in capsys.readouterr().out
    assert picture.exists()


def test_what_the_window_warns_of_is_told_beside_the_table(
    qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Fault(message="the counters are gone", remedy="Go on.")
    assert watched(qtbot, picture, *feed.run(seconds=1), fault) == 0
    assert capsys.readouterr().err == "the counters are gone. Go on.\n"


def test_another_device_than_asked_for_never_runs(qtbot: QtBot, picture: Path) -> None:
    said = refused(qtbot, picture, *feed.run(seconds=1), asked={"device": "cuda:7"})
    assert said == "there is no device 'cuda:7' here: choose cuda:0 or cpu"


def test_the_device_asked_for_runs(qtbot: QtBot, picture: Path) -> None:
    engine = Listener(*feed.run(seconds=1, device=feed.CPU))
    assert watched(qtbot, picture, client=engine, asked={"device": "cpu"}) == 0
    assert [configured.device for configured in engine.of(Configure)] == ["cpu"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("nothing=1", "--set 'nothing': no such field or kernel parameter"),
        ("block_m=7", "block_m of naive cannot be 7: choose"),
        ("block_m=x", "block_m cannot be 'x': give a whole number"),
    ],
)
def test_a_setting_that_no_kernel_takes_never_runs(qtbot: QtBot, picture: Path, setting: str, said: str) -> None:
    asked = {"options": {"settings": (setting,)}}
    assert refused(qtbot, picture, *feed.run(seconds=1), asked=asked).startswith(said)


def test_a_configuration_that_the_engine_refuses_ends_at_once(qtbot: QtBot, picture: Path) -> None:
    no = Refused(generation=1, reason="heads 7 is not a multiple of kv-heads 2")
    assert refused(qtbot, picture, feed.hello(), no, seconds=60.0) == no.reason


def test_an_engine_that_breaks_before_a_plan_ends_at_once(qtbot: QtBot, picture: Path) -> None:
    fault = Fault(message="The engine's process ended unexpectedly (exit code 1)", remedy="Restart the engine.", fatal=True)
    assert refused(qtbot, picture, fault, seconds=60.0) == fault.message


def test_an_engine_that_breaks_later_keeps_what_was_measured(
    qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = Fault(message="an illegal access", remedy="Restart the engine.", fatal=True)
    assert watched(qtbot, picture, *feed.run(seconds=1), fault, seconds=60.0) == 1
    assert "an illegal access" in capsys.readouterr().err
    assert picture.exists()


def test_an_engine_that_says_nothing_is_one_sentence(qtbot: QtBot, picture: Path) -> None:
    assert "nothing to save yet" in refused(qtbot, picture)


def test_a_picture_that_cannot_be_written_is_one_sentence(qtbot: QtBot, picture: Path) -> None:
    assert "could not be saved" in refused(qtbot, picture.parent / "gone" / "a.png", *feed.run(seconds=1))


def test_ctrl_c_ends_the_run_without_a_picture(qtbot: QtBot, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped, engine = Event(), Listener(*feed.run(seconds=1))
    QTimer.singleShot(50, stopped.set)
    began = time.monotonic()
    assert watched(qtbot, picture, client=engine, stopped=stopped, seconds=300.0) == INTERRUPTED
    assert time.monotonic() - began < 60
    assert (list(picture.parent.glob("*.png")), capsys.readouterr().out, engine.closed) == ([], "", 1)


def test_the_time_asked_for_is_spent(qtbot: QtBot, picture: Path) -> None:
    window = opened(qtbot, Listener(*feed.run(seconds=1)), size=(1024, 700))
    assert isinstance(window, Window)
    began = time.monotonic()
    assert run(window, picture, 0.4, {}, Event()) == 0
    assert time.monotonic() - began >= 0.4
