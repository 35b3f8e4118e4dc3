"""What a user has chosen to decode: device, model, caches, how heads are shared, lengths. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import asdict, replace

from app.decoding.configuration import DecodeConfiguration
from app.kind import moved
from app.what_if import device_of
from engine.options import BadInput
from engine.protocol import CACHES, CacheKind, ConfigureDecoding, Decoding, Device, Hello, Lane, Model
from kernels.contract.workload import DType

Attention = Literal["MHA", "GQA", "MQA"]
ATTENTIONS: tuple[Attention, ...] = ("MHA", "GQA", "MQA")
CUSTOM = "custom"
FIRST = {"cuda": "gpt2", "cpu": "tiny"}
FIRST_CACHES: tuple[CacheKind, ...] = ("none", "dense")
DTYPES: tuple[DType, ...] = ("float16", "bfloat16", "float32")


class DecodeChoice(Struct, frozen=True, kw_only=True):
    """The lanes are each of `caches` with each of `attentions`; `group`: query heads to a KV head where GQA is chosen."""

    device: str
    model: Model
    caches: tuple[CacheKind, ...] = FIRST_CACHES
    attentions: tuple[Attention, ...] = ("MHA",)
    group: int = 4
    batch: int = 1
    prompt: int = 128
    new: int = 512
    dtype: DType = "float16"

    def kv_heads(self) -> tuple[int, ...]:
        """KV heads of the ticked attentions, most first, each once: GQA of all or of one head is MHA or MQA."""
        heads = self.model.heads
        found = {"MHA": heads, "GQA": heads // self.group, "MQA": 1}
        return tuple(sorted({found[attention] for attention in self.attentions}, reverse=True))

    def lanes(self) -> tuple[Lane, ...]:
        """Attention by attention, and in each the caches in their order."""
        return tuple(Lane(cache=cache, kv_heads=heads) for heads in self.kv_heads() for cache in CACHES if cache in self.caches)

    def decoding(self) -> Decoding:
        """What is decoded. Raises: ValueError where nothing is ticked, or the numbers do not go together."""
        return Decoding(model=self.model, lanes=self.lanes(), batch=self.batch, prompt=self.prompt, new=self.new,
                        dtype=self.dtype)

    def configure(self, generation: int) -> ConfigureDecoding:
        """The command that runs it. Raises: ValueError."""
        return ConfigureDecoding(generation=generation, device=self.device, decoding=self.decoding())

    def lacks(self) -> tuple[str, str] | None:
        """What must be ticked before it can run."""
        if not self.caches:
            return "No cache is chosen", "Tick at least one, be it none"
        return None if self.attentions else ("No attention is chosen", "Tick MHA, GQA or MQA")

    def changed_from(self, before: DecodeChoice) -> str:
        """The name of the step from another choice to this one."""
        if before.model != self.model:
            return "model"
        old, new = asdict(before), asdict(self)
        changed = [name for name in new if new[name] != old[name]]
        return changed[0] if len(changed) == 1 else "decoding"

    def fitting(self) -> DecodeChoice:
        """The nearest that a model can do: heads that divide, no more tokens than its context."""
        heads = self.model.heads
        group = max(n for n in range(1, min(self.group, heads) + 1) if heads % n == 0)
        prompt = min(self.prompt, self.model.context - 1)
        return replace(self, group=group, prompt=prompt, new=min(self.new, self.model.context - prompt))

    def of_model(self, model: Model) -> DecodeChoice:
        """The same with another model; GQA and its group follow the model's own heads where it has such."""
        own = attention_of(model)
        attentions = self.attentions
        if attentions == (attention_of(self.model),):  # as the model had it, and as this one has it
            attentions = (own,)
        group = model.heads // model.kv_heads if own == "GQA" else self.group
        return replace(self, model=model, attentions=attentions, group=group).fitting()


def attention_of(model: Model) -> Attention:
    """How the model itself shares K and V."""
    return "MHA" if model.kv_heads == model.heads else "MQA" if model.kv_heads == 1 else "GQA"


def of(device: str, decoding: Decoding) -> DecodeChoice:
    """The choice whose lanes are those of a decoding, or all pairs of what its lanes have."""
    heads = decoding.model.heads
    kinds = {lane.kv_heads: "MHA" if lane.kv_heads == heads else "MQA" if lane.kv_heads == 1 else "GQA"
             for lane in decoding.lanes}
    shared = [heads // kv_heads for kv_heads, kind in kinds.items() if kind == "GQA"]
    return DecodeChoice(
        device=device, model=decoding.model, batch=decoding.batch, prompt=decoding.prompt, new=decoding.new,
        caches=tuple(cache for cache in CACHES if any(lane.cache == cache for lane in decoding.lanes)),
        attentions=tuple(name for name in ATTENTIONS if name in kinds.values()),
        group=shared[0] if shared else max(n for n in range(1, 5) if heads % n == 0), dtype=decoding.dtype,
    )


def first_choice(device: Device, models: tuple[Model, ...]) -> DecodeChoice:
    """What a device begins with: a model that it decodes at once, with a cache and without."""
    cpu = device.kind == "cpu"
    wanted = FIRST["cpu" if cpu else "cuda"]
    model = next((model for model in models if model.id == wanted), models[0] if models else PLAIN)
    choice = DecodeChoice(device=device.id, model=model, attentions=(attention_of(model),),
                          prompt=16 if cpu else 128, new=192 if cpu else 512, dtype="float32" if cpu else "float16")
    return replace(choice, group=model.heads // model.kv_heads if attention_of(model) == "GQA" else choice.group).fitting()


def asked_choice(choice: DecodeChoice, asked: Mapping[str, Any], models: tuple[Model, ...]) -> DecodeChoice:
    """What the command line changes of a choice: model, caches, attentions, batch, prompt, new, dtype.

    Raises: BadInput in one sentence that says what to change.
    """
    if (name := asked.get("model")) is not None:
        model = next((model for model in models if model.id == name), None)
        if model is None:
            raise BadInput(f"there is no model {name!r}: choose {', '.join(sorted(model.id for model in models))}")
        choice = choice.of_model(model)
    changes = {name: asked[name] for name in ("caches", "attentions", "batch", "prompt", "new", "dtype") if name in asked}
    choice = replace(choice, **changes)
    if "prompt" in asked and "new" not in asked:
        choice = choice.fitting()
    try:
        choice.decoding()
    except ValueError as error:
        raise BadInput(str(error)) from error
    return choice


def restored(shown: DecodeConfiguration, hello: Hello, instead: str) -> tuple[DecodeChoice, str]:
    """The choice that a picture embeds, on this engine, and a sentence on what had to differ (empty where nothing)."""
    device, sentences = moved(shown, hello, instead)
    return of(device, shown.decoding), " ".join(sentences)


def fitted(choice: DecodeChoice, hello: Hello) -> DecodeChoice | None:
    """A choice kept from an earlier start, where this engine can still run it: its model may have been mended since."""
    if device_of(choice.device, hello) is None:
        return None
    model = next((model for model in hello.models if model.id == choice.model.id), choice.model)
    choice = replace(choice, model=model)
    try:
        choice = choice.fitting()
        replace(choice, caches=choice.caches or FIRST_CACHES, attentions=choice.attentions or ATTENTIONS).decoding()
    except ValueError:
        return None
    return choice


PLAIN = Model(
    id=CUSTOM, title="custom", heads=4, kv_heads=4, head_dim=32, layers=2, context=256, hidden=128, mlp=512, vocab=512)
