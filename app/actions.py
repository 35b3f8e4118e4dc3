"""Every action as data: menus, toolbar, palette and shortcuts are made from this one list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from app.docks import TITLES
from app.labs import names, title_of

if TYPE_CHECKING:
    from app.window import Window


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that a user can do. `keys` are its shortcuts, the first of which is shown.

    `short` is its name on the toolbar, empty where it has no place there; `checked` answers for what can be on or off.
    """

    id: str
    title: str
    menu: str
    run: Callable[[], object]
    keys: tuple[str, ...] = ()
    short: str = ""
    enabled: Callable[[], bool] = _always
    checked: Callable[[], bool] | None = None


def actions(window: Window) -> tuple[Action, ...]:
    """All of them, in the order of the menus."""
    planned = window.desk.planned
    tiles, player, desk = window.has_tiles, window.player, window.desk
    return (
        *(Action(id=f"lab_{name}", title=f"{title_of(name)} lab", menu="Lab", keys=(f"Ctrl+{number}",), short=title_of(name),
                 run=partial(window.open_lab, name), checked=lambda name=name: desk.lab_id == name)  # type: ignore[misc]
          for number, name in enumerate(names()[:9], start=1)),
        Action(id="screenshot", title="Save picture of the window", menu="File", keys=("Ctrl+Shift+S",), short="Picture",
               enabled=planned, run=window.files.save_window_picture),
        Action(id="picture", title="Save picture as…", menu="File", enabled=planned, run=window.files.open_picture_dialog),
        Action(id="csv", title="Export figures as CSV…", menu="File", keys=("Ctrl+E",), enabled=planned,
               run=window.files.export_csv),
        Action(id="open", title="Open picture…", menu="File", keys=("Ctrl+O",), run=window.files.open_picture),
        Action(id="quit", title="Quit", menu="File", keys=("Ctrl+Q",), run=window.close),
        Action(id="undo", title="Undo", menu="Edit", keys=("Ctrl+Z",), short="Undo", run=desk.undo, enabled=desk.can_undo),
        Action(id="redo", title="Redo", menu="Edit", keys=("Ctrl+Shift+Z", "Ctrl+Y"), short="Redo",
               run=desk.redo, enabled=desk.can_redo),
        Action(id="copy_table", title="Copy table", menu="Edit", keys=("Ctrl+Shift+C",), enabled=planned,
               run=window.files.copy_table),
        Action(id="copy_chart", title="Copy focused chart", menu="Edit", keys=("Ctrl+C",), enabled=planned,
               run=window.files.copy_chart),
        Action(id="run", title="Run or stop", menu="Run", keys=("Ctrl+R",), short="Run", run=desk.toggle_run),
        Action(id="cancel", title="Cancel", menu="Run", keys=("Esc",), run=window.cancel),
        Action(id="restart", title="Restart engine", menu="Run", run=window.restart_engine),
        Action(id="play", title="Play or pause tiles", menu="Tiles", keys=("P",), enabled=tiles, run=player.toggle),
        Action(id="step", title="Next step", menu="Tiles", keys=(".",), enabled=tiles, run=partial(player.step, 1)),
        Action(id="back", title="Previous step", menu="Tiles", keys=(",",), enabled=tiles, run=partial(player.step, -1)),
        Action(id="first", title="First step", menu="Tiles", keys=("Home",), enabled=tiles,
               run=partial(player.seek, 0.0)),
        Action(id="last", title="Last step", menu="Tiles", keys=("End",), enabled=tiles, run=partial(player.seek, 1.0)),
        Action(id="motion", title="Reduced motion", menu="Tiles", run=player.toggle_motion,
               checked=lambda: window.settings.reduced_motion),
        Action(id="pause", title="Pause view", menu="View", keys=("Space",), short="Pause", run=window.pause_view,
               checked=lambda: window.live.paused),
        Action(id="theme", title="Other theme", menu="View", keys=("Ctrl+T",), short="Theme", run=window.other_theme),
        Action(id="full", title="Full view of the focused panel", menu="View", keys=("F",), enabled=planned,
               run=desk.toggle_full_view),
        *(Action(id=f"show_{name}", title=f"Show {title.lower()}", menu="View", run=partial(window.layouts.toggle, name),
                 checked=partial(window.docks.shown, name)) for name, title in TITLES.items()),
        Action(id="layout", title="Reset layout", menu="View", run=window.layouts.reset),
        Action(id="palette", title="Command palette", menu="Help", keys=("Ctrl+K", "Ctrl+Shift+P"), short="Commands",
               run=window.open_palette),
        Action(id="shortcuts", title="Shortcuts", menu="Help", keys=("?", "F1"), run=window.open_palette),
    )
