"""The command line's workload: one option for each field, `--set` for whatever else, and what a device begins with.

Shared by `python -m engine` and `python -m app`: click, msgspec and pure data only.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import click
from msgspec.structs import replace

from kernels.contract import AttentionWorkload, Device, Field, KernelInfo, LinearWorkload, Workload, fields_of

F = TypeVar("F", bound=Callable[..., Any])

FIELDS = {field.name: field for field in fields_of(AttentionWorkload)}      # each an option of its own
LAYER_FIELDS = {field.name: field for field in fields_of(LinearWorkload)}  # what is no option too is given by --set
INTERRUPTED = 130
_ATTRIBUTES = dict(zip(AttentionWorkload.__struct_encode_fields__, AttentionWorkload.__struct_fields__, strict=True))


class BadInput(click.ClickException):
    """What was typed cannot be done; the text is one sentence that says what to change."""

    exit_code = 2


def workload_options(command: F) -> F:
    """Adds an option for every field of the workload, and `--set NAME=VALUE`. The command takes them as `**options`."""
    setting = click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any workload field or kernel parameter, as block_m=64."
    )
    command = setting(command)
    for field in reversed(FIELDS.values()):
        command = _option(field)(command)
    return command


def _option(field: Field) -> Callable[[F], F]:
    flag, shown = field.name.replace("_", "-"), ", ".join(part for part in (field.title, field.help) if part)
    if field.kind == "bool":
        return click.option(f"--{flag}/--no-{flag}", field.name, default=None, help=shown)
    kind = click.Choice(field.choices) if field.kind == "choice" else _Number(field)
    return click.option(f"--{flag}", field.name, type=kind, default=None, help=shown)


class _Number(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click alone
    """A whole number within its field's range."""

    def __init__(self, field: Field) -> None:
        self.name = f"{field.lo}..{field.hi}"
        self._field = field

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        return _value(self._field, str(value))


def workload_from(options: Mapping[str, Any], base: AttentionWorkload | None = None) -> AttentionWorkload:
    """The attention that the options describe; what they leave out is as in `base`.

    Query heads given alone keep multi-head attention: the KV heads follow.

    Raises:
        BadInput: a value that its field does not take, or fields that do not go together.
    """
    base = base or AttentionWorkload()
    given = _given(options, FIELDS)
    if "heads" in given and "kv_heads" not in given and base.group == 1:
        given["kv_heads"] = given["heads"]
    try:
        return replace(base, **{_ATTRIBUTES[name]: value for name, value in given.items()})
    except ValueError as error:
        raise BadInput(str(error)) from error


def described(
    options: Mapping[str, Any], chosen: Sequence[KernelInfo], device: Device
) -> tuple[Workload, Mapping[str, Field]]:
    """The workload of these kernels' family that the options describe, and its fields. Raises: BadInput."""
    families = {info.family: info.id for info in chosen}
    if len(families) > 1:
        said = ", ".join(f"{kernel} {family}" for family, kernel in families.items())
        raise BadInput(f"these kernels compute different things ({said}): run each family by itself")
    if "linear" in families:
        return layer_from(options, default_layer(device)), LAYER_FIELDS
    return workload_from(options, default_workload(device)), FIELDS


def layer_from(options: Mapping[str, Any], base: LinearWorkload) -> LinearWorkload:
    """The linear layer that the options describe; what they leave out is as in `base`.

    Raises:
        BadInput: as `workload_from`, and what means something for attention alone.
    """
    asked = [name for name in FIELDS if options.get(name) is not None]
    asked += [name for name, _ in _settings(options) if name in FIELDS]
    if strange := next((name for name in asked if name not in LAYER_FIELDS), ""):
        raise BadInput(f"{strange.replace('_', '-')} means nothing for a linear layer: it has {', '.join(LAYER_FIELDS)}")
    try:
        return replace(base, **_given(options, LAYER_FIELDS))
    except ValueError as error:
        raise BadInput(str(error)) from error


