"""Undo and redo of every choice. A drag is one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtGui import QUndoCommand, QUndoStack

from app.kind import Choice


class _Chose(QUndoCommand):
    """From one choice to another. Commands of one drag merge."""

    def __init__(self, before: Any, after: Any, drag: int, show: Callable[[Any], None]) -> None:
        super().__init__(after.changed_from(before))
        self.before, self.after, self.drag, self._show = before, after, drag, show

    def id(self) -> int:
        return 1 if self.drag else -1

    def mergeWith(self, other: QUndoCommand) -> bool:  # noqa: N802
        if not isinstance(other, _Chose) or other.drag != self.drag:
            return False
        self.after = other.after
        self.setObsolete(self.after == self.before)
        return True

    def undo(self) -> None:
        self._show(self.before)

    def redo(self) -> None:
        self._show(self.after)


class History:
    """`show` is called with each choice that becomes the current one, the first time too."""

    def __init__(self, show: Callable[[Any], None]) -> None:
        self.stack = QUndoStack()
        self._show = show
        self._current: Any = None

    @property
    def current(self) -> Any:
        """The choice; None before there is one."""
        return self._current

    def begin(self, choice: Choice) -> None:
        """A choice that cannot be undone: the first."""
        self.stack.clear()
        self._become(choice)

    def choose(self, choice: Choice, drag: int = 0) -> None:
        """A new choice; edits with the same `drag`, not 0, are one step."""
        if self._current is None:
            self.begin(choice)
        elif choice != self._current:
            self.stack.push(_Chose(self._current, choice, drag, self._become))

    def _become(self, choice: Choice) -> None:
        self._current = choice
        self._show(choice)
