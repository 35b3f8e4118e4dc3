"""Reads the configuration back out of a picture that Tilescope saved: PNG or SVG."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from pathlib import Path

from PySide6.QtCore import QMimeData

from app.configuration import Configuration, ConfigurationError, decode

KEY = "tilescope"                       # of the PNG's text chunk, and the id of the SVG's metadata element
SUFFIXES = (".png", ".svg")
LARGEST_BYTES = 512 << 20               # far above a picture at 4x of the largest screen
LARGEST_TEXT_BYTES = 16 << 20
SVG = "{http://www.w3.org/2000/svg}"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class RestoreError(ValueError):
    """A file that nothing can be restored from; the text is one sentence that says why and what to do."""


def restore(path: Path) -> Configuration:
    """The configuration embedded in a picture.

    Raises:
        RestoreError: the file cannot be read, is cut short or damaged, or was not saved by Tilescope.
    """
    data = _read(path)
    try:
        text = _from_png(data) if data.startswith(_SIGNATURE) else _from_svg(data)
        return decode(text)
    except (_Damaged, ConfigurationError) as error:
        raise RestoreError(f"{path.name} cannot be restored: {error}. Open a PNG or SVG that Tilescope saved.") from error


def dropped_path(mime: QMimeData) -> Path | None:
    """The picture that is dragged over the window: one local file whose name ends in .png or .svg; else None."""
    urls = mime.urls()
    if len(urls) != 1 or not urls[0].isLocalFile():
        return None
    path = Path(urls[0].toLocalFile())
    return path if path.suffix.lower() in SUFFIXES else None


class _Damaged(ValueError):
    """Why the file holds no configuration, as a clause."""


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise RestoreError(f"{path.name} is too large for a picture that Tilescope saved: open another file.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RestoreError(f"There is no file {path}: open one that exists.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, RestoreError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RestoreError(f"{path} could not be read ({reason}): open another file.") from error


def _from_png(data: bytes) -> bytes:
    """The text chunk of our key. Every chunk is checked first, so a picture that is cut short is refused as a whole.

    Source: PNG (third edition), chunk layout and tEXt, zTXt, iTXt. Qt's reader would decode all pixels, write its own
    complaints to the terminal, and collapse spaces in the text.
    """
    key = KEY.encode() + b"\0"
    texts = [(kind, body[len(key):]) for kind, body in _chunks(data) if kind in _TEXTS and body.startswith(key)]
    if not texts:
        raise _Damaged("it holds no configuration")
    kind, body = texts[0]
    return _TEXTS[kind](body)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise _Damaged("the picture is cut short")
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            raise _Damaged("the picture is cut short")
        body = data[at + 8:end - 4]
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end - 4:end]):
            raise _Damaged("the picture is damaged")
        yield kind, body
        if kind == b"IEND":
            return
        at = end


def _plain(body: bytes) -> bytes:
    return body.decode("latin-1").encode()


def _compressed(body: bytes) -> bytes:
    return _plain(_inflated(body[1:]))


def _international(body: bytes) -> bytes:
    compressed, rest = body[:1], body[2:].split(b"\0", 2)  # flag, method, language, translated key, text
    if len(rest) != 3:
        raise _Damaged("its configuration is damaged")
    return _inflated(rest[2]) if compressed == b"\1" else rest[2]


_TEXTS = {b"tEXt": _plain, b"zTXt": _compressed, b"iTXt": _international}


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, LARGEST_TEXT_BYTES)
    except zlib.error as error:
        raise _Damaged("its configuration is damaged") from error


def _from_svg(data: bytes) -> str:
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _Damaged("it is no PNG and no SVG, or it is cut short") from error
    for element in root.iter(f"{SVG}metadata"):
        if element.get("id") == KEY:
            return element.text or ""
    raise _Damaged("it holds no configuration")
