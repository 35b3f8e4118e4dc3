"""What a picture says of itself: taken from a snapshot, written, read again; and whatever else claims to be one."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.configuration import Configuration, ConfigurationError, Measured, configuration, decode, encode
from app.saved import SCHEMA
from app.store import Store
from engine.protocol import Checked, Event, Workload
from kernels.contract import AttentionWorkload, Device
from tests.app import feed

words = st.text(max_size=30)
names = st.sampled_from(["naive", "flash", "sdpa_flash", "gelöscht", "核", ""]) | words
figures = st.none() | st.floats(0, 1e18)
measured = st.builds(
    Measured, kernel=names, title=words, time_p50_ns=figures, tflops=figures, samples=st.integers(0, 1 << 40), note=words,
    hbm_read_bytes=st.integers(0, 1 << 62), hbm_write_bytes=st.integers(0, 1 << 62), hbm_is_lower_bound=st.booleans(),
    tile_bytes=st.none() | st.integers(0, 1 << 62), peak_memory_bytes=st.integers(0, 1 << 62),
    check_ok=st.none() | st.booleans(),
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Any that is valid."""
    kv_heads, causal = draw(st.integers(1, 32)), draw(st.booleans())
    return AttentionWorkload(
        batch=draw(st.integers(1, 4096)), seq=draw(st.integers(1, 1 << 20)), seq_kv=draw(st.integers(0, 1 << 20)),
        heads=kv_heads * draw(st.integers(1, 32)), kv_heads=kv_heads, head_dim=8 * draw(st.integers(1, 32)),
        dtype=draw(st.sampled_from(["float16", "bfloat16", "float32"])), causal=causal,
        window=draw(st.integers(0, 1 << 20)) if causal else 0, pass_=draw(st.sampled_from(["forward", "backward"])),
    )


configurations = st.builds(
    Configuration, lab=st.just("attention"), device=words, workload=workloads(), kernels=st.lists(names, max_size=6).map(tuple),
    params=st.dictionaries(names, st.dictionaries(words, st.integers(0, (1 << 31) - 1), max_size=3), max_size=3),
    theme=st.sampled_from(["dark", "light"]), software=st.dictionaries(words, words, max_size=3), verdict=words, saved=words,
    machine=st.none() | st.builds(Device, id=words, kind=st.sampled_from(["cuda", "cpu"]), name=words, driver=words),
    measured=st.lists(measured, max_size=3).map(tuple),
)


def shown(*events: Event, **options: Any) -> Configuration:
    """The configuration on screen after these events."""
    store = Store()
    for event in events:
        store.reduce(event)
    taken = configuration(store.snapshot(), lab="attention", **options)
    assert taken is not None
    return taken


def one_sentence(text: str) -> bool:
    """Whether a text is one line and at most one sentence."""
    return bool(text.strip()) and len(text.splitlines()) == 1 and not re.search(r"[.!?] +[A-Z]", text)


def test_before_a_plan_there_is_none() -> None:
    store = Store()
    store.reduce(feed.hello())
    assert configuration(store.snapshot(), lab="attention") is None


def test_it_says_what_ran_where_with_what_and_when() -> None:
    taken = shown(*feed.run(seconds=3), theme="light", params={"flash": {"block_m": 64}, "naive": {}})
    assert (taken.device, taken.workload, taken.kernels) == ("cuda:0", feed.WORKLOAD, ("naive", "flash"))
    assert (taken.params, taken.theme) == ({"flash": {"block_m": 64}}, "light")
    assert taken.machine is not None
    assert taken.machine.name == "NVIDIA H200"
    assert datetime.fromisoformat(taken.saved).tzinfo is not None
    assert "flash moves" in taken.verdict
    assert taken.provenance == "bytes scheduled, speed measured"
    flash = taken.measured[1]
    assert flash.time_p50_ns == pytest.approx(feed.MEDIANS_NS["flash"], rel=0.05)
    assert (flash.samples, flash.check_ok, flash.note) == (30, True, "")


def test_the_serial_number_of_the_device_stays_here() -> None:
    hello = replace(feed.hello(), devices=(replace(feed.H200, uuid="GPU-1234"),))
    assert "1234" not in encode(shown(hello, feed.planned()))


def test_a_kernel_without_a_number_says_why() -> None:
    wrong = Checked(generation=1, kernel="flash", ok=False, max_error=0.5, tolerance=0.01, rows=64)
    plan = feed.planned(("naive", "flash", "sdpa_math"), refused={"naive": "naive is too large"})
    taken = shown(feed.hello(), plan, wrong, feed.sample("flash", 1.0, 2e6))
    notes = {row.kernel: (row.time_p50_ns, row.note) for row in taken.measured}
    assert notes == {
        "naive": (None, "naive is too large"),
        "flash": (None, "its output differs from the reference, so no speed is shown"),
        "sdpa_math": (None, "no sample yet"),
    }


@given(configurations)
def test_what_is_written_is_read_again(taken: Configuration) -> None:
    assert decode(encode(taken)) == taken


PLAIN = msgspec.to_builtins(shown(*feed.run(seconds=1), params={"flash": {"block_m": 64}}))


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, -1, 10**30, None, "1", 1.5])
def test_another_schema_is_refused(schema: object) -> None:
    with pytest.raises(ConfigurationError) as refused:
        decode(msgspec.json.encode(PLAIN | {"schema": schema}))
    assert one_sentence(str(refused.value))


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0}, {"batch": -4}, {"seq": 1 << 21}, {"heads": 10**40}, {"heads": 7, "kv_heads": 2}, {"head_dim": 12},
        {"dtype": "int8\nint4"}, {"causal": "yes"}, {"window": 8, "causal": False}, {"type": "convolution"}, {"pass": ""},
    ],
)
def test_a_workload_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        decode(msgspec.json.encode(PLAIN | {"workload": PLAIN["workload"] | wrong}))
    assert one_sentence(str(refused.value))


@pytest.mark.parametrize("value", ["-1", "2147483648", "9" * 5000, '"64"', "null", "1.5"])
def test_a_parameter_that_no_form_can_show_is_refused(value: str) -> None:
    text = msgspec.json.encode(PLAIN).decode()
    assert text.count('"block_m":64') == 1
    with pytest.raises(ConfigurationError) as refused:
        decode(text.replace('"block_m":64', f'"block_m":{value}'))
    assert one_sentence(str(refused.value))


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-1 << 70, 1 << 70) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8,
)


@given(st.binary(max_size=200) | junk.map(msgspec.json.encode) | st.integers(1, 200_000).map(lambda deep: b'{"a":' * deep))
def test_anything_else_is_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(ConfigurationError) as refused:
        decode(text)
    assert one_sentence(str(refused.value))


@given(st.sampled_from(sorted(PLAIN)), junk)
def test_a_field_of_another_kind_is_refused_in_one_line_or_harmless(name: str, value: Any) -> None:
    try:
        taken = decode(msgspec.json.encode(PLAIN | {name: value}))
    except ConfigurationError as error:
        said, lost = str(error), False
    else:
        said, lost = "taken", decode(encode(taken)) != taken
    assert one_sentence(said)
    assert not lost
