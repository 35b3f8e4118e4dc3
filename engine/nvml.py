"""NVML behind one query with one error policy: what is not supported is asked for once and then left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Nvml:
    """The driver's management library, or the reason why it is not there.

    Args:
        module: pynvml or something that looks like it; None imports it.
    """

    def __init__(self, module: Any = None) -> None:
        self.module = module
        self.reason = ""
        self.missing: dict[tuple[str, Any], str] = {}  # (function, its arguments): why it is not asked for any more
        try:
            if module is None:
                import pynvml

                self.module = pynvml
            self.module.nvmlInit()
        except Exception as error:
            self.reason = _sentence(error)

    @property
    def here(self) -> bool:
        return not self.reason

    def query(self, name: str, *arguments: Any, key: Any = None) -> Any:
        """The result of an NVML function; None where it failed, with the reason under (name, key) in `missing`.

        A function that is not supported, or that this library does not have, is not asked for again.
        """
        return self._call(name, arguments, key)[1]

    def does(self, name: str, *arguments: Any, key: Any = None) -> bool:
        """Calls an NVML function for what it does, with the same policy; whether it succeeded."""
        return self._call(name, arguments, key)[0]

    def _call(self, name: str, arguments: tuple[Any, ...], key: Any) -> tuple[bool, Any]:
        if not self.here or (name, key) in self.missing:
            return False, None
        function: Callable[..., Any] | None = getattr(self.module, name, None)
        if function is None:
            self.missing[name, key] = "this NVML does not have it"
            return False, None
        try:
            return True, function(*arguments)
        except Exception as error:
            if getattr(error, "value", None) not in self._passing():
                self.missing[name, key] = _sentence(error)
            return False, None

    def _passing(self) -> set[int]:
        """Errors after which it is worth asking again."""
        names = ("NVML_ERROR_TIMEOUT", "NVML_ERROR_IN_USE", "NVML_ERROR_NO_DATA", "NVML_ERROR_NOT_READY")
        return {code for name in names if (code := getattr(self.module, name, None)) is not None}


def text(value: Any) -> str:
    """NVML gives bytes in some versions, text in others."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
