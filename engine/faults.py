"""An error as the front end is told of it: its first line, what to do next, and the traceback behind both. No torch."""

from __future__ import annotations

import traceback

from engine.protocol import Fault


def first_line(error: Exception) -> str:
    """What an error says first, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def fault_of(error: Exception, remedy: str, message: str = "", *, fatal: bool = False) -> Fault:
    """`message`: in place of the error's first line."""
    details = "".join(traceback.format_exception(error))
    return Fault(message=message or first_line(error), remedy=remedy, details=details, fatal=fatal)
