"""A front end's end of the line: send commands, poll events. Knows three schemes: local:, stdio: and replay:."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs

from engine import record
from engine.protocol import Bye, Command, DeviceSample, Event, Fault, KernelSample, MessageError, Shutdown, decode_event, encode

MOST_EVENTS = 20_000  # kept for a front end that does not poll; then the oldest samples go first
SCHEMES = ("local:", "stdio:", "replay:")


class ClientError(ValueError):
    """An engine that cannot be opened; the text is one sentence."""


class Joinable(Protocol):
    """A running thread."""

    def join(self, timeout_s: float) -> bool:
        """Waits for its end; whether it has ended."""


Spawn = Callable[[str, Callable[[], None]], Joinable]


class Client(Protocol):
    """An open engine."""

    def send(self, command: Command) -> None:
        """Takes a command; never blocks."""

    def poll(self) -> list[Event]:
        """All events since the last poll, in order; never blocks."""

    def close(self, timeout_s: float = 2.0) -> None:
        """Ends it; may be called again."""


class _Thread:
    def __init__(self, name: str, target: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=target, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


def open_client(
    url: str, *, notify: Callable[[], None] | None = None, spawn: Spawn | None = None, record_to: Path | None = None
) -> Client:
    """Opens an engine.

    Args:
        url: `local:` a session in a thread; `stdio:` a child `python -m engine serve`, or the command after the colon;
            `replay:FILE[?speed=X]` a recorded event log at X times its own pace, 0 for all at once.
        notify: called from any thread when poll() has something after having been empty.
        spawn: starts a thread: (name, target) -> Joinable.
        record_to: an event log to append to.

    Raises:
        ClientError: an unknown scheme, or a log that cannot be read.
    """
    scheme, _, rest = url.partition(":")
    try:
        inbox = Inbox(notify or (lambda: None), record.Recorder(record_to) if record_to else None)
    except record.RecordError as error:
        raise ClientError(str(error)) from error
    match scheme:
        case "local":
            return _Local(inbox, spawn or _Thread)
        case "stdio":
            return _Stdio(inbox, spawn or _Thread, shlex.split(rest) or [sys.executable, "-m", "engine", "serve"])
        case "replay":
            return _Replay(inbox, spawn or _Thread, rest)
    raise ClientError(f"cannot connect to {url!r}: give {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}FILE")


class Inbox:
    """Events on their way to a front end: bounded, oldest samples dropped first, nothing else."""

    def __init__(self, notify: Callable[[], None], recorder: record.Recorder | None) -> None:
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._notify, self._recorder = notify, recorder

    def put(self, event: Event) -> None:
        """From any thread."""
        with self._lock:
            was_empty = not self._events
            self._events.append(event)
            if self._recorder and (fault := self._recorder.add(event)):
                self._events.append(fault)
            if len(self._events) > MOST_EVENTS:
                self._drop()
        if was_empty:
            self._notify()

    def take(self) -> list[Event]:
        """All of them, in order."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    def close(self) -> None:
        """Closes the record."""
        if self._recorder:
            self._recorder.close()

    def _drop(self) -> None:
        surplus = MOST_EVENTS // 10
        kept: deque[Event] = deque()
        for event in self._events:
            if surplus and isinstance(event, KernelSample | DeviceSample):
                surplus -= 1
            else:
                kept.append(event)
        self._events = kept


class _Local:
    """A session in a thread of this process."""

    def __init__(self, inbox: Inbox, spawn: Spawn) -> None:
        from engine.session import Session

        self._inbox, self._session, self._closed = inbox, Session(inbox.put), False
        self._thread = spawn("session", self._session.run)

    def send(self, command: Command) -> None:
        self._session.send(command)

    def poll(self) -> list[Event]:
        return self._inbox.take()

    def close(self, timeout_s: float = 2.0) -> None:
        if not self._closed:
            self._closed = True
            self._session.send(Shutdown())
            self._thread.join(timeout_s)
            self._inbox.close()


class _Stdio:
    """A session in a child process, by lines of JSON. A child that dies unasked is a fatal Fault with its last words."""

    def __init__(self, inbox: Inbox, spawn: Spawn, command: list[str]) -> None:
        self._inbox, self._closed = inbox, False
        self._words: deque[str] = deque(maxlen=20)
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise ClientError(f"cannot start {command[0]!r}: {error.strerror}") from error
        self._out = spawn("engine output", self._read)
        self._err = spawn("engine errors", self._listen)

    def send(self, command: Command) -> None:
        assert self._child.stdin
        try:
            self._child.stdin.write(encode(command))
            self._child.stdin.flush()
        except (OSError, ValueError):
            return  # it has died, and _read says so

    def poll(self) -> list[Event]:
        return self._inbox.take()

    def close(self, timeout_s: float = 2.0) -> None:
        if self._closed:
            return
        self._closed = True
        self.send(Shutdown())
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for thread in (self._out, self._err):
            thread.join(timeout_s)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe:
                pipe.close()
        self._inbox.close()

    def _read(self) -> None:
        assert self._child.stdout
        last: Event | None = None
        for line in self._child.stdout:
            try:
                last = decode_event(line)
            except MessageError as error:
                last = Fault(message="The engine sent what is no event", remedy="Restart the engine.", details=str(error))
            self._inbox.put(last)
        code = self._child.wait()
        if not self._closed and not isinstance(last, Bye):
            self._inbox.put(Fault(
                message=f"The engine's process ended unexpectedly ({code})", remedy="Restart the engine.",
                details="\n".join(self._words), fatal=True,
            ))

    def _listen(self) -> None:
        assert self._child.stderr
        for line in self._child.stderr:
            self._words.append(line.decode(errors="replace").rstrip())


class _Replay:
    """A recorded event log, played with its own gaps. Commands are ignored, but Shutdown gives Bye."""

    def __init__(self, inbox: Inbox, spawn: Spawn, rest: str) -> None:
        path, _, query = rest.partition("?")
        try:
            self._speed = float(parse_qs(query).get("speed", ["1"])[0])
        except ValueError as error:
            raise ClientError(f"speed in {rest!r} is no number") from error
        try:
            self._events = record.read(Path(path))
        except record.RecordError as error:
            raise ClientError(str(error)) from error
        self._inbox, self._ended = inbox, threading.Event()
        self._thread = spawn("replay", self._play)

    def send(self, command: Command) -> None:
        if isinstance(command, Shutdown) and not self._ended.is_set():
            self._ended.set()
            self._inbox.put(Bye(reason="the replay was closed"))

    def poll(self) -> list[Event]:
        return self._inbox.take()

    def close(self, timeout_s: float = 2.0) -> None:
        self._ended.set()
        self._thread.join(timeout_s)
        self._inbox.close()

    def _play(self) -> None:
        began, first = time.monotonic(), self._events[0].t_ns if self._events else 0
        for event in self._events:
            if self._speed > 0:
                due = began + (event.t_ns - first) / 1e9 / self._speed
                if self._ended.wait(max(0.0, due - time.monotonic())):
                    return
            if self._ended.is_set():
                return
            self._inbox.put(event)
