"""The engine on a pipe: commands as JSON lines in, events as JSON lines out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

from engine.protocol import Event, MessageError, Shutdown, decode_command, encode
from engine.session import Session

LONGEST_LINE = 1 << 20


def serve(stdin: BinaryIO, stdout: BinaryIO, make: Callable[[Callable[[Event], None]], Session] = Session) -> Session:
    """Serves until Shutdown or the end of `stdin`; a line that is no command is answered by Refused. The session, ended.

    Raises:
        BrokenPipeError: nobody reads `stdout` any more.
    """

    def emit(event: Event) -> None:
        stdout.write(encode(event))
        stdout.flush()

    session = make(emit)
    threading.Thread(target=_read, args=(stdin, session), name="stdin", daemon=True).start()
    session.run()
    return session


def _read(stdin: BinaryIO, session: Session) -> None:
    with suppress(OSError, ValueError):  # an input that breaks, or is closed, has ended
        for line in _lines(stdin):
            _take(line, session)
    session.send(Shutdown())


def _take(line: bytes | None, session: Session) -> None:
    if line is None:
        session.reject(f"a line is longer than {LONGEST_LINE} bytes: send one command a line")
    elif line.strip():
        try:
            session.send(decode_command(line))
        except MessageError as error:
            session.reject(str(error))


def _lines(stdin: BinaryIO) -> Iterator[bytes | None]:
    """Lines; None for one that is too long, which is skipped whole."""
    while line := stdin.readline(LONGEST_LINE):
        if line.endswith(b"\n") or len(line) < LONGEST_LINE:
            yield line
            continue
        while (rest := stdin.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
            continue
        yield None
