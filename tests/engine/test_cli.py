"""The command line as its users meet it: options, sentences, exit codes, the pipe."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import home, options
from engine.__main__ import main
from engine.protocol import Bye, Configure, Event, Hello, Planned, Refused, Shutdown, Start, decode_event, encode
from engine.serve import LONGEST_LINE, serve
from engine.session import Session
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Device, Workload
from tests.engine.fakes import CPU, PATIENCE_S, SMALL, configure, fake

TINY = ["--seq", "64", "--heads", "2", "--head-dim", "16", "--seconds", "0.01"]


@click.command()
@options.workload_options
def probe(**given: Any) -> tuple[Workload, dict[str, dict[str, int]]]:
    """What the options mean for naive and flash."""
    infos = [catalog()[name].info for name in ("naive", "flash")]
    return options.workload_from(given), options.params_from(given, infos)


def parsed(*arguments: str) -> Any:
    return probe.main(list(arguments), standalone_mode=False)


def engine(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "engine", *arguments], capture_output=True, text=True, timeout=120, **settings)


def test_every_field_is_an_option() -> None:
    workload, params = parsed(
        "--batch", "2", "--seq", "100", "--seq-kv", "200", "--heads", "8", "--kv-heads", "2", "--head-dim", "32",
        "--dtype", "float16", "--no-causal", "--pass", "backward",
    )
    assert workload == AttentionWorkload(
        batch=2, seq=100, seq_kv=200, heads=8, kv_heads=2, head_dim=32, dtype="float16", causal=False, pass_="backward"
    )
    assert params == {}


def test_set_takes_fields_and_parameters() -> None:
    workload, params = parsed("--set", "window=256", "--set", "block_m=64", "--set", "causal=true", "--set", "kv-heads=4")
    assert (workload.window, workload.kv_heads) == (256, 4)
    assert params == {"naive": {"block_m": 64}, "flash": {"block_m": 64}}


def test_kv_heads_follow_query_heads_given_alone() -> None:
    assert parsed("--heads", "12")[0].kv_heads == 12
    assert parsed("--heads", "12", "--kv-heads", "4")[0].kv_heads == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch", "0"], "batch 0 is out of range: choose from 1 to 4096"),
        (["--batch", "-3"], "batch -3 is out of range: choose from 1 to 4096"),
        (["--seq", "10e3"], "seq cannot be '10e3': give a whole number"),
        (["--heads", "6", "--kv-heads", "4"], "heads 6 is not a multiple of kv-heads 4: choose one that divides it"),
        (["--head-dim", "12"], "head-dim 12 is not a multiple of 8: choose 32, 64, 96, 128, 192 or 256"),
        (["--set", "window"], "--set 'window' is not NAME=VALUE: write for example --set block_m=64"),
        (["--set", "dtype=int8"], "dtype cannot be 'int8': choose float16, bfloat16, float32"),
        (["--set", "causal=maybe"], "causal cannot be 'maybe': choose true or false"),
        (["--set", "block_m=many"], "block_m cannot be 'many': give a whole number"),
        (["--set", "window=8", "--no-causal"], "window 8 needs causal: a window counts back from the query's own position"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_2(arguments: list[str], sentence: str) -> None:
    with pytest.raises(click.ClickException) as error:
        parsed(*arguments)
    assert error.value.exit_code == 2
    assert error.value.format_message() == sentence


def test_an_unknown_name_after_set_is_told_what_there_is() -> None:
    with pytest.raises(options.BadInput, match=r"--set 'page_size': no such field .* batch, .*, block_m,"):
        parsed("--set", "page_size=16")


flags = st.sampled_from([*(f"--{name.replace('_', '-')}" for name in options.FIELDS), "--no-causal", "--set", "--help-me"])
values = st.one_of(
    st.integers(-10, 1 << 21).map(str), st.text(max_size=8),
    st.sampled_from(["float16", "backward", "block_m=64", "window=-1"]),
    st.tuples(st.sampled_from([*options.FIELDS, "block_n", "warps"]), st.text(max_size=6)).map("=".join),
)


@settings(max_examples=300)
@given(st.lists(st.one_of(flags, values), max_size=8))
def test_any_options_give_a_valid_workload_or_one_sentence(arguments: list[str]) -> None:
    try:
        workload, params = parsed(*arguments)
    except click.ClickException as error:
        code, sentence = error.exit_code, error.format_message()
        assert code == 2  # either outcome is right, each has its own law
        assert sentence.strip()
        return
    for field in options.FIELDS.values():
        value = getattr(workload, options._ATTRIBUTES[field.name])
        assert field.kind != "int" or (field.lo or 0) <= value <= (field.hi or value)
    assert workload.heads % workload.kv_heads == 0
    assert all(isinstance(v, int) for chosen in params.values() for v in chosen.values())


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (CPU, {"batch": 1, "heads": 4, "seq": 1024, "head_dim": 64, "dtype": "float32"}),
        (Device(id="cuda:0", kind="cuda", name="H200", capability=(9, 0), memory_bytes=140 << 30),
         {"batch": 4, "heads": 16, "seq": 4096, "head_dim": 128, "dtype": "bfloat16"}),
        (Device(id="cuda:0", kind="cuda", name="T4", capability=(7, 5), memory_bytes=15 << 30),
         {"seq": 4096, "dtype": "float16"}),
        (Device(id="cuda:0", kind="cuda", name="small", capability=(8, 6), memory_bytes=4 << 30), {"seq": 2048}),
    ],
)
def test_a_device_begins_with_a_shape_that_fits(device: Device, expected: dict[str, Any]) -> None:
    workload = options.default_workload(device)
    assert {name: getattr(workload, name) for name in expected} == expected


def test_options_load_no_torch() -> None:
    code = "import sys, engine.options; print([m for m in ('torch', 'triton', 'numpy.random', 'psutil') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# --- commands, for real ---------------------------------------------------------------------------------------------


def test_run_measures_the_real_kernels_on_the_cpu() -> None:
    done = engine("run", "--device", "cpu", "--kernel", "naive,flash,sdpa_flash,sdpa_cudnn", *TINY, "--json")
    assert done.returncode == 0, done.stderr
    naive, flash, peer, refused = json.loads(done.stdout)
    for one in (naive, flash, peer):
        assert one["refused"] is None
        assert one["check"]["ok"]
        assert one["time_us"]["p20"] <= one["time_us"]["p50"] <= one["time_us"]["p80"]
        assert one["launches"] >= one["time_us"]["n"] >= 1
        assert one["provenance"] == "measured"
        assert one["workload"]["seq"] == 64
        assert one["workload"]["dtype"] == "float32"
    assert naive["hbm_read_bytes"] + naive["hbm_write_bytes"] == 4 * 2 * (4 * 64 * 16 + 6 * 64 * 64)
    assert flash["hbm_read_bytes"] + flash["hbm_write_bytes"] == 4 * 2 * 4 * 64 * 16
    assert refused["refused"] == "SDPA cuDNN needs an NVIDIA GPU"
    assert refused["time_us"] is refused["tflops"] is None


def test_run_measures_a_backward_pass_beside_its_peers() -> None:
    done = engine("run", "--device", "cpu", "--kernel", "flash,sdpa_flash,naive", *TINY, "--pass", "backward", "--json")
    assert done.returncode == 0, done.stderr
    flash, peer, refused = json.loads(done.stdout)
    for one in (flash, peer):
        assert one["refused"] is None
        assert one["check"]["ok"]
        assert one["workload"]["pass"] == "backward"
    assert flash["peak_memory_bytes"] > peer["peak_memory_bytes"], "it keeps O, lse and a sum of its own"
    assert "naive has no backward pass" in refused["refused"]


def test_run_without_kernels_takes_those_that_apply_and_prints_a_table() -> None:
    done = engine("run", "--device", "cpu", *TINY)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["kernel", "naive", "flash", "sdpa_flash", "sdpa_math"]
    assert "passed" in done.stdout


def test_run_refuses_what_cannot_fit_and_runs_the_rest() -> None:
    done = engine("run", "--device", "cpu", "--kernel", "naive,sdpa_cudnn", "--seq", "1000000", "--seconds", "0.01", "--json")
    assert done.returncode == 0, done.stderr
    naive, _ = json.loads(done.stdout)
    assert "for S and P" in naive["refused"]
    assert "choose a sequence of at most" in naive["refused"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--kernel", "nope"], "there is no kernel 'nope': choose from naive, dense, fused_softmax"),
        (["run", "--kernel", ""], "there is no kernel '': choose from naive, dense, fused_softmax"),
        (["run", "--device", "cuda:99"], "there is no device 'cuda:99' here: choose "),
        (["bench", "linear", "--device", "sim:t4"], "sim:t4 is a simulated T4, on which nothing runs: choose "),
        (["run", "--device", "sim:t4@clock=5"], "t4: clock: a factor of 5 is out of range: choose from 0.25 to 4"),
        (["run", "--device", "sim:t5"], "there is no simulated GPU 't5': choose from "),
        (["bench", "decode", "--device", "sim:assets/devices/t4.toml"], "sim:assets/devices/t4.toml is a simulated T4"),
        (["bench", "attention", "--device", "sim:nowhere.toml"], "nowhere.toml: cannot be read: No such file or directory"),
        (["run", "--kernel", "flash", "--set", "block_m=7"], "block_m of flash cannot be 7: choose 16, 32, 64 or 128"),
        (["run", "--seconds", "-1"], "-1.0 is not in the range"),
        (["run", "--seconds", "nan", "--kernel", "flash"], "seconds nan is out of range"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_bad_commands_are_one_sentence_and_exit_2(arguments: list[str], says: str) -> None:
    done = engine(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_kernels_and_devices_are_listed() -> None:
    infos = json.loads(engine("kernels", "--json").stdout)
    assert [info["id"] for info in infos] == list(catalog())
    assert "flash" in engine("kernels").stdout
    devices = json.loads(engine("devices", "--json").stdout)
    assert {device["kind"] for device in devices if device["id"].startswith("sim:")} == {"sim"}
    assert {"cpu", "sim:h200-sxm", "sim:t4"} <= {device["id"] for device in devices}
    listed = engine("devices").stdout
    assert "cpu" in listed
    assert "T4 (simulated)" in listed


def test_a_broken_spec_of_a_user_is_said_and_the_others_are_listed() -> None:
    path = home.folder() / "devices" / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text("sms = 7")
    done = engine("devices", "--json")
    assert done.returncode == 0
    assert done.stderr == f"{path}: title: it is missing\n"
    assert "sim:t4" in [device["id"] for device in json.loads(done.stdout)]
    done = engine("run", "--device", "sim:mine")
    assert (done.returncode, done.stderr) == (2, f"{path}: title: it is missing\n")


def test_devices_are_listed_without_torch() -> None:
    code = ("import sys\nfrom engine.__main__ import main\nmain(['devices'], standalone_mode=False)\n"
            "print('torch' in sys.modules, file=sys.stderr)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == "False\n"


def test_a_run_on_a_simulated_gpu_says_so() -> None:
    done = engine("run", "--device", "sim:h100-sxm", "--kernel", "flash,sdpa_flash,flex", "--seconds", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    flash, library, flex = json.loads(done.stdout)
    assert {flash["provenance"], library["provenance"]} == {"simulated"}
    assert flash["time_us"]["p20"] == flash["time_us"]["p80"] > 0
    assert flash["check"] is None
    assert "is not predicted" in " ".join(flex["refused"].split("and ")[-1:])


def test_a_run_on_a_gpu_without_our_kernels_takes_those_that_were_published() -> None:
    done = engine("run", "--device", "sim:t4", "--seconds", "0.05", "--seq", "512", "--json")
    assert done.returncode == 0, done.stderr
    assert {row["kernel"]: row["refused"] for row in json.loads(done.stdout)} == {"eager": None, "flash_attn_1": None}


def test_ctrl_c_ends_a_run_with_130_and_prints_nothing() -> None:
    code = (
        "import sys\nfrom engine import results\nfrom engine.__main__ import main\nfrom engine.options import run_command\n"
        "add = results.Collector.add\n"
        "def noted(self, event):\n    add(self, event)\n    print(type(event).__name__, file=sys.stderr, flush=True)\n"
        "results.Collector.add = noted\n"
        "run_command(main, ['run', '--device', 'cpu', '--seconds', '600', '--json'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        assert child.stdout
        for line in child.stderr:
            if line.strip() == "KernelSample":
                break
        child.send_signal(signal.SIGINT)
        said, printed = child.stderr.read(), child.stdout.read()
        assert child.wait(PATIENCE_S) == options.INTERRUPTED
        assert "Traceback" not in said
        assert printed == ""


# --- the pipe -------------------------------------------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """Lines that arrive when a test puts them."""

    def __init__(self, *lines: bytes) -> None:
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._rest = b""
        for line in lines:
            self._lines.put(line)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or self._lines.get()
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def served(data: bytes) -> list[Event]:
    """What a session of one fake kernel answers to these bytes."""
    out = io.BytesIO()

    def make(emit: Callable[[Event], None]) -> Session:
        return Session(emit, catalog={"good": fake("good")}, devices=(CPU,), models=(), telemetry_s=None)

    serve(io.BytesIO(data), out, make)
    return [decode_event(line) for line in out.getvalue().splitlines()]


def test_serve_answers_each_command_and_ends_with_its_input() -> None:
    said = served(encode(configure(5)))
    assert [type(event) for event in said] == [Hello, Planned, Bye]
    assert isinstance(said[1], Planned)
    assert said[1].generation == 5


def test_serve_ends_at_shutdown_though_its_input_stays_open() -> None:
    out = io.BytesIO()
    pipe = Pipe(encode(configure(5)), encode(Shutdown()))

    def make(emit: Callable[[Event], None]) -> Session:
        return Session(emit, catalog={"good": fake("good")}, devices=(CPU,), models=(), telemetry_s=None)

    serve(io.BufferedReader(pipe), out, make)
    pipe._lines.put(b"")
    assert isinstance(decode_event(out.getvalue().splitlines()[-1]), Bye)


lines = st.one_of(
    st.binary(max_size=60), st.text(max_size=30).map(str.encode), st.just(b'{"type":"Start","seconds":null}'),
    st.just(b'{"type":"Configure"}'), st.just(b"[" * 5000), st.just(b'{"type":"Start","seconds":1e999}'),
    st.just(encode(Configure(generation=1, device="x" * 99, workload=SMALL, kernels=("a",))).strip()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(lines.map(lambda line: line.replace(b"\n", b" ").replace(b"\r", b" ")), max_size=6))
def test_serve_answers_every_bad_line_with_one_refusal_and_lives(sent: list[bytes]) -> None:
    said = served(b"".join(line + b"\n" for line in sent) + encode(configure(9)))
    assert isinstance(said[0], Hello)
    assert isinstance(said[-1], Bye)
    assert any(isinstance(event, Planned) and event.generation == 9 for event in said)
    assert len([event for event in said if isinstance(event, Refused)]) == len([line for line in sent if line.strip()])


def test_a_line_without_end_is_refused_and_skipped() -> None:
    said = served(b"x" * (2 * LONGEST_LINE + 10) + b"\n" + encode(configure(2)))
    refused, = [event for event in said if isinstance(event, Refused)]
    assert refused.reason == f"a line is longer than {LONGEST_LINE} bytes: send one command a line"
    assert any(isinstance(event, Planned) for event in said)


def test_serve_writes_nothing_but_messages_on_its_output() -> None:
    command = Configure(generation=1, device="cpu", workload=SMALL, kernels=("flash", "sdpa_math"))
    done = engine("serve", input=(encode(command) + b"nonsense\n" + encode(Start(seconds=0.01))).decode())
    assert done.returncode == 0, done.stderr
    said = [decode_event(line.encode()) for line in done.stdout.splitlines()]
    assert isinstance(said[0], Hello)
    assert isinstance(said[-1], Bye)
    assert any(isinstance(event, Planned) for event in said)


def test_output_that_nobody_reads_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "engine", "kernels"], stdout=out, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b""


def test_help_names_every_command() -> None:
    assert set(main.commands) == {"doctor", "devices", "kernels", "run", "predict", "trace", "decode", "bench", "serve"}
