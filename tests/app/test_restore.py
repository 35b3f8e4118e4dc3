"""Restoring: what was saved comes back, and any other file is one sentence, at once."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PySide6.QtCore import QMimeData, QUrl
from PySide6.QtWidgets import QApplication, QLabel

from app import restore as module
from app.configuration import Configuration, encode
from app.export import save_png, save_svg
from app.restore import RestoreError, dropped_path, restore
from tests.app import feed
from tests.app.test_configuration import configurations, junk, one_sentence, shown

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
TAKEN = shown(*feed.run(seconds=1), params={"flash": {"block_m": 64}})
TEXT = encode(TAKEN).encode()
PATIENT = settings(deadline=5000, max_examples=200)
Chunk = tuple[bytes, bytes]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures") / "a.png"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, qapp: QApplication) -> dict[str, bytes]:  # noqa: ARG001
    """A small picture in either format, as written."""
    folder, label = tmp_path_factory.mktemp("saved"), QLabel("small")
    label.resize(300, 12)
    paths = save_png(label, folder / "a.png", TAKEN), save_svg(label, folder / "a.svg", TAKEN)
    return {path.suffix: path.read_bytes() for path in paths}


def png(*chunks: Chunk, last: Chunk = (b"IEND", b"")) -> bytes:
    """A picture of these chunks, sums and all."""
    parts = [SIGNATURE]
    for kind, body in ((b"IHDR", HEADER), *chunks, last):
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def svg(text: str, before: str = "", name: str = "tilescope") -> bytes:
    """A picture with that text in its metadata."""
    inside = f'<metadata id="{name}">{text}</metadata>'
    return f'{before}<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>'.encode()


def refused(file: Path, data: bytes) -> str:
    """The one sentence with which these bytes are refused."""
    file.write_bytes(data)
    with pytest.raises(RestoreError) as error:
        restore(file)
    said = str(error.value)
    assert one_sentence(said)
    assert said.startswith("a.png cannot be restored (")
    return said


def taken_or_refused(file: Path, data: bytes) -> None:
    """Either is right; any other exception is none."""
    file.write_bytes(data)
    try:
        restore(file)
    except RestoreError as error:
        said = str(error)
    else:
        said = "taken"
    assert one_sentence(said)


@pytest.fixture(scope="module")
def label(qapp: QApplication) -> QLabel:  # noqa: ARG001
    return QLabel()


@settings(deadline=5000, max_examples=60)
@given(taken=configurations, words=st.text(max_size=20))
@example(taken=TAKEN, words="]]>&amp;<\x00\x1b\ufffe id=\"c1\" url(#c0)")
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_what_was_saved_comes_back(file: Path, label: QLabel, suffix: str, taken: Configuration, words: str) -> None:
    label.setText(words)
    label.resize(120, 20)
    path = file.with_name(f"b{suffix}")
    path.unlink(missing_ok=True)
    (save_png if suffix == ".png" else save_svg)(label, path, taken)
    assert restore(path) == taken


@pytest.mark.parametrize(
    "chunk",
    [
        (b"tEXt", b"tilescope\0" + TEXT.decode().encode("latin-1")),
        (b"zTXt", b"tilescope\0\0" + zlib.compress(TEXT.decode().encode("latin-1"))),
        (b"iTXt", b"tilescope\0\0\0en\0\0" + TEXT),
        (b"iTXt", b"tilescope\0\1\0\0Tilescope\0" + zlib.compress(TEXT)),
    ],
    ids=["tEXt", "zTXt", "iTXt", "iTXt compressed"],
)
def test_other_programs_may_have_rewritten_the_text(file: Path, chunk: Chunk) -> None:
    file.write_bytes(png((b"tEXt", b"Comment\0hello"), chunk))
    assert restore(file) == TAKEN


def test_a_picture_of_another_program_holds_no_configuration(file: Path) -> None:
    assert "it holds no configuration" in refused(file, png((b"tEXt", b"Comment\0hello")))
    assert "it holds no configuration" in refused(file, svg(TEXT.decode(), name="other"))


def test_a_png_cut_anywhere_is_refused(file: Path, saved: dict[str, bytes]) -> None:
    whole = saved[".png"]
    for length in {*range(200), *range(len(TEXT) - 100, len(TEXT) + 300), *range(0, len(whole), 97), len(whole) - 1}:
        refused(file, whole[:length])


def test_an_svg_cut_anywhere_is_refused(file: Path, saved: dict[str, bytes]) -> None:
    whole = saved[".svg"].rstrip()
    for length in range(0, len(whole), 7):
        refused(file, whole[:length])


@PATIENT
@given(st.data())
def test_a_png_with_any_byte_changed_is_refused(file: Path, saved: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(saved[".png"])
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    refused(file, bytes(whole))


@PATIENT
@given(st.data())
def test_an_svg_with_any_bytes_changed_is_taken_or_refused(file: Path, saved: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(saved[".svg"])
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    taken_or_refused(file, bytes(whole))


@PATIENT
@given(st.binary(max_size=300), st.sampled_from([b"", SIGNATURE, b"<svg", b'<?xml version="1.0"?>', png()[:33], b"\xff\xfe"]))
def test_any_bytes_are_refused(file: Path, rest: bytes, head: bytes) -> None:
    refused(file, head + rest)


@PATIENT
@given(st.sampled_from([b"tEXt", b"zTXt", b"iTXt"]), st.binary(max_size=60))
def test_any_text_chunk_of_our_key_is_refused(file: Path, kind: bytes, body: bytes) -> None:
    refused(file, png((kind, b"tilescope\0" + body)))


@PATIENT
@given(st.sampled_from(sorted(msgspec.to_builtins(TAKEN))), junk)
def test_any_value_in_any_field_is_taken_or_refused(file: Path, name: str, value: Any) -> None:
    text = msgspec.json.encode(msgspec.to_builtins(TAKEN) | {name: value})
    taken_or_refused(file, png((b"iTXt", b"tilescope\0\0\0\0\0" + text)))


@pytest.mark.parametrize("length", [1 << 31, 0xFFFFFFFF, 0xFFFFFFF4, 1 << 20])
def test_a_chunk_longer_than_its_file_is_refused(file: Path, length: int) -> None:
    assert "cut short" in refused(file, SIGNATURE + struct.pack(">I", length) + b"iTXttilescope\0")


def test_chunks_without_end_are_refused(file: Path) -> None:
    empty = struct.pack(">I4sI", 0, b"teSt", zlib.crc32(b"teSt"))
    assert "too large" in refused(file, SIGNATURE + empty * (module.MOST_CHUNKS + 10))


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("head", [b"\0", b"\1\0\0\0"], ids=["zTXt", "iTXt"])
def test_a_text_that_inflates_without_end_is_refused_small(file: Path, head: bytes) -> None:
    kind = b"zTXt" if head == b"\0" else b"iTXt"
    bomb = png((kind, b"tilescope\0" + head + zlib.compress(b" " * (64 << 20), 9)))
    with memory_below(16 << 20):
        assert "too large" in refused(file, bomb)


LAUGHS = "".join(
    f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(12)
)


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (LAUGHS, "&l11;"),
        (f'<!ENTITY big "{"x" * (1 << 20)}">', "&big;" * 1000),
        ('<!ENTITY file SYSTEM "file:///etc/passwd">', "&file;"),
        ('<!ENTITY % other SYSTEM "http://127.0.0.1:9/x.dtd"> %other;', ""),
    ],
    ids=["billion laughs", "quadratic", "file", "network"],
)
def test_entities_are_refused_before_they_expand(file: Path, declared: str, text: str) -> None:
    data = svg(text, f"<!DOCTYPE svg [{declared}]>")
    with memory_below(16 << 20):
        assert "it declares a document type" in refused(file, data)


def test_elements_nested_without_end_are_refused(file: Path) -> None:
    refused(file, b'<svg xmlns="http://www.w3.org/2000/svg">' + b"<g>" * 300_000)
    refused(file, b"<svg>" + b"<g>" * 100_000 + b"</g>" * 100_000 + b"</svg>")


def test_an_svg_larger_than_any_that_is_saved_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_SVG_BYTES", 100)
    assert "too large" in refused(file, svg(TEXT.decode()))


def test_a_file_larger_than_any_picture_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_BYTES", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    assert "too large" in refused(file, b"x" * 101)


@pytest.mark.parametrize("encoding", ["UTF-8", "utf-16", "unicode_escape", "idna", "zlib_codec", "nonsense"])
def test_whatever_encoding_is_declared_it_is_read_as_written(file: Path, encoding: str) -> None:
    file.write_bytes(svg(escape(TEXT.decode()), f'<?xml version="1.0" encoding="{encoding}"?>'))
    assert restore(file) == TAKEN


@pytest.mark.parametrize("wrong", [{"schema": 2}, {"lab": "kitchen"}, {"workload": {"type": "attention", "batch": -1}}])
def test_what_this_version_cannot_show_is_refused(file: Path, wrong: dict[str, Any]) -> None:
    text = msgspec.json.encode(msgspec.to_builtins(TAKEN) | wrong).decode()
    refused(file, svg(escape(text)))


@pytest.mark.parametrize("name", ["missing.png", "a\0.png", "n" * 300, "."])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RestoreError) as error:
        restore(tmp_path / name)
    assert one_sentence(str(error.value))


def test_a_pipe_and_a_device_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path("/dev/zero")):
        with pytest.raises(RestoreError, match="it is no file"):
            restore(path)


def test_a_file_that_must_not_be_read_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbid)
    assert "Permission denied" in refused(file, b"")


def test_a_name_with_a_line_break_stays_one_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb.png").write_bytes(b"")
    with pytest.raises(RestoreError) as error:
        restore(tmp_path / "a\nb.png")
    assert one_sentence(str(error.value))


@pytest.mark.parametrize(
    ("urls", "dropped"),
    [
        (["file:///tmp/a.png"], "/tmp/a.png"), (["file:///tmp/a%20b.SVG"], "/tmp/a b.SVG"), (["file:///tmp/a.txt"], None),
        (["https://example.org/a.png"], None), (["file:///tmp/a.png", "file:///tmp/b.png"], None), ([], None),
    ],
)
def test_one_local_picture_can_be_dropped(urls: list[str], dropped: str | None) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl(url) for url in urls])
    assert dropped_path(mime) == (Path(dropped) if dropped else None)
