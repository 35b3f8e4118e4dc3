"""Pictures approved by eye once and compared ever after.

`TILESCOPE_APPROVE=1 pytest tests/app/test_pictures.py` writes them anew: look at each before committing it. The project's own
faces make text the same everywhere; the tolerance is for what differs in rasterising it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QEvent
from PySide6.QtGui import QImage, QImageWriter
from PySide6.QtWidgets import QApplication, QWidget

FOLDER = Path(__file__).parent / "pictures"
os.environ["FONTCONFIG_FILE"] = str(FOLDER / "fonts.conf")  # read when the application is made, and that is after collection
NEW = Path(tempfile.gettempdir()) / "tilescope-pictures"
APPROVE = "TILESCOPE_APPROVE"
NOTICED = 24        # of 255, in any channel, after each 2 by 2 pixels have become one
SHARE = 0.005       # of the pixels that may differ so much
BLOCK, CROWDED = 16, 0.06   # and of any 16 by 16 of the halved pixels, so that a word counts in a large picture too
COLOURS = 256       # of a palette

Pixels = npt.NDArray[np.uint8]


def approve(widget: QWidget, name: str) -> None:
    """Compares a widget as it is painted with the approved picture of that name.

    Raises: AssertionError: they differ; the new picture and one of the differences lie where the message says.
    """
    settle()
    new, path = _pixels(widget.grab().toImage()), FOLDER / f"{name}.png"
    if approving():
        _write(path, new)
        return
    assert path.exists(), f"{path} is not there: look at {_show(name, new)}, then run with {APPROVE}=1"
    old = _pixels(QImage(str(path)))
    assert old.shape == new.shape, (
        f"{name} is {_size(new)} and was approved at {_size(old)}: look at {_show(name, new)}, then run with {APPROVE}=1"
    )
    far = differs(old, new)
    share, (crowd, x, y) = float(far.mean()), _most_crowded(far)
    if share > SHARE or crowd > CROWDED:
        raise AssertionError(
            f"{share:.2%} of {name}, most of it around {x}, {y}, is not as approved: look at {_show(name, new, far)}, "
            f"and where it is better run with {APPROVE}=1"
        )


def approving() -> bool:
    """Whether what is seen is what will be compared with."""
    return os.environ.get(APPROVE) == "1"


def settle() -> None:
    """What was posted is done: layouts, deletions, queued signals. No time passes."""
    for _ in range(4):
        QApplication.sendPostedEvents()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


def differs(old: Pixels, new: Pixels) -> npt.NDArray[np.bool_]:
    """Which of the halved pixels are noticeably different: [height / 2, width / 2]."""
    return np.asarray((abs(_halved(old) - _halved(new)) > NOTICED).any(axis=2))


def _most_crowded(far: npt.NDArray[np.bool_]) -> tuple[float, int, int]:
    """The largest share of any block that differs, and where that is in the picture."""
    height, width = (-(-extent // BLOCK) for extent in far.shape)
    padded = np.zeros((height * BLOCK, width * BLOCK))
    padded[:far.shape[0], :far.shape[1]] = far
    shares = padded.reshape(height, BLOCK, width, BLOCK).mean(axis=(1, 3))
    row, column = np.unravel_index(int(shares.argmax()), shares.shape)
    return float(shares.max()), (2 * int(column) + 1) * BLOCK, (2 * int(row) + 1) * BLOCK


def _halved(pixels: Pixels) -> npt.NDArray[np.float64]:
    height, width = (extent // 2 for extent in pixels.shape[:2])
    halved: npt.NDArray[np.float64] = pixels[:2 * height, :2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    return halved


def _show(name: str, new: Pixels, far: npt.NDArray[np.bool_] | None = None) -> str:
    """Writes the new picture, and one that is white where it differs; where they lie, in words."""
    NEW.mkdir(parents=True, exist_ok=True)
    paths = [NEW / f"{name}.png"]
    _write(paths[0], new)
    if far is not None:
        paths.append(NEW / f"{name}.differs.png")
        white = np.repeat(np.repeat(far, 2, axis=0), 2, axis=1)[:, :, None] * np.full(3, 255, np.uint8)
        _write(paths[1], white.astype(np.uint8))
    return " and ".join(map(str, paths))


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _pixels(image: QImage) -> Pixels:
    """[height, width, 3]."""
    image = image.convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, :3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def _write(path: Path, pixels: Pixels) -> None:
    """As small as a PNG with a palette is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    palette, places = _palette(pixels)
    height, width = places.shape
    padded = np.zeros((height, (width + 3) // 4 * 4), np.uint8)
    padded[:, :width] = places
    data = padded.tobytes()
    image = QImage(data, width, height, padded.shape[1], QImage.Format.Format_Indexed8)
    image.setColorTable([0xFF000000 | int(r) << 16 | int(g) << 8 | int(b) for r, g, b in palette])
    writer = QImageWriter(str(path), b"png")
    writer.setCompression(100)
    if not writer.write(image):
        raise OSError(f"{path} cannot be written: {writer.errorString()}")


def _palette(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """Colours of which one is near to each pixel's, and for each pixel its place: [at most COLOURS, 3], [height, width]."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.int64)
    kept = next(kept for radius in range(0, 256, 3) if len(kept := _apart(channels[np.argsort(-counts)], radius)) <= COLOURS)
    nearest = np.array([((kept - colour) ** 2).sum(axis=1).argmin() for colour in channels], np.uint8)
    return kept.astype(np.uint8), nearest[places].reshape(packed.shape)


def _apart(colours: npt.NDArray[np.int64], radius: int) -> npt.NDArray[np.int64]:
    """Those colours, frequent ones first, that are further than `radius` from all before; a few above COLOURS at most."""
    kept = colours[:1]
    for colour in colours[1:]:
        if len(kept) > COLOURS:
            break
        if abs(kept - colour).max(axis=1).min() > radius:
            kept = np.vstack([kept, colour])
    return kept
