"""A front end's end of the line: send commands, poll events. Knows three schemes: local:, stdio: and replay:."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from engine import record
from engine.inbox import Inbox
from engine.protocol import Bye, Command, Event, Fault, MessageError, Shutdown, decode_event, encode

LAST_WORDS_S = 1.0  # that a dead child's errors are waited for
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
        ClientError: an unknown scheme, a command that cannot be started, a log that cannot be read or written.
    """
    try:
        recorder = record.Recorder(record_to) if record_to else None
    except record.RecordError as error:
        raise ClientError(str(error)) from error
    try:
        return _connect(url, Inbox(notify or (lambda: None), recorder), spawn or _Thread)
    except ClientError:
        if recorder:
            recorder.discard()
        raise


def _connect(url: str, inbox: Inbox, spawn: Spawn) -> Client:
    scheme, _, rest = url.partition(":")
    match scheme:
        case "local":
            return _Local(inbox, spawn)
        case "stdio":
            return _Stdio(inbox, spawn, _command(rest))
        case "replay":
            return _Replay(inbox, spawn, rest)
    raise ClientError(f"cannot connect to {url!r}: give {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}FILE")


def _command(text: str) -> list[str]:
    try:
        return shlex.split(text) or [sys.executable, "-m", "engine", "serve"]
    except ValueError as error:
        raise ClientError(f"cannot read the command {text!r}: {error}") from error


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
        self._inbox, self._closed, self._garbled = inbox, False, False
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._words: deque[str] = deque(maxlen=20)
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise ClientError(f"cannot start {command[0]!r}: {error.strerror}") from error
        self._err = spawn("engine errors", self._listen)
        self._threads = (self._err, spawn("engine output", self._read), spawn("engine input", self._write))

    def send(self, command: Command) -> None:
        self._lines.put(encode(command))

    def poll(self) -> list[Event]:
        return self._inbox.take()

    def close(self, timeout_s: float = 2.0) -> None:
        if self._closed:
            return
        self._closed = True
        self.send(Shutdown())
        self._lines.put(None)
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for thread in self._threads:
            thread.join(timeout_s)
        self._inbox.close()

    def _write(self) -> None:
        assert self._child.stdin
        with suppress(OSError), self._child.stdin as pipe:  # where the child has died, _read says so
            while line := self._lines.get():
                pipe.write(line)
                pipe.flush()

    def _read(self) -> None:
        assert self._child.stdout
        said_bye = False
        with self._child.stdout as pipe:
            for line in pipe:
                if event := self._event(line):
                    said_bye |= isinstance(event, Bye)
                    self._inbox.put(event)
        code = self._child.wait()
        self._err.join(LAST_WORDS_S)
        if not self._closed and not said_bye:
            how = f"exit code {code}" if code >= 0 else signal.strsignal(-code) or f"signal {-code}"
            self._inbox.put(Fault(
                message=f"The engine's process ended unexpectedly ({how})", remedy="Restart the engine.",
                details="\n".join(self._words), fatal=True,
            ))

    def _event(self, line: bytes) -> Event | None:
        """The event; a Fault for the first line that is none, nothing for more of them."""
        try:
            return decode_event(line)
        except MessageError as error:
            if self._garbled:
                return None
            self._garbled = True
            return Fault(message="The engine sent what is no event", remedy="Restart the engine.", details=str(error))

    def _listen(self) -> None:
        assert self._child.stderr
        with self._child.stderr as pipe:
            for line in pipe:
                self._words.append(line.decode(errors="replace").rstrip())


class _Replay:
    """A recorded event log, played with its own gaps. Commands are ignored, but Shutdown gives Bye."""

    def __init__(self, inbox: Inbox, spawn: Spawn, rest: str) -> None:
        path, given, speed = rest.partition("?speed=")
        if not path:
            raise ClientError("replay: needs an event log: give replay:FILE")
        self._speed = _speed(speed) if given else 1.0
        try:
            self._events = record.read(Path(path))
        except record.RecordError as error:
            raise ClientError(str(error)) from error
        self._inbox, self._ended = inbox, threading.Event()
        self._thread = spawn("replay", self._play)

    def send(self, command: Command) -> None:
        if isinstance(command, Shutdown):
            self._ended.set()

    def poll(self) -> list[Event]:
        return self._inbox.take()

    def close(self, timeout_s: float = 2.0) -> None:
        self._ended.set()
        self._thread.join(timeout_s)
        self._inbox.close()

    def _play(self) -> None:
        began, first = time.monotonic(), self._events[0].t_ns if self._events else 0
        event: Event | None = None
        for event in self._events:
            due = began + (event.t_ns - first) / 1e9 / self._speed if self._speed else began
            if self._ended.wait(min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX)):
                break
            self._inbox.put(event)
        else:
            self._ended.wait()
            if isinstance(event, Bye):
                return
        self._inbox.put(Bye(reason="the replay was closed"))


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < inf:
        raise ClientError(f"speed cannot be {text!r}: give a number from 0 up, where 0 plays all at once")
    return speed
