"""Where a user's own files lie: settings of the window, and specs of simulated GPUs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

FOLDER_VARIABLE = "TILESCOPE_CONFIG_DIR"


def folder() -> Path:
    """$TILESCOPE_CONFIG_DIR, else the user's folder for configuration."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else platformdirs.user_config_path("tilescope")
