"""`python -m engine run` with anything at all after it: a plan, or exit 2 and one sentence. Nothing is measured here."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine import __main__ as commands
from engine.options import FIELDS, LAYER_FIELDS, run_command
from engine.protocol import Configure, Stop
from kernels.catalog import catalog


@pytest.fixture(autouse=True, scope="module")
def planned_alone() -> Iterator[None]:
    """A run ends when it has been planned; and a process is never left by force."""
    measure = commands._measure

    def plan(told: list[Any], *rest: Any) -> Any:
        assert isinstance(told[0], Configure)
        return measure([told[0], Stop()], *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "_measure", plan)
        patch.setattr(os, "_exit", lambda code: pytest.fail(f"os._exit({code})"))
        yield


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit code, and what was said on both outputs."""
    written, said = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in (written, said))
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run_command(commands.main, ["run", *arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code, written.getvalue().decode(), said.getvalue().decode()


def refused(*arguments: str) -> str:
    """The one sentence."""
    code, out, err = run(*arguments)
    assert code == 2, (out, err)
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1, err
    assert err.strip()
    return err.strip()


ATTENTION = sorted(name for name, spec in catalog().items() if spec.info.family == "attention")
SETTABLE = [*FIELDS, *LAYER_FIELDS, "block_m", "warps", "nothing\nhere"]
names = [f"--{name.replace('_', '-')}" for name in FIELDS]
flags = st.sampled_from([*names, "--kernel", "--device", "--seconds", "--set", "--json", "--no-causal", "--help", "-x", "--"])
typed = st.one_of(
    st.integers(-10, 1 << 22).map(str), st.integers(-1 << 80, 1 << 80).map(str), st.floats().map(str), st.text(max_size=8),
    st.sampled_from(["cpu", "cuda:0", "float16", "bfloat16", "backward", "1e3", "٣", "", "[red]x[/]", "a\nb", "\udcff"]),
    st.sampled_from(["naive", "flash", "flash,naive", "flash,flash", ",", "sdpa_flash"]),
    st.sampled_from(["batched_linear", "torch_linear", "torch_linear,flash"]),
    st.tuples(st.sampled_from(SETTABLE), st.text(max_size=4)).map("=".join),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(flags, typed, st.tuples(flags, typed).map("=".join)), max_size=7))
@example(["--json"])
@example(["--set", "a\nb=1"])
@example(["--kernel", "a\nb"])
@example(["--device", "a\nb"])
@example(["--dtype", "a\nb"])
@example(["--seconds", "a\nb"])
@example(["a\nb"])
@example(["--a\nb"])
@example(["--set", "batch=\x00"])
@example(["--device", "\udcff"])
def test_any_options_are_planned_or_refused_in_one_sentence(arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert "Traceback" not in err
    if code:  # either outcome is right, and a refusal is always of one form
        refused(*arguments)


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({
    "--batch": st.integers(1, 4096), "--seq": st.integers(1, 1 << 20), "--heads": st.integers(1, 1024),
    "--head-dim": st.sampled_from(range(8, 257, 8)), "--dtype": st.sampled_from(["float16", "bfloat16", "float32"]),
    "--pass": st.sampled_from(["forward", "backward"]), "--kernel": st.sampled_from(ATTENTION),
}))
def test_every_valid_shape_is_planned(chosen: dict[str, Any]) -> None:
    code, out, err = run("--device", "cpu", *(part for name, value in chosen.items() for part in (name, str(value))))
    assert (code, err) == (0, "")
    assert chosen["--kernel"] in out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4096), st.integers(1, 1 << 17), st.integers(1, 1 << 17), st.integers(1, 256),
    st.sampled_from(["float16", "bfloat16", "float32"]), st.sampled_from(["batched_linear", "torch_linear"]),
)
def test_every_valid_layer_is_planned(batch: int, d_in: int, d_out: int, repeat: int, dtype: str, kernel: str) -> None:
    if repeat > 1:
        d_out = d_in
    sizes = (f"d_in={d_in}", f"d-out={d_out}", f"repeat={repeat}")
    code, out, err = run("--device", "cpu", "--kernel", kernel, "--batch", str(batch), "--dtype", dtype,
                         *(part for size in sizes for part in ("--set", size)))
    assert (code, err) == (0, "")
    assert kernel in out


def test_a_kernel_named_twice_is_planned_once() -> None:
    _, out, _ = run("--device", "cpu", "--kernel", "flash,flash")
    assert [line.split()[0] for line in out.splitlines()].count("flash") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--kernel", "flash,"], "there is no kernel '': choose from "),
        (["--device", "cpu\n"], "there is no device 'cpu\\n' here: choose "),
        (["--set", "nothing\nhere=1"], "--set 'nothing\\nhere': no such field or kernel parameter; there are "),
        (["--seconds", "inf"], "inf is not in the range"),
        (["--seconds", "1e9"], "1000000000.0 is not in the range"),
        (["--seq"], "Option '--seq' requires an argument."),
        (["--kernel", "batched_linear", "--seq", "64"],
         "seq means nothing for a linear layer: it has batch, d_in, d_out, repeat, dtype"),
        (["--kernel", "batched_linear", "--no-causal"], "causal means nothing for a linear layer: it has "),
        (["--kernel", "torch_linear", "--set", "head-dim=64"], "head-dim means nothing for a linear layer: it has "),
        (["--kernel", "batched_linear", "--set", "repeat=4", "--set", "d_in=8"],
         "repeat 4 feeds 1024 outputs to 8 inputs: make d_in and d_out the same"),
        (["--kernel", "batched_linear", "--set", "d_in=0"], "d_in 0 is out of range: choose from 1 to 131072"),
        (["--kernel", "flash", "--set", "d_in=64"], "--set 'd_in': no such field or kernel parameter; there are "),
        (["--kernel", "torch_linear,flash"],
         "these kernels compute different things (torch_linear linear, flash attention): run each family by itself"),
        (["extra"], "Got unexpected extra argument (extra)"),
    ],
)
def test_what_is_refused_says_what_to_change(arguments: list[str], sentence: str) -> None:
    assert sentence in refused(*arguments)
