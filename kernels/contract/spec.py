"""What a kernel says of itself: its information, configuration, cost, and the functions that make them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from msgspec import Struct, field

from kernels.contract.device import Device
from kernels.contract.schedule import Operand, Schedule
from kernels.contract.workload import AttentionWorkload, LinearWorkload, Pass, Workload

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


Family = Literal["attention", "decode", "linear"]


class Refusal(ValueError):
    """A kernel cannot run this workload here; the text is one sentence for the user."""


class Param(Struct, frozen=True, kw_only=True):
    """A parameter of a kernel that a user may set; left alone, the kernel's table chooses.

    `passes`: in which it means something.
    """

    name: str
    title: str
    choices: tuple[int, ...]
    unit: str = ""
    help: str = ""
    passes: tuple[Pass, ...] = ("forward", "backward")


class Resources(Struct, frozen=True):
    """What the compiler reported of one launch: registers per thread, shared memory and spills in bytes."""

    registers: int
    sram_bytes: int
    spill_bytes: int = 0


class Compilation(Struct, frozen=True, kw_only=True):
    """One launch as the compiler sees it. `key` names the variant among the recorded resources; float16 and bfloat16
    share one, since they compile alike.

    `kernel` is the jitted function, `signature` its argument types (`*bf16`, `i32`, `tensordesc<...>`), `constants` its
    constexprs.
    """

    launch: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    warps: int
    stages: int

    @property
    def key(self) -> str:
        parts = [f"{name}={value}" for name, value in self.constants.items()]
        elements = (re.match(r"(?:\*|tensordesc<)[a-z]+(\d+)", t) for t in self.signature.values())
        widths = sorted({f"{found[1]}-bit" for found in elements if found})
        return " ".join([self.launch, *widths, *parts, f"warps={self.warps}", f"stages={self.stages}"])


class Config(Struct, frozen=True, kw_only=True):
    """How a kernel runs a workload: its parameters (block_m, stages, ...) and, per launch, what was compiled."""

    params: dict[str, int] = field(default_factory=dict)
    resources: dict[str, Resources] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.params[name]


class Traffic(Struct, frozen=True):
    """Bytes read and written."""

    read: int = 0
    written: int = 0


class Cost(Struct, frozen=True, kw_only=True):
    """Closed-form cost of one execution. `flops` is the matrix work executed, `nominal_flops` what throughput counts.

    `hbm`: by operand, summed over launches, each distinct element read once and written once. `tile`: by operand, the
    clipped tile loads and stores. An opaque peer's cost is the compulsory traffic of its operands alone, `tile` empty.
    """

    nominal_flops: int
    flops: int
    vector_flops: int = 0
    exps: int = 0
    hbm: dict[str, Traffic]
    tile: dict[str, Traffic] = field(default_factory=dict)

    @property
    def hbm_read_bytes(self) -> int:
        return sum(t.read for t in self.hbm.values())

    @property
    def hbm_write_bytes(self) -> int:
        return sum(t.written for t in self.hbm.values())

    @property
    def hbm_bytes(self) -> int:
        return self.hbm_read_bytes + self.hbm_write_bytes

    @property
    def tile_bytes(self) -> int:
        return sum(t.read + t.written for t in self.tile.values())


class KernelInfo(Struct, frozen=True, kw_only=True):
    """What travels to a front end about a kernel. `opaque`: no schedule of what runs here is known, and none is drawn.

    `role`: one that is `published` is predicted and never run, for nothing that can be installed launches it.
    `place`: among those of its role, in the order in which they are taught; those without one follow by id.
    """

    id: str
    title: str
    summary: str
    family: Family
    role: Literal["baseline", "ours", "peer", "published"]
    passes: tuple[Pass, ...] = ("forward",)
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32")
    params: tuple[Param, ...] = ()
    opaque: bool = False
    source: str = ""
    place: int = 99

    @property
    def runs(self) -> bool:
        """Whether anything can launch it."""
        return self.role != "published"

    def params_of(self, pass_: Pass) -> tuple[Param, ...]:
        """Those that mean something in a pass."""
        return tuple(param for param in self.params if pass_ in param.passes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What a prediction is made of. A peer's is what its authors published: tiles, warps, the order of loops; it need not be
    installed. Answers without torch.

    Attributes:
        operands: workload -> the operands of the schedule, inputs first.
        configure: (workload, device) -> Config: tiles by workload and device, and what is known of registers and SRAM.
        constraints: (workload, config, device) -> sentences, empty where it can be predicted.
        cost, schedule: (workload, config) -> closed form.
        tolerance: workload -> as a kernel's, of the schedule executed.
        source: where it was published, and what of it is a guess.
        save: as a kernel's, where the schedule is executed.
    """

    operands: Callable[[Any], tuple[Operand, ...]]
    configure: Callable[[Any, Device], Config]
    constraints: Callable[[Any, Config, Device], list[str]]
    cost: Callable[[Any, Config], Cost]
    schedule: Callable[[Any, Config], Schedule]
    tolerance: Callable[[Any], float]
    source: str
    save: Callable[[Any, Tensors], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """A kernel whole. Everything but `reference`, `inputs` and `launch` answers without torch. Each function takes workloads
    of the kind of its family (`kind`), and no other.

    Attributes:
        operands: workload -> its operands, inputs first.
        inputs: (workload, device, generator) -> the input tensors, random.
        reference: (workload, tensors, rows) -> the outputs in float64; with `rows` (int64 [R]) only those query rows, or rows
            of Y.
        launch: (workload, config, tensors) -> a function that runs the kernel on those tensors each time it is called
            and returns its outputs by name. Raises Refusal where it cannot.
        configure: (workload, device) -> Config.
        constraints: (workload, config, device) -> sentences, empty where it can run.
        cost, schedule: (workload, config) -> closed form; schedule is None for an opaque peer.
        compilations: (workload, config) -> what the compiler is asked for, one per launch; empty for an opaque peer.
        tolerance: workload -> the largest error allowed against the reference, as max |out - ref| / max |ref|.
        save: (workload, tensors) fills the operands that are saved for this pass, where they are none of the reference's
            outputs; `launch` does so too.
        published: of an opaque peer, what it is predicted from.
    """

    info: KernelInfo
    operands: Callable[[Any], tuple[Operand, ...]]
    inputs: Callable[[Any, str, Any], Tensors]
    reference: Callable[[Any, Mapping[str, torch.Tensor], torch.Tensor | None], Tensors]
    launch: Callable[[Any, Config, Tensors], Callable[[], Tensors]]
    configure: Callable[[Any, Device], Config]
    constraints: Callable[[Any, Config, Device], list[str]]
    cost: Callable[[Any, Config], Cost]
    schedule: Callable[[Any, Config], Schedule] | None
    compilations: Callable[[Any, Config], tuple[Compilation, ...]]
    tolerance: Callable[[Any], float]
    save: Callable[[Any, Tensors], None] | None = None
    published: Blueprint | None = None

    @property
    def blueprint(self) -> Blueprint | None:
        """What it is predicted from: its own schedule, else the published one; None where there is neither."""
        if self.schedule is None:
            return self.published
        return Blueprint(
            operands=self.operands, configure=self.configure, constraints=self.constraints, cost=self.cost,
            schedule=self.schedule, tolerance=self.tolerance, source=self.info.source, save=self.save)

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def kind(self) -> type[Workload]:
        """The workloads that it takes."""
        return LinearWorkload if self.info.family == "linear" else AttentionWorkload


F = TypeVar("F", bound=Callable[..., Any])


def of_pass(forward: F, backward: F) -> F:
    """Either, as the workload says that is its first argument."""

    def chosen(workload: AttentionWorkload, *rest: Any) -> Any:
        return (forward if workload.pass_ == "forward" else backward)(workload, *rest)

    return chosen  # type: ignore[return-value]
