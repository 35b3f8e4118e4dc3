"""The event log: a header line and one event a line, appended as they come. `replay:` plays it."""

from __future__ import annotations

import platform
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from engine.protocol import VERSION, Event, Fault, MessageError, decode_event, encode

SCHEMA = "tilescope-events-1"


class Header(Struct, frozen=True, kw_only=True):
    """The first line of a log."""

    schema: str
    version: int
    created: str = ""
    host: str = ""


class RecordError(ValueError):
    """A log that cannot be written or read; the text is one sentence."""


class Recorder:
    """Appends events to a new file, each flushed at once. Raises: RecordError where the file exists or cannot be made."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        created = datetime.now(UTC).isoformat(timespec="seconds")
        header = Header(schema=SCHEMA, version=VERSION, created=created, host=platform.node())
        try:
            self._file: IO[bytes] | None = path.open("xb")
        except FileExistsError as error:
            raise RecordError(f"{path} exists: give a new name for the record") from error
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error.strerror}") from error
        if failure := self._write(msgspec.json.encode(header) + b"\n"):
            self.discard()
            raise RecordError(f"cannot write {path}: {failure}")

    def add(self, event: Event) -> Fault | None:
        """Appends one event, from any thread; the first failure gives a Fault, and from then on nothing is recorded."""
        if failure := self._write(encode(event)):
            return Fault(message=f"The record stopped: {failure}", remedy="Free some space; the run itself goes on.")
        return None

    def close(self) -> None:
        """Ends the record; may be called again."""
        with self._lock:
            self._end()

    def discard(self) -> None:
        """Ends the record and removes its file."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _write(self, line: bytes) -> str:
        """Appends a line; why that failed, after which the file is closed."""
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(line)
                    self._file.flush()
                except OSError as error:
                    self._end()
                    return error.strerror or str(error)
        return ""

    def _end(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # what could be written is on disk, and _write has told the rest
                file.close()


def read(path: Path) -> list[Event]:
    """The events of a log. A last line that was cut off is left out.

    Raises:
        RecordError: no such file, not a log, or a broken line before the last.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    whole, rest = lines[:-1], lines[-1]
    try:
        header = msgspec.json.decode(whole[0] if whole else rest, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{path} is no event log of Tilescope: its first line is no header") from error
    if header.schema != SCHEMA or header.version > VERSION:
        found = f"{header.schema}, version {header.version}"
        raise RecordError(f"{path} is of schema {found}: this program reads {SCHEMA}, version {VERSION}")
    events = []
    for number, line in enumerate(whole[1:], 2):
        try:
            events.append(decode_event(line))
        except MessageError as error:
            raise RecordError(f"{path}, line {number}: {error}") from error
    return events
