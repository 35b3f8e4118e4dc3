"""What a user has chosen to batch: device, work and its size. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from app.batching.configuration import BatchConfiguration
from app.decoding.choice import PLAIN
from app.kind import moved
from app.what_if import device_of
from engine.options import BadInput
from engine.protocol import Batching, ConfigureBatching, Device, Hello, Model, Work
from kernels.contract.workload import DType

FIRST_MODEL = {"cuda": "gpt2", "cpu": "tiny"}
SIZES = ("width", "steps", "cached")    # the numbers; which of them means something depends on the work
MEANT: dict[Work, tuple[str, ...]] = {
    "linear": ("width", "dtype"), "rnn": ("width", "steps", "dtype"), "model": ("model", "cached", "dtype")}


class BatchChoice(Struct, frozen=True, kw_only=True):
    """`model` and what else the work does not mean are kept for when another work is chosen again."""

    device: str
    model: Model
    work: Work = "linear"
    width: int = 8192
    steps: int = 16
    cached: int = 512
    dtype: DType = "bfloat16"

    def batching(self) -> Batching:
        """What is batched. Raises: ValueError where the numbers do not go together."""
        model = self.model if self.work == "model" else None
        return Batching(work=self.work, width=self.width, steps=self.steps, model=model, cached=self.cached, dtype=self.dtype)

    def configure(self, generation: int) -> ConfigureBatching:
        """The command that runs it. Raises: ValueError."""
        return ConfigureBatching(generation=generation, device=self.device, batching=self.batching())

    def lacks(self) -> tuple[str, str] | None:
        """Nothing can be missing."""
        return None

    def changed_from(self, before: BatchChoice) -> str:
        """The name of the step from another choice to this one."""
        old, new = asdict(before), asdict(self)
        changed = [name for name in new if new[name] != old[name]]
        return changed[0] if len(changed) == 1 else "model" if before.model != self.model else "batching"

    def of_model(self, model: Model) -> BatchChoice:
        """The same with another model, whose context the cached tokens fit."""
        return replace(self, model=model, cached=min(self.cached, model.context - 1))


def of(device: str, batching: Batching) -> BatchChoice:
    """The choice that is this batching."""
    model = batching.model or PLAIN
    return BatchChoice(device=device, model=model, work=batching.work, width=batching.width, steps=batching.steps,
                       cached=batching.cached, dtype=batching.dtype)


def first_choice(device: Device, models: tuple[Model, ...]) -> BatchChoice:
    """What a device begins with: a W that no cache of it holds."""
    cpu = device.kind == "cpu"
    wanted = FIRST_MODEL["cpu" if cpu else "cuda"]
    model = next((model for model in models if model.id == wanted), models[0] if models else PLAIN)
    choice = BatchChoice(device=device.id, model=model, width=1024 if cpu else 8192, steps=4 if cpu else 16,
                         cached=128 if cpu else 512, dtype="float32" if cpu else "bfloat16")
    return choice.of_model(model)


def asked_choice(choice: BatchChoice, asked: Mapping[str, Any], models: tuple[Model, ...]) -> BatchChoice:
    """What the command line changes of a choice: work, width, steps, model, cached, dtype.

    Raises: BadInput in one sentence that says what to change.
    """
    if (name := asked.get("model")) is not None:
        model = next((model for model in models if model.id == name), None)
        if model is None:
            raise BadInput(f"there is no model {name!r}: choose {', '.join(sorted(model.id for model in models))}")
        choice = replace(choice.of_model(model), work="model")
    choice = replace(choice, **{name: asked[name] for name in ("work", "width", "steps", "cached", "dtype") if name in asked})
    for name in ("width", "steps", "model", "cached"):
        if name in asked and name not in MEANT[choice.work]:
            works = " or ".join(work for work in MEANT if name in MEANT[work])
            raise BadInput(f"--{name} means nothing to --work {choice.work}: leave it out, or choose --work {works}")
    try:
        choice.batching()
    except ValueError as error:
        raise BadInput(str(error)) from error
    return choice


def restored(shown: BatchConfiguration, hello: Hello, instead: str) -> tuple[BatchChoice, str]:
    """The choice that a picture embeds, on this engine, and a sentence on what had to differ (empty where nothing)."""
    device, sentences = moved(shown, hello, instead)
    choice = of(device, shown.batching)
    if shown.batching.model is None and hello.models:
        where = device_of(device, hello)
        choice = replace(choice, model=first_choice(where or hello.devices[0], hello.models).model)
    return choice, " ".join(sentences)


def fitted(choice: BatchChoice, hello: Hello) -> BatchChoice | None:
    """A choice kept from an earlier start, where this engine can still run it: its model may have been mended since."""
    if device_of(choice.device, hello) is None:
        return None
    model = next((model for model in hello.models if model.id == choice.model.id), choice.model)
    choice = choice.of_model(model)
    try:
        choice.batching()
    except ValueError:
        return None
    return choice
