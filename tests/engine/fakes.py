"""Fake kernels that hang, break, lie or fill the memory on command, and a session to run them in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard, TypeVar

from engine.protocol import Command, Configure, Event, Model, Phase, Shutdown
from engine.session import Session
from kernels.attention import reference
from kernels.contract import AttentionWorkload, Config, Cost, Device, KernelInfo, KernelSpec, Operand, Param, Traffic

E = TypeVar("E", bound=Event)

CPU = Device(id="cpu", kind="cpu", name="a processor", sms=2, memory_bytes=8 << 30)
SMALL = AttentionWorkload(batch=2, heads=4, kv_heads=2, seq=80, head_dim=16, dtype="float32")
PATIENCE_S = 30.0


def fake(
    name: str, *, bind: Callable[[], None] = lambda: None, run: Callable[[], None] = lambda: None, error: float = 0.0,
    rows: int | None = None, squares: bool = False, constraint: str = "", on_reference: Callable[[], None] = lambda: None,
    passes: tuple[Any, ...] = ("forward",), dtypes: tuple[str, ...] = ("float32",), role: Any = "ours",
) -> KernelSpec:
    """A kernel that gives the reference.

    Args:
        bind, run: called when the kernel is bound to tensors, and whenever it runs: hang or raise there.
        error: added to its output. rows: query rows that it writes, None for all.
        squares: S and P are scratch in memory.
    """

    def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
        shape = (workload.batch, workload.heads, workload.seq, workload.keys)
        scratch = [Operand(name=n, shape=shape, itemsize=workload.itemsize, role="scratch") for n in "SP"] if squares else []
        return (*reference.operands(workload), *scratch)

    def launch(workload: AttentionWorkload, config: Config, tensors: dict[str, Any]) -> Callable[[], dict[str, Any]]:  # noqa: ARG001
        bind()
        right = reference.reference(workload, tensors)["O"]

        def execute() -> dict[str, Any]:
            run()
            tensors["O"][:, :, :rows] = (right + error)[:, :, :rows]
            return {"O": tensors["O"]}

        return execute

    def reference_rows(workload: AttentionWorkload, tensors: Mapping[str, Any], chosen: Any) -> dict[str, Any]:
        on_reference()
        return reference.reference(workload, tensors, chosen)

    return KernelSpec(
        info=KernelInfo(
            id=name, title=name.capitalize(), summary="", family="attention", role=role, passes=passes, dtypes=dtypes,
            params=(Param(name="block_m", title="Block", choices=(16, 32)),),
        ),
        operands=operands, inputs=reference.inputs, reference=reference_rows, launch=launch,
        configure=lambda workload, device: Config(params={"block_m": 32, "other": 1}),  # noqa: ARG005
        constraints=lambda workload, config, device: [constraint] if constraint else [],  # noqa: ARG005
        cost=lambda workload, config: Cost(  # noqa: ARG005
            nominal_flops=workload.nominal_flops, flops=workload.nominal_flops, hbm={"Q": Traffic(100, 0), "O": Traffic(0, 60)}
        ),
        schedule=None, compilations=lambda workload, config: (), tolerance=reference.tolerance,  # noqa: ARG005
    )


def configure(generation: int = 1, *kernels: str, workload: AttentionWorkload = SMALL, device: str = "cpu") -> Configure:
    """A Configure for the fakes."""
    return Configure(generation=generation, device=device, workload=workload, kernels=kernels or ("good",))


class Conversation:
    """A session in a thread, and all that it said."""

    def __init__(self, catalog: Mapping[str, KernelSpec], **options: Any) -> None:
        self.events: list[Event] = []
        self._heard = threading.Condition()
        models: tuple[Model, ...] = ()
        settings = {"devices": (CPU,), "models": models, "telemetry_s": None} | options
        self.session = Session(self._hear, catalog=catalog, **settings)
        self._thread = threading.Thread(target=self.session.run, name="session")
        self._thread.start()

    def _hear(self, event: Event) -> None:
        with self._heard:
            self.events.append(event)
            self._heard.notify_all()

    def send(self, *commands: Command) -> None:
        for command in commands:
            self.session.send(command)

    def wait(self, kind: type[E], after: int = 0, **values: Any) -> E:
        """The first event of that kind with those values from index `after` on; waits for it."""

        def found() -> E | None:
            return next((event for event in self.events[after:] if _matches(event, kind, values)), None)

        with self._heard:
            assert self._heard.wait_for(lambda: found() is not None, PATIENCE_S), (kind, values, self.events[-10:])
            event = found()
        assert event is not None
        return event

    def all(self, kind: type[E], after: int = 0, **values: Any) -> list[E]:
        """Every event of that kind with those values so far."""
        return [event for event in tuple(self.events[after:]) if _matches(event, kind, values)]

    def idle(self, after: int = 0) -> Phase:
        return self.wait(Phase, after, name="idle")

    def close(self) -> None:
        self.send(Shutdown())
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        runner = self.session._runner if hasattr(self.session, "_runner") else None
        assert runner is None or runner.join(PATIENCE_S), "the runner still hangs: the test must release it"


def _matches(event: Event, kind: type[E], values: dict[str, Any]) -> TypeGuard[E]:
    return isinstance(event, kind) and all(getattr(event, name) == value for name, value in values.items())
