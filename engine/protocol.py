"""The whole contract between the engine and any front end: commands in, events out, as tagged JSON messages.

Every event about a configuration carries the `generation` of the `Configure` that asked for it, so that a late result
can be dropped. Units stand in the names; times on the wire are nanoseconds since the session began (`t_ns`).
A missing number is None, never 0.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct, field

from engine.batching.work import BATCHES, Batching, Work
from engine.decoding import CACHES, CacheKind, Decoding, Lane, Model
from kernels.contract import AttentionWorkload, Config, Cost, Device, Family, Field, KernelInfo, Schedule, Workload

VERSION = 1
MOST_QUOTED = 300  # characters of a line that is no message

Provenance = Literal["measured", "modelled", "simulated", "scheduled", "published", "spec"]
PhaseName = Literal["idle", "importing", "allocating", "compiling", "warming", "checking", "measuring", "paused"]


# --- commands: front end -> engine -------------------------------------------------------------------------------


class Configure(Struct, frozen=True, kw_only=True, tag=True):
    """Choose what to run. Answered by `Planned`; a run in progress goes on with the new configuration."""

    generation: int
    device: str
    workload: Workload
    kernels: tuple[str, ...]
    params: dict[str, dict[str, int]] = field(default_factory=dict)  # kernel -> parameter -> value


class ConfigureDecoding(Struct, frozen=True, kw_only=True, tag=True):
    """Choose a model to decode, in lanes side by side. Answered by `DecodingPlanned`."""

    generation: int
    device: str
    decoding: Decoding


class ConfigureBatching(Struct, frozen=True, kw_only=True, tag=True):
    """Choose work to be done at many batch sizes. Answered by `BatchingPlanned`."""

    generation: int
    device: str
    batching: Batching


class Start(Struct, frozen=True, kw_only=True, tag=True):
    """Measure the configuration, alternating between its kernels, for `seconds` or until told otherwise.

    A decoding begins with the prompt, its lanes taking turns, and ends with its last token.
    """

    seconds: float | None = None


class Pause(Struct, frozen=True, tag=True):
    """Stop launching, keep buffers. `Start` goes on."""


class Stop(Struct, frozen=True, tag=True):
    """Stop and free the buffers. Acknowledged at once by Phase idle; late results are dropped."""


class Shutdown(Struct, frozen=True, tag=True):
    """End the session. Answered by `Bye`."""


Command = Configure | ConfigureDecoding | ConfigureBatching | Start | Pause | Stop | Shutdown

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
    models: tuple[Model, ...]


class DeviceFound(Struct, frozen=True, kw_only=True, tag=True):
    """A device that Hello did not name, or more of one that it did, which has the same id."""

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

    `peak_memory_bytes` is predicted for this kernel alone; `longest_seq` is the longest sequence (of decoding the longest KV
    length, of a layer the largest batch) that fits the device with all else as it is; None where all of its range fits.
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


class PredictedLaunch(Struct, frozen=True, kw_only=True):
    """One launch of a prediction: its time from its first program's start to its last one's end, and how many programs an SM
    holds, by which of its limits."""

    name: str
    time_ns: float
    per_sm: int
    limit: str


class Roof(Struct, frozen=True, kw_only=True):
    """What a GPU gives at most, by its spec: the matrix units in the workload's dtype (float32: the vector units), all
    exponential units, the L2 and HBM."""

    flops_per_s: float
    exps_per_s: float
    l2_bytes_per_s: float
    dram_bytes_per_s: float


class Predicted(Struct, frozen=True, kw_only=True, tag=True):
    """What the simulator says of a kernel of the configured device, from its schedule and the spec of that GPU; it follows
    `Planned`, of no CPU. Of a kernel without a schedule, or of a GPU without a spec, nothing is said.

    `time_ns`: of one execution, L2 warm, SMs at `clock_hz`: its launches and the gaps between them. `breakdown_ns`: what each
    unit of the SMs, the L2, HBM, waiting, launching and the tail would take by itself, of which `limiter` takes most.
    `doubts`: sentences on what lies outside of what was held against measurements. `refused`: a sentence, and then the numbers
    are None or empty.
    """

    t_ns: int = 0
    generation: int
    kernel: str
    time_ns: float | None = None
    launches: tuple[PredictedLaunch, ...] = ()
    breakdown_ns: dict[str, float] = field(default_factory=dict)
    limiter: str = ""
    dram_read_bytes: int | None = None
    dram_write_bytes: int | None = None
    l2_hit_rate: float | None = None
    clock_hz: float | None = None
    roof: Roof | None = None
    doubts: tuple[str, ...] = ()
    refused: str | None = None
    provenance: Provenance = "simulated"
    source: str = "simulator"

    @property
    def dram_bytes(self) -> int:
        """What HBM moves, read and written; 0 where it is refused."""
        return (self.dram_read_bytes or 0) + (self.dram_write_bytes or 0)


class PredictedSeries(Struct, frozen=True, kw_only=True, tag=True):
    """What the simulator says of a lane's steps at some positions, or of a kernel (`model`: the whole model) at some batch
    sizes: `at`, ascending, and the time of each. It follows the plan as `Predicted` does `Planned`.

    `limiter`: of the last. `refused`: a sentence, and then there are no numbers.
    """

    t_ns: int = 0
    generation: int
    name: str
    at: tuple[int, ...] = ()
    time_ns: tuple[float, ...] = ()
    limiter: str = ""
    refused: str | None = None
    provenance: Provenance = "simulated"
    source: str = "simulator"


class LanePlan(Struct, frozen=True, kw_only=True):
    """What is known of one lane before it runs. `refused` is a sentence, and then it will not run.

    All bytes are predicted, of this lane alone: its weights, its cache by formula at the last token and as allocated, and what
    a step takes beside them. `longest`: the tokens of a sequence that fit the device with all else as it is, `largest_batch`
    the sequences; None where everything up to the model's context, or the field's range, fits.
    """

    lane: Lane
    weights_bytes: int
    kv_bytes: int
    kv_allocated_bytes: int
    activations_bytes: int
    peak_memory_bytes: int
    longest: int | None = None
    largest_batch: int | None = None
    refused: str | None = None


class DecodingPlanned(Struct, frozen=True, kw_only=True, tag=True):
    """The answer to a valid `ConfigureDecoding`: one plan per lane. Memory is predicted for the run as a whole."""

    t_ns: int = 0
    generation: int
    device: str
    decoding: Decoding
    plans: tuple[LanePlan, ...]
    peak_memory_bytes: int
    memory_bytes: int


class DecodeSample(Struct, frozen=True, kw_only=True, tag=True):
    """Some steps of one lane between one pair of clock reads; `time_ns` of each step, which gives a token a sequence.

    `position`: tokens that each sequence holds after them. `prefill`: this was the prompt, in one step.
    `tokens`: what the first sequence was given in these steps. `kv_bytes`: by formula, of all tokens but the last, which is
    chosen but not computed; `kv_nvml_bytes`: what the device's used memory grew by when the cache was allocated.
    `step_bytes`: what a step in their middle had to read, weights and cache.
    """

    t_ns: int = 0
    generation: int
    lane: str
    position: int
    steps: int
    time_ns: float
    prefill: bool = False
    tokens: tuple[int, ...] = ()
    kv_bytes: int
    kv_allocated_bytes: int
    kv_nvml_bytes: int | None = None
    step_bytes: int
    provenance: Provenance = "measured"
    source: str = "CUDA events"


class LaneDone(Struct, frozen=True, kw_only=True, tag=True):
    """A lane has made its last token. `tokens`: the new ones of every sequence."""

    t_ns: int = 0
    generation: int
    lane: str
    tokens: tuple[tuple[int, ...], ...]
    peak_memory_bytes: int | None = None


class BatchPlan(Struct, frozen=True, kw_only=True):
    """What is known of one batch size before it runs. `programs`: of one launch of our kernel, with `rows` rows in the tile of
    each, of which only the batch's do useful work; None of a model. `refused` is a sentence, and then it will not run.
    """

    batch: int
    flops: int
    moved_bytes: int
    peak_memory_bytes: int
    programs: int | None = None
    rows: int | None = None
    refused: str | None = None


class BatchingPlanned(Struct, frozen=True, kw_only=True, tag=True):
    """The answer to a valid `ConfigureBatching`: one plan per batch size."""

    t_ns: int = 0
    generation: int
    device: str
    batching: Batching
    plans: tuple[BatchPlan, ...]
    memory_bytes: int


class Ceilings(Struct, frozen=True, kw_only=True, tag=True):
    """What the device gives at most, measured before the batches: of a plain product, 8192³ (a CPU: 1024³), and a plain sum."""

    t_ns: int = 0
    generation: int
    flops_per_s: float
    bytes_per_s: float
    provenance: Provenance = "measured"
    source: str = "CUDA events"


class BatchSample(Struct, frozen=True, kw_only=True, tag=True):
    """One timing of one batch size by one kernel (`model`: the whole model); `time_ns` per execution."""

    t_ns: int = 0
    generation: int
    kernel: str
    batch: int
    launches: int
    time_ns: float
    provenance: Provenance = "measured"
    source: str = "CUDA events"


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
    """A kernel's output against its float64 reference: max |out - ref| / max |ref| over `rows` query rows a head.

    `batch`: of which batch size, where there are several.
    """

    t_ns: int = 0
    generation: int
    kernel: str
    batch: int | None = None
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
    """Who owns the device's memory: bytes by owner, as allocated.

    Of kernels `Q K V O` or `X W Y`, `S and P`, `other`; of a decoding `weights`, `KV cache`, `activations`, `other`.
    """

    t_ns: int = 0
    generation: int
    owners: dict[str, int]
    provenance: Provenance = "measured"
    source: str = "torch allocator"


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """A command, or a kernel or a lane (where named), was refused; `reason` says what to change.

    `batch`: the one batch size of the kernel that was, where there are several.
    """

    t_ns: int = 0
    generation: int
    reason: str
    kernel: str = ""
    batch: int | None = None


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
    Hello | DeviceFound | Phase | Planned | Predicted | PredictedSeries | DecodingPlanned | BatchingPlanned | KernelSample
    | DecodeSample | LaneDone | Ceilings | BatchSample | Checked | DeviceSample | MemorySample | Refused | Fault | Bye
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
    "BATCHES", "CACHES", "VERSION", "AttentionWorkload", "BatchPlan", "BatchSample", "Batching", "BatchingPlanned", "Bye",
    "CacheKind", "Ceilings", "Checked", "Command", "Config", "Configure", "ConfigureBatching", "ConfigureDecoding", "Cost",
    "DecodeSample", "Decoding", "DecodingPlanned", "Device", "DeviceFound", "DeviceSample", "Event", "Family", "Fault", "Field",
    "Hello", "KernelInfo", "KernelPlan", "KernelSample", "Lane", "LaneDone", "LanePlan", "MemorySample", "MessageError",
    "Model", "Pause", "Phase", "PhaseName", "Planned", "Predicted", "PredictedLaunch", "PredictedSeries", "Provenance",
    "Refused", "Roof", "Schedule", "Shutdown", "Start", "Stop", "Work", "Workload", "decode_command", "decode_event", "encode",
]
