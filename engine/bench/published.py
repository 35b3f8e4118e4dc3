"""Tables of measured and published figures as data: assets/published/*.toml, one file a table. Without torch.

A row is what `common` says and what it says itself: a kernel, the fields of its workload, a value. Of a whole model (family
`decoding`) the kernel is who decodes, ours or transformers. Fields that are lists stand for as many rows, one of each list; a
value may be a text that says why there is none.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.bench import whole_models
from engine.bench.grid import PASSES
from engine.bench.whole_models import Generation
from engine.simulator import spec
from engine.simulator.reading import plain
from kernels.contract import AttentionWorkload, LinearWorkload, Workload

Unit = Literal["tflops", "us", "ms", "gb", "gb_read", "s", "tokens_per_s"]
Passes = Literal["forward", "backward", "forward+backward"]

MOST = 1 << 12  # rows of a table
_DATE = re.compile(r"\d{4}(-\d{2}){0,2}")
_FAMILIES: dict[str, type[Workload | Generation]] = {
    "attention": AttentionWorkload, "linear": LinearWorkload, "decoding": Generation}
_OWN = ("family", "kernel", "passes", "params", "value", "chosen_from", "clock_mhz")  # of a row, beside its workload


class TableError(ValueError):
    """A table is wrong; the text is one sentence that names the file, the field and the reason."""


class Row(Struct, frozen=True, kw_only=True):
    """One figure.

    Attributes:
        workload: of the forward pass, `workloads` those of its passes; or a run of a whole model.
        params: of the kernel, where they are not what it chooses.
        value: in the table's unit; a text where there is none.
        chosen_from: a constant of the simulator was chosen from it, so that it proves nothing.
        clock_mhz: of the SMs, where it is not the table's.
    """

    kernel: str
    workload: Workload | Generation
    value: float | str
    passes: Passes = "forward"
    params: dict[str, int] = {}
    chosen_from: bool = False
    clock_mhz: float | None = None

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """One for each of its passes; none of a whole model."""
        workload = self.workload
        if isinstance(workload, Generation):
            return ()
        if isinstance(workload, LinearWorkload):
            return (workload,)
        return tuple(replace(workload, pass_=one) for one in PASSES if one in self.passes.split("+"))

    @property
    def name(self) -> str:
        """By which `--only` finds it, with the table's id before it."""
        if isinstance(self.workload, Generation):
            return f"{self.kernel} {self.workload.name}"
        return f"{self.kernel} {self.passes} {_shape(self.workload)}"


class Table(Struct, frozen=True, kw_only=True):
    """Figures of one source.

    Attributes:
        origin: published by others, or measured here by `command`.
        device: the id of a simulated GPU.
        clock_mhz: of the SMs, where the source says it.
        unit: gb is 1e9 bytes of HBM, read and written; gb_read those read. Of whole models s is of a run with its prompt,
            tokens_per_s of its median step, ms of one step behind the prompt.
        cold: the L2 holds nothing of the operands when a kernel begins.
        causal_flops: whether the source counts the visible pairs, or half of all.
        aims: by kernel, the mean absolute error in per cent that is to be reached.
    """

    id: str
    title: str
    origin: Literal["published", "measured"]
    source: str
    device: str
    unit: Unit
    rows: tuple[Row, ...]
    date: str = ""
    command: str = ""
    clock_mhz: float | None = None
    cold: bool = False
    causal_flops: Literal["pairs", "half"] = "pairs"
    aims: dict[str, float] = {}
    note: str = ""


_FIELDS = {name: kind for name, kind in get_type_hints(Table).items() if name not in ("id", "rows")}
_FIELDS |= {"common": dict[str, Any], "rows": list[dict[str, Any]]}
_REQUIRED = ("title", "origin", "source", "device", "unit", "rows")


def load(folder: Traversable | None = None) -> tuple[Table, ...]:
    """Every table of a folder, or of the program's own: those of others first, by id. Raises: TableError."""
    paths = [path for path in (folder or files("assets") / "published").iterdir() if path.name.endswith(".toml")]
    found = [read(path) for path in sorted(paths, key=lambda path: path.name)]
    return tuple(sorted(found, key=lambda table: table.origin != "published"))


def read(path: Traversable) -> Table:
    """The table in a file. Raises: TableError, `FILE: FIELD: reason`."""
    try:
        return _table(tomllib.loads(path.read_text(encoding="utf-8")), path.name.removesuffix(".toml"))
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or of a field
        reason = plain(str(error))
    raise TableError(f"{plain(path.name)}: {reason}")


def _table(values: Mapping[str, Any], id: str) -> Table:
    """Raises: TableError, `FIELD: reason`."""
    if unknown := sorted(values.keys() - _FIELDS.keys()):
        raise TableError(f"{unknown[0]}: there is no such field")
    if missing := [name for name in _REQUIRED if name not in values]:
        raise TableError(f"{missing[0]}: it is missing")
    fields = {name: _of_type(name, value, _FIELDS[name]) for name, value in values.items()}
    common, rows = fields.pop("common", {}), fields.pop("rows")
    found = [row for number, own in enumerate(rows) for row in _rows(f"rows[{number}]", common | own)]
    table = Table(id=id, rows=tuple(found[: MOST + 1]), **fields)
    for name, reason in _wrong(table):
        raise TableError(f"{name}: {reason}")
    return table


