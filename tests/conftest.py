"""Qt draws into memory, whatever the machine has; what a user has kept is out of reach."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)  # what landed passes again; `make fuzz` draws examples anew
settings.load_profile("same")
os.environ["QT_QPA_PLATFORM"] = "offscreen"


@pytest.fixture(autouse=True)
def settings_of_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings are read from and kept in a folder that the test alone sees."""
    monkeypatch.setenv("TILESCOPE_CONFIG_DIR", str(tmp_path / "settings"))
