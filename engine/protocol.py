"""The whole contract between the engine and any front end: commands in, events out, as tagged JSON messages.

Every event about a configuration carries the `generation` of the `Configure` that asked for it, so that a late result
can be dropped. Units stand in the names; times on the wire are nanoseconds since the session began (`t_ns`).
A missing number is None, never 0.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct, field

from kernels.contract import AttentionWorkload, Config, Cost, Device, Family, Field, KernelInfo, Schedule, Workload

VERSION = 1
MOST_QUOTED = 300  # characters of a line that is no message

Provenance = Literal["measured", "modelled", "simulated", "scheduled", "published", "spec"]
PhaseName = Literal["idle", "importing", "allocating", "compiling", "warming", "checking", "measuring", "paused"]


class Preset(Struct, frozen=True, kw_only=True):
    """A model's attention shape. `layers` and `context` size its KV cache. Source: the model's published config."""

    id: str
    title: str
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    context: int
    source: str = ""


# --- commands: front end -> engine -------------------------------------------------------------------------------


class Configure(Struct, frozen=True, kw_only=True, tag=True):
    """Choose what to run. Answered by `Planned`; a run in progress goes on with the new configuration."""

    generation: int
    device: str
    workload: Workload
    kernels: tuple[str, ...]
    params: dict[str, dict[str, int]] = field(default_factory=dict)  # kernel -> parameter -> value


class Start(Struct, frozen=True, kw_only=True, tag=True):
    """Measure the configuration, alternating between its kernels, for `seconds` or until told otherwise."""

    seconds: float | None = None


class Pause(Struct, frozen=True, tag=True):
    """Stop launching, keep buffers. `Start` goes on."""


class Stop(Struct, frozen=True, tag=True):
    """Stop and free the buffers. Acknowledged at once by Phase idle; late results are dropped."""


class Shutdown(Struct, frozen=True, tag=True):
    """End the session. Answered by `Bye`."""


Command = Configure | Start | Pause | Stop | Shutdown

# --- events: engine -> front end ---------------------------------------------------------------------------------


class Hello(Struct, frozen=True, kw_only=True, tag=True):
    """The first event: what this engine has."""

    t_ns: int = 0
    version: int = VERSION
    host: str = ""
    software: dict[str, str] = field(default_factory=dict)  # python, torch, triton, driver ... as installed
    devices: tuple[Device, ...]
    kernels: tuple[KernelInfo, ...]
    fields: tuple[Field, ...]
    presets: tuple[Preset, ...]


class DeviceFound(Struct, frozen=True, kw_only=True, tag=True):
    """More is known of a device: it replaces the one of the same id in Hello."""

    t_ns: int = 0
    device: Device


class Phase(Struct, frozen=True, kw_only=True, tag=True):
    """What the engine is doing. `done` of `total` where that is countable."""

    t_ns: int = 0
    generation: int
    name: PhaseName
    kernel: str = ""
    done: int = 0
    total: int = 0


class KernelPlan(Struct, frozen=True, kw_only=True):
    """What is known of one kernel before it runs. `refused` is a sentence, and then it will not run.

    `peak_memory_bytes` is predicted for this kernel alone; `longest_seq` is the longest sequence (of decoding, the
    longest KV length) that fits the device with all else as it is (None where everything up to the field's range fits).
    """

    kernel: str
    config: Config
    cost: Cost
    schedule: Schedule | None
    peak_memory_bytes: int
    longest_seq: int | None = None
    refused: str | None = None


class Planned(Struct, frozen=True, kw_only=True, tag=True):
    """The answer to a valid `Configure`: one plan per chosen kernel. Memory is predicted for the run as a whole."""

    t_ns: int = 0
    generation: int
    device: str
    workload: Workload
    plans: tuple[KernelPlan, ...]
    peak_memory_bytes: int
    memory_bytes: int


class KernelSample(Struct, frozen=True, kw_only=True, tag=True):
    """One timing: `launches` executions back to back between one pair of clock reads, `time_ns` per execution."""

    t_ns: int = 0
    generation: int
    kernel: str
    launches: int
    time_ns: float
    provenance: Provenance = "measured"
    source: str = "CUDA events"
    l2_policy: str = "warm"


class Checked(Struct, frozen=True, kw_only=True, tag=True):
    """A kernel's output against its float64 reference: max |out - ref| / max |ref| over `rows` query rows a head."""

    t_ns: int = 0
    generation: int
    kernel: str
    ok: bool
    max_error: float
    tolerance: float
    rows: int


class DeviceSample(Struct, frozen=True, kw_only=True, tag=True):
    """The device's own counters. What it does not offer is None, and `missing` says why."""

    t_ns: int = 0
    device: str
    utilisation: float | None = None          # 0 to 1: share of time in which a kernel ran; CPU load
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    dram_utilisation: float | None = None     # 0 to 1 of peak bandwidth (GPM, Hopper and newer)
    power_w: float | None = None
    power_limit_w: float | None = None
    sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    temperature_c: float | None = None
    throttle: tuple[str, ...] | None = None   # reasons in words; empty: none
    missing: dict[str, str] = field(default_factory=dict)
    source: str = "NVML"


class MemorySample(Struct, frozen=True, kw_only=True, tag=True):
    """Who owns the device's memory: bytes by owner (`Q K V O`, `S and P`, `other`), as allocated."""

    t_ns: int = 0
    generation: int
    owners: dict[str, int]
    provenance: Provenance = "measured"
    source: str = "torch allocator"


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """A command or a kernel (where named) was refused; `reason` says what to change."""

    t_ns: int = 0
    generation: int
    reason: str
    kernel: str = ""


class Fault(Struct, frozen=True, kw_only=True, tag=True):
    """Something broke. `message` says what, `remedy` what to do; `fatal`: this engine must be restarted."""

    t_ns: int = 0
    message: str
    remedy: str
    details: str = ""
    fatal: bool = False


class Bye(Struct, frozen=True, kw_only=True, tag=True):
    """The last event."""

    t_ns: int = 0
    reason: str = ""


Event = (
    Hello | DeviceFound | Phase | Planned | KernelSample | Checked | DeviceSample | MemorySample | Refused | Fault | Bye
)

_encoder = msgspec.json.Encoder()
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


class MessageError(ValueError):
    """A line that is no message; the text is one sentence."""


def encode(message: Command | Event) -> bytes:
    """One JSON line, newline included."""
    return _encoder.encode(message) + b"\n"


def decode_event(line: bytes) -> Event:
    """Raises: MessageError where the line is no event."""
    try:
        return _events.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not an event: {_line(error)}") from error


def decode_command(line: bytes) -> Command:
    """Raises: MessageError where the line is no command."""
    try:
        return _commands.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"not a command: {_line(error)}") from error


def _line(error: Exception) -> str:
    """What an error says, on one line though it quotes what came."""
    return " ".join(str(error).split())[:MOST_QUOTED]


__all__ = [
    "VERSION",
    "AttentionWorkload",
    "Bye",
    "Checked",
    "Command",
    "Config",
    "Configure",
    "Cost",
    "Device",
    "DeviceFound",
    "DeviceSample",
    "Event",
    "Family",
    "Fault",
    "Field",
    "Hello",
    "KernelInfo",
    "KernelPlan",
    "KernelSample",
    "MemorySample",
    "MessageError",
    "Pause",
    "Phase",
    "PhaseName",
    "Planned",
    "Preset",
    "Provenance",
    "Refused",
    "Schedule",
    "Shutdown",
    "Start",
    "Stop",
    "Workload",
    "decode_command",
    "decode_event",
    "encode",
]
