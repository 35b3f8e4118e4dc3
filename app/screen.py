"""Whether there is a display, and a large enough screen for Qt's offscreen platform where there is none."""

from __future__ import annotations

import atexit
import ctypes
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


def cannot_show() -> str:
    """Why Qt would abort on this X display though there is one; empty where it would not."""
    x11 = "" if sys.platform != "linux" or os.environ.get("WAYLAND_DISPLAY") else os.environ.get("DISPLAY", "")
    if not x11 or os.environ.get(PLATFORM):
        return ""
    number = x11.removeprefix(":").partition(".")[0]
    if x11.startswith(":") and number.isdecimal() and not Path(f"/tmp/.X11-unix/X{number}").exists():
        return f"there is no X display {x11}: unset DISPLAY to run without one, or give --screenshot"
    try:
        ctypes.CDLL("libxcb-cursor.so.0")
    except OSError:
        return "Qt needs libxcb-cursor.so.0 for windows on X11: on Debian or Ubuntu, apt-get install -y libxcb-cursor0"
    return ""


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
