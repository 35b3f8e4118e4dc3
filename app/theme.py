"""Colours, dashes, markers and type by role. The only place in app/ that knows a colour is assets/themes/*.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import msgspec
from PySide6.QtGui import QColor, QFont, QFontDatabase

from app.stylesheet import stylesheet
from engine.protocol import Provenance

ThemeId = Literal["dark", "light"]
THEMES: tuple[ThemeId, ...] = ("dark", "light")
TEXT_PX, TITLE_PX = 12, 14
SANS = ("Inter", "SF Pro Text", "Segoe UI", "Noto Sans", "DejaVu Sans")
MONO = ("JetBrains Mono", "SF Mono", "Cascadia Mono", "Noto Sans Mono", "DejaVu Sans Mono")

# In units of the pen's width. A measured line has its kernel's dash; any other provenance has its own, whatever the kernel.
DASHES: tuple[tuple[float, ...], ...] = ((), (9, 3), (9, 3, 2, 3), (5, 3), (14, 3), (5, 3, 2, 3))
PROVENANCE_DASH: dict[Provenance, tuple[float, ...]] = {
    "modelled": (3, 3), "simulated": (1, 3), "scheduled": (1, 5), "published": (1, 7), "spec": (1, 9),
}
MARKERS = ("o", "s", "t1", "d", "+", "x")  # pyqtgraph's names


class Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One theme file: colours as `#RRGGBB`."""

    id: ThemeId
    title: str
    series: tuple[str, ...]
    memory: tuple[str, str, str, str]
    operand: dict[str, str]
    role: dict[str, str]


@dataclass(frozen=True)
class Mark:
    """How a line is told from the others: hue, dash, marker, and whether the marker is filled (measured) or hollow."""

    colour: QColor
    dash: tuple[float, ...] = ()
    marker: str = "o"
    filled: bool = True


@dataclass(frozen=True)
class Theme:
    """One theme. `theme[role]` is a colour: background, panel, border, text, accent, waste, ... and memory.0 to memory.3."""

    tokens: Tokens
    colours: Mapping[str, QColor]

    @staticmethod
    def load(name: str) -> Theme:
        """The theme of that name. Raises: ValueError where there is none."""
        if name not in THEMES:
            raise ValueError(f"there is no theme {name!r}: choose {' or '.join(THEMES)}")
        return _load(name)

    @property
    def id(self) -> ThemeId:
        return self.tokens.id

    def __getitem__(self, role: str) -> QColor:
        """A copy, so that a view may change its alpha. Raises: KeyError where the theme has no such role."""
        return QColor(self.colours[role])

    def series(self, index: int) -> QColor:
        """The hue of the kernel of that index (see Snapshot.index), the same in every plot."""
        return QColor(self.tokens.series[index % len(self.tokens.series)])

    def operand(self, name: str) -> QColor:
        """The hue of an operand, dQ and its sum as Q; muted where it has none."""
        return QColor(self.tokens.operand.get(name.removeprefix("d").removesuffix(" sum"), self.tokens.role["muted"]))

    def dash(self, index: int, provenance: Provenance = "measured") -> list[float]:
        """The dash pattern of a kernel's line, empty where solid; what was not measured never looks measured."""
        return list(PROVENANCE_DASH.get(provenance, DASHES[_shifted(index, 2) % len(DASHES)]))

    def marker(self, index: int) -> str:
        """The marker of a kernel, by pyqtgraph's name."""
        return MARKERS[_shifted(index, 3) % len(MARKERS)]

    def mark(self, index: int, provenance: Provenance = "measured") -> Mark:
        """All of that at once."""
        return Mark(self.series(index), tuple(self.dash(index, provenance)), self.marker(index), provenance == "measured")

    def stylesheet(self) -> str:
        """The style sheet of the whole application."""
        return stylesheet(self.tokens.role, self.id, SANS, MONO)

    def sans(self, px: int = TEXT_PX, semibold: bool = False) -> QFont:
        """The face of words."""
        return _font(SANS, px, semibold, QFont.StyleHint.SansSerif)

    def mono(self, px: int = TEXT_PX, semibold: bool = False) -> QFont:
        """The face of values."""
        return _font(MONO, px, semibold, QFont.StyleHint.Monospace)


def _shifted(index: int, by: int) -> int:
    """Of those that share a hue, the seventh and later, each has another dash and another marker."""
    return index + index // len(MARKERS) * by


@lru_cache
def load_fonts() -> None:
    """Makes the project's own faces known to Qt, so that the window looks the same wherever it runs. Needs an application.

    Raises: RuntimeError where one of them cannot be read.
    """
    for file in (files("assets") / "fonts").iterdir():
        if file.name.endswith((".otf", ".ttf")) and QFontDatabase.addApplicationFontFromData(file.read_bytes()) < 0:
            raise RuntimeError(f"the font {file.name} cannot be read")


@lru_cache
def _load(name: str) -> Theme:
    text = (files("assets") / "themes" / f"{name}.toml").read_text("utf-8")
    tokens = msgspec.convert(tomllib.loads(text), Tokens)
    roles = {role: QColor(value) for role, value in tokens.role.items()}
    return Theme(tokens, roles | {f"memory.{i}": QColor(value) for i, value in enumerate(tokens.memory)})


@lru_cache(maxsize=64)
def _font(families: tuple[str, ...], px: int, semibold: bool, hint: QFont.StyleHint) -> QFont:
    font = QFont()
    font.setFamilies(list(families))
    font.setStyleHint(hint)
    font.setPixelSize(px)
    font.setWeight(QFont.Weight.DemiBold if semibold else QFont.Weight.Normal)
    font.setFeature(QFont.Tag("tnum"), 1)  # digits of one width in proportional faces too
    return font


def contrast(first: QColor, second: QColor) -> float:
    """The contrast of two colours, 1 to 21. Source: WCAG 2.2, relative luminance."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: QColor) -> float:
    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(colour.redF()) + 0.7152 * linear(colour.greenF()) + 0.0722 * linear(colour.blueF())


def on(theme: Theme, fill: QColor) -> QColor:
    """The colour of letters on a filled rectangle: whichever of the theme's text and ground reads better."""
    return max((theme["text"], theme["background"]), key=lambda colour: contrast(colour, fill))