def _given(options: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    given = {name: options[name] for name in fields if options.get(name) is not None}
    return given | {name: _value(fields[name], value) for name, value in _settings(options) if name in fields}


def params_from(
    options: Mapping[str, Any], kernels: Iterable[KernelInfo], fields: Mapping[str, Field] = FIELDS
) -> dict[str, dict[str, int]]:
    """What `--set` gives to kernels: kernel -> parameter -> value, for each of `kernels` that has the parameter.

    Args:
        fields: those of the workload, which are no parameters.

    Raises:
        BadInput: a name that is neither a field nor a parameter of one of the kernels, or a value that is no whole number.
    """
    infos = list(kernels)
    params: dict[str, dict[str, int]] = {}
    for name, value in _settings(options):
        if name in fields:
            continue
        takers = [info.id for info in infos if any(param.name == name for param in info.params)]
        if not takers:
            known = dict.fromkeys([*fields, *(param.name for info in infos for param in info.params)])
            raise BadInput(f"--set {name!r}: no such field or kernel parameter; there are {', '.join(known)}")
        for kernel in takers:
            params.setdefault(kernel, {})[name] = _whole(name, value)
    return params


def _settings(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for setting in options.get("settings") or ():
        name, equals, value = setting.partition("=")
        if not (equals and name.strip()):
            raise BadInput(f"--set {setting!r} is not NAME=VALUE: write for example --set block_m=64")
        pairs.append((name.strip().replace("-", "_"), value.strip()))
    return pairs


def _value(field: Field, text: str) -> int | str | bool:
    if field.kind == "choice":
        if text not in field.choices:
            raise BadInput(f"{field.name} cannot be {text!r}: choose {', '.join(field.choices)}")
        return text
    if field.kind == "bool":
        if text.lower() not in ("true", "false", "1", "0"):
            raise BadInput(f"{field.name} cannot be {text!r}: choose true or false")
        return text.lower() in ("true", "1")
    value = _whole(field.name, text)
    if not (field.lo or 0) <= value <= (field.hi or value):
        raise BadInput(f"{field.name} {value} is out of range: choose from {field.lo} to {field.hi}")
    return value


def _whole(name: str, text: str) -> int:
    if not (text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20):
        raise BadInput(f"{name} cannot be {text!r}: give a whole number")
    return int(text)


def default_layer(device: Device) -> LinearWorkload:
    """A layer that takes a few milliseconds on the device at most."""
    if device.kind == "cpu":
        return LinearWorkload(d_in=1024, d_out=1024, dtype="float32")
    return LinearWorkload(dtype="bfloat16" if has_bfloat16(device) else "float16")


def default_workload(device: Device) -> AttentionWorkload:
    """A shape that fits the device and whose naive launch takes a fraction of a second there."""
    if device.kind == "cpu":
        return AttentionWorkload(batch=1, heads=4, kv_heads=4, seq=1024, head_dim=64, dtype="float32")
    workload = AttentionWorkload(batch=4, heads=16, kv_heads=16, seq=4096, head_dim=128, dtype="bfloat16")
    if not has_bfloat16(device):
        workload = replace(workload, dtype="float16")
    while device.memory_bytes and 4 * _square_bytes(workload) > device.memory_bytes and workload.seq > 256:
        workload = replace(workload, seq=workload.seq // 2)
    return workload


def _square_bytes(workload: AttentionWorkload) -> int:
    """S, which naive writes."""
    return workload.batch * workload.heads * workload.seq * workload.keys * workload.itemsize


TRITON_MULTIPLIES = (8, 0)  # below it `tl.dot` is compiled to plain multiply-adds. Source: the machine code, Triton 3.7
PUBLISHED = ("eager", "flash_attn_1")   # on a simulated GPU whose matrix units Triton does not know: what is compared at first


def has_bfloat16(device: Device) -> bool:
    """Whether it multiplies bfloat16. Source: CUDA C++ programming guide, compute capability 8.0 and newer."""
    return not device.capability or device.capability >= (8, 0)


def knows_triton(device: Device) -> bool:
    """Whether Triton's products are the matrix units' there; of a real device it is for its own constraints to say."""
    return device.kind != "sim" or device.capability is None or device.capability >= TRITON_MULTIPLIES


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line to its end and leaves the process: bad input is one sentence and exit 2, Ctrl-C is exit 130."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # a terminal's encoding may lack a sign; what was typed is quoted as it was
            stream.reconfigure(errors=errors)
    try:
        code = command.main(args=arguments, standalone_mode=False) or 0
    except click.ClickException as error:
        said = error.format_message()  # click quotes what was typed, line breaks and all
        click.echo(said if isinstance(error, BadInput) else " ".join(said.split()), err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left: nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.name == "runner" for thread in threading.enumerate()):
        os._exit(code)  # it is left behind in a compile or a launch; torch aborts where the interpreter ends under it
    sys.exit(code)
