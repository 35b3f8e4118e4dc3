"""Workloads: what is to be computed, apart from how. A field declares its range once; forms and messages follow."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct

PAGE = 16  # tokens of one page of a paged cache, as vLLM has them
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}

DType = Literal["float16", "bfloat16", "float32"]
Pass = Literal["forward", "backward"]


def _meta(title: str, lo: int, hi: int, steps: tuple[int, ...], unit: str = "", help: str = "", zero: str = "") -> Meta:
    return Meta(ge=lo, le=hi, title=title, description=help, extra={"steps": steps, "unit": unit, "zero": zero})


class AttentionWorkload(Struct, frozen=True, kw_only=True, tag="attention", rename={"pass_": "pass"}):
    """softmax(Q K^T / sqrt(D)) V with Q [B, H_q, N_q, D] and K, V [B, H_kv, N_kv, D].

    `seq_kv` 0 means as long as `seq`; `window` 0 means none, else query i sees the last `window` of its keys.
    Causal is aligned at the end: query i sees keys up to i + N_kv - N_q.

    Raises:
        ValueError: query heads are not a multiple of KV heads, or head_dim not of 8.
    """

    LENGTH: ClassVar[str] = "seq"  # the field that is shortened first where memory lacks
    SHORTER: ClassVar[str] = "a shorter sequence"
    SMALLER: ClassVar[str] = "a smaller batch or fewer heads"  # where no length fits

    batch: Annotated[int, _meta("Batch", 1, 4096, (1, 2, 4, 8, 16, 32, 64, 128), help="sequences at once")] = 4
    seq: Annotated[int, _meta("Sequence", 1, 1 << 20, (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
                              "tokens", "queries in each sequence")] = 4096
    seq_kv: Annotated[int, _meta("KV length", 0, 1 << 20, (0, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
                                 "tokens", "keys and values; 0: as many as queries", zero="same")] = 0
    heads: Annotated[int, _meta("Query heads", 1, 1024, (1, 2, 4, 8, 12, 16, 20, 24, 25, 32, 40, 48, 64, 96, 128))] = 16
    kv_heads: Annotated[int, _meta("KV heads", 1, 1024, (1, 2, 4, 8, 12, 16, 20, 24, 25, 32, 40, 48, 64, 96, 128),
                                   help="as many as query heads: MHA; fewer: GQA; one: MQA")] = 16
    head_dim: Annotated[int, _meta("Head dim", 8, 256, (32, 64, 96, 128, 192, 256))] = 128
    dtype: Annotated[DType, Meta(title="Data type")] = "bfloat16"
    causal: Annotated[bool, Meta(title="Causal", description="a query sees no later key")] = True
    window: Annotated[int, _meta("Window", 0, 1 << 20, (0, 128, 256, 512, 1024, 2048, 4096, 8192), "tokens",
                                 "keys that a query sees, itself included; 0: all", zero="all")] = 0
    pass_: Annotated[Pass, Meta(title="Pass", description="backward excludes the forward pass")] = "forward"

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv-heads {self.kv_heads}: choose one that divides it")
        if self.head_dim % 8:
            raise ValueError(f"head-dim {self.head_dim} is not a multiple of 8: choose 32, 64, 96, 128, 192 or 256")
        if self.window and not self.causal:
            raise ValueError(f"window {self.window} needs causal: a window counts back from the query's own position")

    @property
    def keys(self) -> int:
        """N_kv."""
        return self.seq_kv or self.seq

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.heads // self.kv_heads

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return ITEMSIZE[self.dtype]

    @property
    def sharing(self) -> str:
        """MHA, GQA or MQA."""
        return "MHA" if self.group == 1 else "MQA" if self.kv_heads == 1 else "GQA"

    @property
    def pairs(self) -> int:
        """Visible (query, key) pairs of one head. Source: the mask's definition, summed over rows."""
        if not self.causal:
            return self.seq * self.keys
        shift = self.keys - self.seq
        first = max(0, -shift)  # the first query that sees a key
        last_row = self.seq - 1 + shift
        if last_row < 0:
            return 0
        rows = self.seq - first
        start = first + shift + 1  # keys that the first such query sees
        total = rows * (start + last_row + 1) // 2
        if self.window:  # rows that see more than the window lose the excess
            over = max(0, last_row + 1 - self.window)
            if over:
                least = max(1, start - self.window)
                total -= (least + over) * (over - least + 1) // 2
        return total

    @property
    def nominal_flops(self) -> int:
        """4 B H_q D pairs; backward 2.5 times that. Source: Dao 2023, with pairs counted exactly."""
        forward = 4 * self.batch * self.heads * self.head_dim * self.pairs
        return forward if self.pass_ == "forward" else forward * 5 // 2

    def kv_cache_bytes(self, kv_heads: int | None = None, layers: int = 1) -> int:
        """2 B n H_kv D layers itemsize: K and V of every token. Source: the definition in GLOSSARY.md."""
        heads = self.kv_heads if kv_heads is None else kv_heads
        return 2 * self.batch * self.keys * heads * self.head_dim * layers * self.itemsize


