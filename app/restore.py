"""Reads the configuration back out of a picture that Tilescope saved: PNG or SVG."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from PySide6.QtCore import QMimeData

from app.configuration import AnyConfiguration, ConfigurationError, decode
from app.labs import names
from engine.protocol import MOST_QUOTED

KEY = "tilescope"                       # of the PNG's text chunk, and the id of the SVG's metadata element
SUFFIXES = (".png", ".svg")
LARGEST_BYTES = 512 << 20               # far above a picture at 4x of the largest screen
LARGEST_SVG_BYTES = 32 << 20
LARGEST_TEXT_BYTES = 1 << 20            # far above a configuration of every kernel
MOST_CHUNKS = 200_000                   # Qt writes one for each 8 KiB
METADATA = "http://www.w3.org/2000/svg metadata"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class RestoreError(ValueError):
    """A file that nothing can be restored from; the text is one sentence that says why and what to do."""


def restore(path: Path) -> AnyConfiguration:
    """The configuration embedded in a picture.

    Raises:
        RestoreError: the file cannot be read, is cut short or damaged, or was not saved by Tilescope.
    """
    try:
        data = _read(path)
        text = _from_png(data) if data.startswith(_SIGNATURE) else _from_svg(data)
        if len(text) > LARGEST_TEXT_BYTES:
            raise _Damaged("its configuration is too large")
        shown = decode(text)
        if shown.lab not in names():
            raise _Damaged(f"there is no lab {shown.lab[:MOST_QUOTED]!r} here")
    except (_Damaged, ConfigurationError) as error:
        name = " ".join(path.name.split())
        raise RestoreError(f"{name} cannot be restored ({error}): open a PNG or SVG that Tilescope saved") from error
    return shown


def dropped_path(mime: QMimeData) -> Path | None:
    """The picture that is dragged over the window: one local file whose name ends in .png or .svg; else None."""
    urls = mime.urls()
    if len(urls) != 1 or not urls[0].isLocalFile():
        return None
    path = Path(urls[0].toLocalFile())
    return path if path.suffix.lower() in SUFFIXES else None


class _Damaged(Exception):
    """Why the file holds no configuration, as a clause."""


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may have no end
            raise _Damaged("it is no file")
        if found.st_size > LARGEST_BYTES:
            raise _Damaged("it is too large")
        return path.read_bytes()
    except OSError as error:
        raise _Damaged(error.strerror or str(error)) from error
    except ValueError as error:  # a name that no file can have
        raise _Damaged(str(error)) from error


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
    for _ in range(MOST_CHUNKS):
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
    raise _Damaged("it is too large")


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
        return zlib.decompressobj().decompress(body, LARGEST_TEXT_BYTES + 1)
    except zlib.error as error:
        raise _Damaged("its configuration is damaged") from error


def _from_svg(data: bytes) -> str:
    """The text of our metadata element. No tree is built, and a document type is refused: with it entities, and bombs."""
    if len(data) > LARGEST_SVG_BYTES:
        raise _Damaged("it is too large")
    texts: list[str] = []
    found = False

    def refuse(*_: object) -> None:
        raise _Damaged("it declares a document type")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal found
        ours = tag == METADATA and attributes.get("id") == KEY
        found = found or ours
        parser.CharacterDataHandler = texts.append if ours else None

    def end(_: str) -> None:
        parser.CharacterDataHandler = None

    parser = expat.ParserCreate("utf-8", " ")  # whatever the file declares: codecs have surprises of their own
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler, parser.StartElementHandler, parser.EndElementHandler = refuse, start, end
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise _Damaged("it is no PNG and no SVG, or it is cut short") from error
    if not found:
        raise _Damaged("it holds no configuration")
    return "".join(texts)