def _of_type(name: str, value: Any, kind: Any) -> Any:
    """Raises: TableError."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, at = str(error).partition(" - at `$")
        raise TableError(f"{name}{at.removesuffix('`')}: {said[:1].lower()}{said[1:]}") from error


def _wrong(table: Table) -> Iterable[tuple[str, str]]:
    """Field and reason for whatever cannot be."""
    for name in ("title", "source", "note", "command"):
        text = getattr(table, name)
        if not text.isprintable() or not (text.strip() or name in ("note", "command")):
            yield name, "it must be one line of text"
    if table.date and not _DATE.fullmatch(table.date):
        yield "date", f"{table.date!r} is none: write 2024-07-11, 2024-07 or 2024"
    if table.origin == "measured" and not (table.command and table.date):
        yield "command" if not table.command else "date", "what was measured needs it"
    for clock in (table.clock_mhz, *(row.clock_mhz for row in table.rows)):
        if clock is not None and not 100 <= clock <= 20_000:  # NaN is refused too
            yield "clock_mhz", f"{clock:g} is out of range: choose from 100 to 20,000"
            break
    try:
        spec.resolve(table.device)
    except spec.SpecError as error:
        yield "device", str(error)
    if not 0 < len(table.rows) <= MOST:
        yield "rows", f"there must be 1 to {MOST:,}"
    for row in table.rows:
        whole = isinstance(row.workload, Generation)
        if table.unit not in whole_models.UNITS if whole else table.unit in ("s", "tokens_per_s"):
            yield "unit", f"{table.unit} is none of {'a whole model' if whole else 'a kernel'}"
            break
    kernels = {row.kernel for row in table.rows}
    for kernel, aim in table.aims.items():
        if kernel not in kernels:
            yield "aims", f"no row is of {kernel!r}"
        if not 0 < aim <= 1000:
            yield "aims", f"{aim:g} is out of range: choose from 0 to 1,000"


def _rows(where: str, values: Mapping[str, Any]) -> Iterable[Row]:
    """The rows that one entry stands for. Raises: TableError."""
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    counts = {name: len(value) for name, value in lists.items()}
    if len(set(counts.values())) > 1:
        lengths = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise TableError(f"{where}: lists must be of one length: {lengths}")
    if lists and "value" in values and "value" not in lists:
        raise TableError(f"{where}.value: give one for each of {next(iter(lists))}")
    for number in range(next(iter(counts.values()), 1)):
        yield _row(where, {name: value[number] if name in lists else value for name, value in values.items()})


def _row(where: str, values: Mapping[str, Any]) -> Row:
    """Raises: TableError."""
    if missing := [name for name in ("kernel", "value") if name not in values]:
        raise TableError(f"{where}.{missing[0]}: it is missing")
    family = values.get("family", "attention")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise TableError(f"{where}.family: choose from {', '.join(_FAMILIES)}")
    kind = _FAMILIES[family]
    fields = {name: value for name, value in values.items() if name not in _OWN}
    if strange := sorted(fields.keys() - set(kind.__struct_encode_fields__) | fields.keys() & {"pass"}):
        raise TableError(f"{where}.{strange[0]}: there is no such field")
    row: Row = _of_type(where, {name: values[name] for name in _OWN[1:] if name in values}
                        | {"workload": {"type": family, **fields}}, Row)
    if row.passes != "forward" and not isinstance(row.workload, AttentionWorkload):
        raise TableError(f"{where}.passes: {'a linear layer' if family == 'linear' else 'decoding'} has a forward pass alone")
    if not row.kernel.strip() or not row.kernel.isprintable():
        raise TableError(f"{where}.kernel: it must be the id of a kernel")
    if isinstance(row.value, str) and not (row.value.strip() and row.value.isprintable()):
        raise TableError(f"{where}.value: a text must be one line that says why there is no number")
    if isinstance(row.value, float) and not 0 < row.value < math.inf:
        raise TableError(f"{where}.value: {row.value:g} is out of range: choose a number above 0")
    return row


def _shape(workload: Workload) -> str:
    """As the benches name rows, with what they leave out."""
    if isinstance(workload, LinearWorkload):
        return f"d{workload.d_in} B{workload.batch}" if workload.d_in == workload.d_out else (
            f"d{workload.d_in}x{workload.d_out} B{workload.batch}")
    w = workload
    if w.seq == 1:
        return f"{w.sharing} D{w.head_dim} B{w.batch} N{w.keys}"
    heads = f"H{w.heads}" if w.group == 1 else f"H{w.heads}:{w.kv_heads}"
    length = f"N{w.seq}" if w.keys == w.seq else f"N{w.seq}x{w.keys}"
    return f"D{w.head_dim} {'causal' if w.causal else 'full'} B{w.batch} {heads} {length}"
