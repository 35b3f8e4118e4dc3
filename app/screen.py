"""Whether there is a display, and a large enough screen for Qt's offscreen platform where there is none."""

from __future__ import annotations

import atexit
import json
import os
import sys
import tempfile
from pathlib import Path

WIDTH, HEIGHT = 3840, 2160
PLATFORM = "QT_QPA_PLATFORM"


def has_display() -> bool:
    """Whether a window can be seen. Asked of the environment alone: Qt aborts where it cannot connect."""
    if os.environ.get(PLATFORM, "").startswith("offscreen"):
        return False
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def use_offscreen() -> None:
    """Has Qt draw into memory, on a screen larger than its own of 800 by 800. Before the application is made."""
    if (os.environ.get(PLATFORM) or "offscreen") != "offscreen":
        return
    screen = {"name": "offscreen", "x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "dpr": 1,
              "logicalDpi": 96, "logicalBaseDpi": 96}
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="tilescope-screen-", delete=False) as file:
        json.dump({"screens": [screen]}, file)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    os.environ[PLATFORM] = f"offscreen:configfile={file.name}"
