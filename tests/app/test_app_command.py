"""`python -m app` as its users meet it: what it takes, what it refuses in one sentence, how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication, QLabel

from app import __main__ as command
from app import start as starting
from app.export import restore, save_png
from app.window import Window
from engine.options import FIELDS, run_command
from engine.record import SCHEMA
from tests.app import decode_feed, feed
from tests.app.test_configuration import one_sentence, shown
from tests.app.windows import recorded, taken

TINY = ("--seq", "128", "--heads", "2", "--batch", "1", "--head-dim", "32")
PATIENCE_S = 300  # on a machine that does much else
TAKEN = shown(*feed.run(seconds=1), theme="light", params={"flash": {"block_m": 64}})


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit code, and what was said on both outputs."""
    written, said = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in (written, said))
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run_command(command.main, list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code, written.getvalue().decode(), said.getvalue().decode()


def refused(*arguments: str) -> str:
    """The one sentence."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    assert err.endswith("\n")
    assert one_sentence(err)
    return err.strip()


@pytest.fixture(autouse=True, scope="module")
def without_a_display() -> Iterator[None]:
    """The tests' own offscreen platform serves; and the process is never left by force."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "use_offscreen", lambda: None)
        patch.setattr(os, "_exit", lambda code: pytest.fail(f"os._exit({code})"))
        yield


@contextmanager
def nothing_starts() -> Iterator[list[dict[str, Any]]]:
    """What would be started; no window is opened."""
    calls: list[dict[str, Any]] = []

    def start(**options: Any) -> int:
        calls.append(options)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "start", start)
        yield calls


@pytest.fixture
def started() -> Iterator[list[dict[str, Any]]]:
    with nothing_starts() as calls:
        yield calls


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, qapp: QApplication) -> Path:  # noqa: ARG001
    return save_png(QLabel("x"), tmp_path_factory.mktemp("saved") / "a.png", TAKEN)


# --- what is started ---


def test_without_a_display_a_picture_is_taken(started: list[dict[str, Any]]) -> None:
    assert run() == (0, "", "")
    asked = started[-1]
    assert (asked["screenshot"], asked["seconds"], asked["size"]) == (Path("tilescope.png"), 8.0, (1440, 900))
    assert (asked["url"], asked["asked"], asked["keep_at"]) == ("local:", {}, None)


def test_options_are_handed_on(started: list[dict[str, Any]]) -> None:
    assert run(*TINY, "--device", "cpu", "--set", "block_m=64", "--size", "1024x700", "--theme", "light")[0] == 0
    asked = started[-1]
    assert asked["asked"]["device"] == "cpu"
    assert asked["asked"]["options"] == {"seq": 128, "heads": 2, "batch": 1, "head_dim": 32, "settings": ("block_m=64",)}
    assert (asked["size"], asked["theme"]) == ((1024, 700), "light")


def test_a_decoding_is_handed_on(started: list[dict[str, Any]]) -> None:
    options = ("--model", "tiny", "--cache", "paged,none", "--attention", "mqa", "--prompt", "8", "--new", "4", "--batch", "2")
    assert run("--lab", "decode", *options, "--device", "cpu")[0] == 0
    assert started[-1]["lab"] == "decode"
    assert started[-1]["asked"] == {"device": "cpu", "decoding": {
        "model": "tiny", "caches": ("none", "paged"), "attentions": ("MQA",), "prompt": 8, "new": 4, "batch": 2}}


def test_a_picture_is_opened(started: list[dict[str, Any]], picture: Path) -> None:
    assert run("--open", str(picture))[0] == 0
    assert started[-1]["shown"] == TAKEN


def test_a_picture_is_opened_on_the_device_asked_for(started: list[dict[str, Any]], picture: Path) -> None:
    assert run("--open", str(picture), "--device", "cpu")[0] == 0
    assert (started[-1]["shown"].device, started[-1]["shown"].machine) == ("cpu", None)


