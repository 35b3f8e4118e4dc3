"""Sessions to talk to, closed when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kernels.contract import KernelSpec
from tests.engine.fakes import Conversation

Talk = Callable[..., Conversation]


@pytest.fixture
def talk() -> Iterator[Talk]:
    """Opens conversations with sessions of given fakes; all are closed at the end."""
    opened: list[Conversation] = []

    def begin(*specs: KernelSpec, **options: object) -> Conversation:
        opened.append(Conversation({spec.id: spec for spec in specs}, **options))
        return opened[-1]

    yield begin
    for conversation in opened:
        conversation.close()
