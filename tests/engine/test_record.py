"""The event log: what was appended is read back, and what went wrong is one sentence."""

from __future__ import annotations

import errno
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.protocol import (
    Bye,
    Checked,
    DeviceSample,
    Event,
    Fault,
    KernelSample,
    MemorySample,
    Phase,
    Refused,
    decode_event,
    encode,
)
from engine.record import SCHEMA, Recorder, RecordError, read

HEADER = b'{"schema":"%s","version":1}\n' % SCHEMA.encode()

ns = st.integers(0, 1 << 62)
finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(max_size=12)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(KernelSample, t_ns=ns, generation=ns, kernel=words, launches=ns, time_ns=finite),
    st.builds(Phase, t_ns=ns, generation=ns, name=st.sampled_from(["idle", "compiling"]), kernel=words, done=ns, total=ns),
    st.builds(Checked, t_ns=ns, generation=ns, kernel=words, ok=st.booleans(), max_error=finite, tolerance=finite, rows=ns),
    st.builds(
        DeviceSample, t_ns=ns, device=words, utilisation=st.none() | finite,
        throttle=st.none() | st.lists(words, max_size=2).map(tuple), missing=st.dictionaries(words, words, max_size=2),
    ),
    st.builds(MemorySample, t_ns=ns, generation=ns, owners=st.dictionaries(words, ns, max_size=3)),
    st.builds(Refused, t_ns=ns, generation=ns, reason=words), st.builds(Fault, t_ns=ns, message=words, remedy=words),
    st.builds(Bye, t_ns=ns, reason=words),
)


def record(path: Path, *said: Event) -> None:
    recorder = Recorder(path)
    assert [recorder.add(event) for event in said] == [None] * len(said)
    recorder.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(events, max_size=6), st.data())
def test_what_was_recorded_is_read_and_a_cut_costs_only_what_it_cut(said: list[Event], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        record(path, *said)
        assert read(path) == said
        whole = path.read_bytes()
        first = whole.index(b"\n") + 1
        cut = data.draw(st.integers(first, len(whole)))
        path.write_bytes(whole[:cut])
        assert read(path) == said[:whole[first:cut].count(b"\n")]


def test_events_are_on_disk_before_the_record_is_closed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl")
    recorder.add(Bye(reason="now"))
    assert read(tmp_path / "run.jsonl") == [Bye(reason="now")]
    recorder.close()
    recorder.close()
    assert recorder.add(Bye(reason="later")) is None
    assert read(tmp_path / "run.jsonl") == [Bye(reason="now")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is no event log of Tilescope: its first line is no header"),
        (b"\x00\xff\n", "is no event log of Tilescope: its first line is no header"),
        (b"[" * 100_000 + b"\n", "is no event log of Tilescope: its first line is no header"),
        (b"{}\n", "is no event log of Tilescope: its first line is no header"),
        (encode(Bye(reason="an event")), "is no event log of Tilescope: its first line is no header"),
        (HEADER[:-10], "is no event log of Tilescope: its first line is no header"),
        (HEADER.replace(b'"version":1', b'"version":2'), f"{SCHEMA}, version 2: this program reads {SCHEMA}, version 1"),
        (HEADER.replace(b"events", b"trials"), "is of schema tilescope-trials-1, version 1: this program reads"),
        (HEADER + b"\n" + encode(Bye()), ", line 2: not an event: "),
        (HEADER + encode(Bye()) + b'{"type":"Later"}\n' + encode(Bye()), ", line 3: not an event: "),
        (HEADER + b'{"type":"a\\nb"}\n', ", line 2: not an event: "),
    ],
)
def test_what_is_no_log_is_refused_in_one_line(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordError) as error:
        read(path)
    assert sentence in str(error.value)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value).splitlines()) == 1


def test_a_log_of_nothing_but_its_header_is_empty(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_bytes(HEADER)
    assert read(tmp_path / "run.jsonl") == []


def test_a_log_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"^cannot read .*gone.jsonl: No such file or directory$"):
        read(tmp_path / "gone.jsonl")
    with pytest.raises(RecordError, match=r"^cannot read .*: Is a directory$"):
        read(tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("mine")
    with pytest.raises(RecordError, match=r"run.jsonl exists: give a new name for the record$"):
        Recorder(path)
    assert path.read_text() == "mine"


def test_a_record_that_cannot_be_made_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecordError, match=r"^cannot write .*run.jsonl: No such file or directory$"):
        Recorder(tmp_path / "gone" / "run.jsonl")

    def forbidden(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(RecordError, match=r"^cannot write .*run.jsonl: Permission denied$"):
        Recorder(tmp_path / "run.jsonl")


class Full:
    """A file on a disk that is full after `room` writes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self.room = file, room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the disk full after so many writes."""
    files: list[Full] = []

    def after(room: int) -> list[Full]:
        def opened(path: Path, mode: str, **rest: Any) -> Any:
            file = open(path, mode, **rest)  # noqa: SIM115, PTH123
            if mode != "xb":
                return file
            files.append(Full(file, room))
            return files[-1]

        monkeypatch.setattr(Path, "open", opened)
        return files

    return after


def test_a_disk_that_fills_is_told_once_and_the_log_so_far_is_whole(tmp_path: Path, fill: Any) -> None:
    path = tmp_path / "run.jsonl"
    files = fill(2)
    recorder = Recorder(path)
    said = [recorder.add(Phase(generation=1, name="idle")) for _ in range(4)]
    fault = said[1]
    assert said == [None, fault, None, None]
    assert isinstance(fault, Fault)
    assert fault.message == "The record stopped: No space left on device"
    assert not fault.fatal
    assert files[0].closed
    content = path.read_bytes().splitlines()
    assert len(content) == 2
    assert decode_event(content[1]) == Phase(generation=1, name="idle")


def test_a_disk_full_at_the_header_leaves_nothing(tmp_path: Path, fill: Any) -> None:
    files = fill(0)
    with pytest.raises(RecordError, match="No space left on device"):
        Recorder(tmp_path / "run.jsonl")
    assert files[0].closed
    assert not (tmp_path / "run.jsonl").exists()
