"""What is kept between starts: one JSON file, written beside and renamed. A damaged one is set aside, never lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from app.theme import ThemeId
from engine.home import FOLDER_VARIABLE, folder


class PictureSettings(Struct):
    """How pictures are saved. An empty folder is the user's folder of pictures; `theme` screen is the one on screen."""

    scale: Literal[1, 2, 4] = 2
    format: Literal["png", "svg"] = "png"
    theme: Literal["screen", "dark", "light"] = "screen"
    folder: str = ""


class Layout(Struct):
    """Where the docks of a lab stand, and the height of its theatre, as Qt writes them in base 64."""

    docks: str = ""
    splitter: str = ""


class Settings(Struct):
    """Everything, with what it is at first. `choices` are the labs' own, each as its lab reads it."""

    version: int = 1
    theme: ThemeId = "dark"
    reduced_motion: bool = False
    geometry: str = ""
    layouts: dict[str, Layout] = field(default_factory=dict)
    picture: PictureSettings = field(default_factory=PictureSettings)
    choices: dict[str, msgspec.Raw] = field(default_factory=dict)


def path() -> Path:
    """The file."""
    return folder() / "settings.json"


def load(path: Path) -> tuple[Settings, str]:
    """The settings, and a sentence where something was wrong with them: the file is then renamed and defaults serve."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings), ""
    except FileNotFoundError:
        return Settings(), ""
    except (msgspec.DecodeError, RecursionError) as error:
        kept = path.with_suffix(".damaged.json")
        try:
            path.replace(kept)
        except OSError:
            return Settings(), f"The settings in {path} are damaged ({error}); the defaults serve."
        return Settings(), f"The settings were damaged ({error}): they lie in {kept} now, and the defaults serve."
    except OSError as error:
        return Settings(), f"The settings in {path} cannot be read ({error.strerror}); the defaults serve."


def save(settings: Settings, path: Path) -> str:
    """Writes them; a sentence where that is impossible, and then the old file is as it was."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        return f"The settings cannot be kept in {path.parent} ({error.strerror}): set {FOLDER_VARIABLE} to another folder."
    return ""
