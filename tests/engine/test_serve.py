"""What comes down the pipe, whatever it is: a message, or one sentence; and a pipe that breaks ends the session."""

from __future__ import annotations

import io
import string
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.protocol import Bye, Command, Configure, Event, Hello, MessageError, Shutdown, decode_command, decode_event, encode
from engine.serve import LONGEST_LINE, serve
from engine.session import Session
from tests.engine.fakes import CPU, PATIENCE_S, SMALL, configure, fake

DECODERS = pytest.mark.parametrize("decode", [decode_command, decode_event])
TAGS = [kind.__name__ for union in (Command, Event) for kind in union.__args__]
NAMES = sorted({name for union in (Command, Event) for kind in union.__args__ for name in kind.__struct_fields__})

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-1 << 200, 1 << 200), st.floats(), st.text(max_size=5),
    st.sampled_from(["attention", "float16", "idle", "cuda"]),
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
objects = st.builds(
    lambda tag, rest: {**rest, "type": tag}, st.sampled_from(TAGS), st.dictionaries(st.sampled_from(NAMES), values),
)
workloads = st.fixed_dictionaries(
    {"type": st.just("attention")}, optional=dict.fromkeys(SMALL.__struct_encode_fields__, scalars)
)
configures = st.fixed_dictionaries({
    "type": st.just("Configure"), "generation": st.integers(), "device": st.just("cpu"), "workload": workloads,
    "kernels": st.lists(st.text(max_size=4), max_size=2),
})


def decoded(decode: Callable[[bytes], Any], line: bytes) -> Any:
    """The message, or None after one short sentence."""
    try:
        return decode(line)
    except MessageError as error:
        said = str(error)
        assert said.startswith("not a")
        assert len(said.splitlines()) == 1
        assert len(said) < 400
        return None


@DECODERS
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(string.printable, max_size=80).map(str.encode))
@example(b'{"type":"a\\nb"}')
@example(b'{"type":"' + b"x" * 5000 + b'"}')
@example(b"[" * 100_000)
@example(b'{"type":"Start","seconds":1e999}')
@example(b"\xff\xfe")
def test_any_bytes_are_a_message_or_one_sentence(decode: Callable[[bytes], Any], line: bytes) -> None:
    decoded(decode, line)


@DECODERS
@settings(max_examples=300, deadline=None)
@given(objects | configures)
def test_any_object_is_a_message_that_comes_back_or_one_sentence(decode: Callable[[bytes], Any], value: Any) -> None:
    message = decoded(decode, msgspec.json.encode(value))
    if message is not None:
        assert decode(encode(message)) == message


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([configure(3), Configure(generation=1, device="é", workload=SMALL, kernels=(), params={"a": {"b": 1}})]),
       st.data())
def test_a_command_cut_anywhere_is_refused(command: Configure, data: st.DataObject) -> None:
    line = encode(command)
    cut = data.draw(st.integers(0, len(line) - 2))
    assert decoded(decode_command, line[:cut]) is None
    assert decode_command(line) == command


def test_a_workload_that_contradicts_itself_is_refused_with_its_own_words() -> None:
    line = encode(configure()).replace(b'"kv_heads":2', b'"kv_heads":3')
    with pytest.raises(MessageError, match=r"heads 4 is not a multiple of kv-heads 3: choose one that divides it"):
        decode_command(line)


class Broken(io.RawIOBase):
    """An input that breaks after its first lines."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._data:
            raise OSError(5, "Input/output error")
        size = min(len(buffer), len(self._data))
        buffer[:size], self._data = self._data[:size], self._data[size:]
        return size


def make(emit: Callable[[Event], None]) -> Session:
    return Session(emit, catalog={"good": fake("good")}, devices=(CPU,), models=(), telemetry_s=None)


def said_by(stdin: Any) -> list[Event]:
    out = io.BytesIO()
    serving = threading.Thread(target=serve, args=(stdin, out, make), daemon=True)
    serving.start()
    serving.join(PATIENCE_S)
    assert not serving.is_alive()
    return [decode_event(line) for line in out.getvalue().splitlines()]


def test_an_input_that_breaks_ends_the_session() -> None:
    said = said_by(io.BufferedReader(Broken(encode(configure()))))
    assert isinstance(said[0], Hello)
    assert isinstance(said[-1], Bye)


def test_an_input_that_is_closed_ends_the_session() -> None:
    stdin = io.BytesIO()
    stdin.close()
    assert isinstance(said_by(stdin)[-1], Bye)


@pytest.mark.parametrize("surplus", [-1, 0, 1])
def test_a_last_line_at_the_limit_is_answered_once_and_the_session_ends(surplus: int) -> None:
    said = said_by(io.BytesIO(b"x" * (LONGEST_LINE + surplus)))
    assert [type(event).__name__ for event in said] == ["Hello", "Refused", "Bye"]


def test_blank_lines_are_passed_over_and_what_follows_shutdown_is_not_answered() -> None:
    said = said_by(io.BytesIO(b"\n  \r\n" + encode(Shutdown()) + b"nonsense\n"))
    assert [type(event).__name__ for event in said] == ["Hello", "Bye"]


def test_an_output_that_breaks_is_an_error_of_the_caller() -> None:
    class Gone(io.BytesIO):
        def write(self, data: Any) -> int:  # noqa: ARG002
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        serve(io.BytesIO(encode(Shutdown())), Gone(), make)
