"""What a bench has measured, kept as it goes: a line of JSON each, so that a bench that was cut is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from engine.options import BadInput

T = TypeVar("T", bound=msgspec.Struct)


class Record(Generic[T]):
    """`results`: those of before, then those added, all of one kind. Without a path they are kept in memory alone.

    Raises: BadInput where the file is no record of that kind or cannot be read or written.
    """

    def __init__(self, path: Path | None, kind: type[T]) -> None:
        self._path = path
        self.results: list[T] = []
        if path is None:
            return
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
            self.results = [msgspec.json.decode(line, type=kind) for line in lines if line.strip()]
            path.touch()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{path} is no record of this bench ({error}): name a new file") from error
        except OSError as error:
            raise BadInput(f"{path} cannot be read or written ({error.strerror}): name another file") from error

    def add(self, result: T) -> None:
        """Appends a result, on disk at once."""
        self.results.append(result)
        if self._path is not None:
            try:
                with self._path.open("ab") as file:
                    file.write(msgspec.json.encode(result) + b"\n")
            except OSError as error:
                why = f"{self._path} cannot be written ({error.strerror})"
                raise BadInput(f"{why}: it has what was measured before; go on with more space") from error