class LinearWorkload(Struct, frozen=True, kw_only=True, tag="linear"):
    """Y = X W^T with X [B, d_in] and W [d_out, d_in]: a linear layer.

    `repeat` R > 1 is a recurrent network's step made R times with the same W, h_t = tanh(h_{t-1} W^T / sqrt(d_in)) from
    h_0 = X to Y = h_R, each a launch of its own. Its scale keeps a random W from saturating the tanh, as attention's does
    the softmax.

    Raises:
        ValueError: a repeated step whose outputs cannot be its inputs.
    """

    LENGTH: ClassVar[str] = "batch"
    SHORTER: ClassVar[str] = "a smaller batch"
    SMALLER: ClassVar[str] = "fewer inputs or outputs"
    pass_: ClassVar[Pass] = "forward"

    batch: Annotated[int, _meta("Batch", 1, 4096, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), "rows", "rows of X")] = 8
    d_in: Annotated[int, _meta("Inputs", 1, 1 << 17, (768, 1024, 2048, 4096, 8192, 14336, 16384), help="columns of X")] = 4096
    d_out: Annotated[int, _meta("Outputs", 1, 1 << 17, (768, 1024, 2048, 4096, 8192, 14336, 16384, 50257),
                                help="columns of Y")] = 4096
    repeat: Annotated[int, _meta("Steps", 1, 256, (1, 4, 16, 64, 256),
                                 help="1: a linear layer; more: steps of a recurrent network")] = 1
    dtype: Annotated[DType, Meta(title="Data type")] = "bfloat16"

    def __post_init__(self) -> None:
        if self.repeat > 1 and self.d_in != self.d_out:
            raise ValueError(
                f"repeat {self.repeat} feeds {self.d_out} outputs to {self.d_in} inputs: make d_in and d_out the same")

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return ITEMSIZE[self.dtype]

    @property
    def nominal_flops(self) -> int:
        """2 B d_in d_out R."""
        return 2 * self.batch * self.d_in * self.d_out * self.repeat


Workload = AttentionWorkload | LinearWorkload
KINDS: tuple[type[Workload], ...] = (AttentionWorkload, LinearWorkload)


class Field(Struct, frozen=True, kw_only=True):
    """One field of a workload as a form shows it. `name` is the wire's and the command line's; `zero` is what 0 means."""

    name: str
    title: str
    kind: Literal["int", "choice", "bool"]
    default: int | str | bool
    unit: str = ""
    help: str = ""
    lo: int | None = None
    hi: int | None = None
    steps: tuple[int, ...] = ()
    zero: str = ""
    choices: tuple[str, ...] = ()


def fields_of(workload: type[Workload]) -> tuple[Field, ...]:
    """The fields of a workload, read from their annotations, in order."""
    hints = get_type_hints(workload, include_extras=True)
    return tuple(
        _field(wire, hints[name], default)
        for name, wire, default in zip(
            workload.__struct_fields__, workload.__struct_encode_fields__, workload.__struct_defaults__, strict=True
        )
    )


def _field(name: str, hint: Any, default: Any) -> Field:
    base, meta = get_args(hint)
    extra = meta.extra or {}
    choices = get_args(base) if get_origin(base) is Literal else ()
    return Field(
        name=name, title=meta.title, default=default, help=meta.description or "", lo=meta.ge, hi=meta.le,
        kind="choice" if choices else "bool" if base is bool else "int",
        unit=extra.get("unit", ""), steps=extra.get("steps", ()), zero=extra.get("zero", ""), choices=choices,
    )