# --- what is refused ---


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what may be in the way."""
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (tmp_path / "torn.events").write_bytes(b'{"schema":"' + SCHEMA.encode() + b'","version":1}\nnonsense\nmore\n')
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("started", "files")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lab", "kitchen"], "there is no lab 'kitchen': choose attention"),
        (["--theme", "pink"], "Invalid value for '--theme': 'pink' is not one of 'dark', 'light'."),
        (["--xyzzy", "red"], "No such option"),
        (["--bench", "speed"], "Invalid value for '--bench'"),
        (["--batch", "-1"], "batch -1 is out of range: choose from 1 to 4096"),
        (["--seq", "99999999"], "seq 99999999 is out of range"),
        (["--heads", "7", "--kv-heads", "2"], "heads 7 is not a multiple of kv-heads 2"),
        (["--head-dim", "33"], "head-dim 33 is not a multiple of 8"),
        (["--set", "nonsense"], "--set 'nonsense' is not NAME=VALUE"),
        (["--size", "big"], "--size 'big' is not WxH from 1024x680 to 7680x4320"),
        (["--size", "899x600"], "--size '899x600'"), (["--size", "1440x"], "--size '1440x'"), (["--size", "x"], "--size 'x'"),
        (["--size", "-1440x900"], "--size '-1440x900'"), (["--size", "1440x900x2"], "--size '1440x900x2'"),
        (["--size", "٩٩٩x٩٩٩"], "--size '٩٩٩x٩٩٩'"), (["--size", "9" * 9000 + "x900"], "--size '999"),
        (["--seconds", "nan"], "--seconds nan is out of range: choose from 0.1 to 3600"),
        (["--seconds", "-1"], "--seconds -1 is out of range"), (["--seconds", "1e400"], "--seconds inf is out of range"),
        (["--seconds", "soon"], "Invalid value for '--seconds'"),
        (["--screenshot", "gone/a.png"], "there is no folder"), (["--screenshot", "torn.png/a.png"], "there is no folder"),
        (["--screenshot", "folder"], "Invalid value for '--screenshot'"), (["--screenshot", "a.gif"], "is no picture"),
        (["--screenshot", ""], "is no picture"), (["--screenshot", "a\nb"], "is no picture"),
        (["--open", "gone.png"], "gone.png cannot be restored (No such file or directory)"),
        (["--open", "torn.png"], "torn.png cannot be restored (the picture is damaged)"),
        (["--open", "folder"], "Invalid value for '--open'"),
        (["--open", "torn.png", "--seq", "128"], "--open restores a workload and its kernels: leave out"),
        (["--connect", "replay:x", "--device", "cpu"], "a replay shows what was recorded"),
        (["--model", "gpt2"], "--model belongs to the decode lab: add --lab decode"),
        (["--lab", "decode", "--seq", "128"], "--seq belongs to the attention lab: leave it out of the decode lab"),
        (["--lab", "decode", "--kernel", "flash"], "--kernel belongs to the attention lab"),
        (["--lab", "decode", "--cache", "dense,a\nb"], "--cache 'a\\nb' is none: choose none, dense, paged, int8, fp8"),
        (["--lab", "decode", "--prompt", "0"], "Invalid value for '--prompt'"),
        (["--lab", "decode", "--open", "torn.png", "--new", "4"], "--open restores"),
        (["--lab", "decode", "--connect", "replay:x", "--cache", "none"], "a replay shows what was recorded"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


@pytest.fixture
def opening(qapp: QApplication) -> Iterator[None]:  # noqa: ARG001
    """Windows open in this process, and are gone after the test."""
    yield
    for widget in QApplication.topLevelWidgets():
        if isinstance(widget, Window):
            widget.deleteLater()


@pytest.mark.usefixtures("opening")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--connect", "telnet:localhost"], "cannot connect to 'telnet:localhost': give local:, stdio: or replay:FILE"),
        (["--connect", ""], "cannot connect to ''"),
        (["--connect", "replay:"], "replay: needs an event log"),
        (["--connect", "replay:gone.events"], "cannot read gone.events: No such file or directory"),
        (["--connect", "replay:torn.events"], "torn.events, line 2: not an event"),
        (["--connect", "replay:torn.png"], "torn.png is no event log of Tilescope"),
        (["--connect", "stdio:no-such-program"], "cannot start 'no-such-program': No such file or directory"),
        (["--record", "gone/a.events"], "cannot write gone/a.events: No such file or directory"),
        (["--record", "torn.events"], "torn.events exists: give a new name for the record"),
    ],
)
def test_an_engine_that_cannot_be_opened_is_one_sentence(files: Path, arguments: list[str], said: str) -> None:
    before = sorted(files.iterdir())
    assert said in refused(*arguments)
    assert sorted(files.iterdir()) == before


@pytest.mark.usefixtures("opening")
def test_a_replay_becomes_a_picture(files: Path) -> None:
    code, out, err = run("--connect", recorded(files / "a.events"), "--seconds", "0.1", "--screenshot", "a.png")
    assert (code, err) == (0, "")
    assert out.startswith("NVIDIA H200 (cuda:0)\n")
    assert taken(files / "a.png").workload == feed.WORKLOAD


@pytest.mark.usefixtures("opening")
def test_a_replay_of_a_decoding_becomes_a_picture_and_a_table(files: Path) -> None:
    url = recorded(files / "a.events", decode_feed.run(until=0.5))
    code, out, err = run("--lab", "decode", "--connect", url, "--seconds", "0.1", "--screenshot", "a.png")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].split()[:3] == ["lane", "tokens/s", "median"]
    assert lines[2].startswith("no cache")
    assert lines[3].split()[0] == "dense"
    assert "n^0.01" in lines[3]
    assert restore(files / "a.png").lab == "decode"


names = [f"--{name.replace('_', '-')}" for name in FIELDS]
flags = st.sampled_from([
    *names, "--lab", "--device", "--connect", "--open", "--record", "--theme", "--screenshot", "--seconds", "--size", "--json",
    "--set", "--no-causal", "--kernel", "--model", "--cache", "--attention", "--prompt", "--new", "-x", "--",
])
typed = st.one_of(
    st.integers(-10, 1 << 22).map(str), st.integers(-1 << 80, 1 << 80).map(str), st.floats().map(str), st.text(max_size=8),
    st.sampled_from(["decode", "paged", "mqa", "gpt2"]),
    st.sampled_from(["cpu", "dark", "attention", "1024x700", "a.png", "local:", "replay:", "bfloat16"]),
    st.sampled_from(["a\nb", "\udcff", "[x]", "", "٣"]),
    st.tuples(st.sampled_from([*FIELDS, "block_m"]), st.text(max_size=4)).map("=".join),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(flags, typed, st.tuples(flags, typed).map("=".join)), max_size=7))
@example(["--screenshot", "\udcff.png"])
@example(["--lab", "--batch", "\udcff", "A"])
@example(["--open", "a\nb"])
@example(["--lab", "a\nb"])
@example(["--size", "a\nb"])
@example(["--theme", "a\nb"])
@example(["--seconds", "1\n2"])
def test_any_options_start_or_are_refused_in_one_sentence(arguments: list[str]) -> None:
    with nothing_starts():
        code, out, err = run(*arguments)
    assert (code, out) in ((0, ""), (2, ""))
    assert (err == "") == (code == 0)
    assert not err or one_sentence(err)


# --- in processes of their own ---


def begun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command as on a server: no display, nothing said about Qt."""
    hidden = {"QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"TMPDIR": str(folder)}
    environment["PYTHONPATH"] = str(Path(command.__file__).parents[1])
    return subprocess.Popen([sys.executable, "-m", "app", *arguments], cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_picture_is_taken_and_opened_again(tmp_path: Path) -> None:
    process = begun(tmp_path, *TINY, "--screenshot", "a.png", "--seconds", "1", "--size", "1024x700", "--theme", "light")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert "naive" in out
    assert "flash" in out
    assert out.splitlines()[-1] == f"picture: {(tmp_path / 'a.png').resolve()}"
    assert QImage(str(tmp_path / "a.png")).width() == 1024
    first = taken(tmp_path / "a.png")
    assert (first.workload.seq, first.workload.heads, first.theme) == (128, 2, "light")

    again = begun(tmp_path, "--open", "a.png", "--screenshot", "a.png", "--seconds", "1")
    out, err = again.communicate(timeout=PATIENCE_S)
    assert (again.returncode, err) == (0, "")
    assert out.splitlines()[-1] == f"picture: {(tmp_path / 'a-2.png').resolve()}"
    second = taken(tmp_path / "a-2.png")
    assert (second.workload, second.kernels, second.theme) == (first.workload, first.kernels, "light")
    assert not list(tmp_path.glob("tilescope-screen-*"))


def test_a_device_that_is_not_here_ends_an_unattended_run(tmp_path: Path) -> None:
    process = begun(tmp_path, *TINY, "--device", "cuda:63", "--screenshot", "a.png", "--seconds", "60")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("there is no device 'cuda:63' here: choose ")
    assert one_sentence(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["local:", "stdio:"])
def test_ctrl_c_leaves_no_process_and_no_half_written_file(tmp_path: Path, url: str) -> None:
    process = begun(tmp_path, *TINY, "--connect", url, "--record", "a.events", "--screenshot", "a.png", "--seconds", "600")
    here = psutil.Process(process.pid)
    while not (tmp_path / "a.events").exists() or (tmp_path / "a.events").stat().st_size < 2000:  # the engine has answered
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(0.05) is None, process.communicate()
    children = here.children(recursive=True)
    assert bool(children) == (url == "stdio:")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "")
    assert psutil.wait_procs(children, timeout=PATIENCE_S)[1] == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.events"]
    assert (tmp_path / "a.events").read_bytes().endswith(b"\n")
