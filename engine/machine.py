"""What differs between a GPU and the host: clocks, streams, memory and faults. Imports torch: for the runner's thread alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from msgspec.structs import replace

from engine import memory
from kernels import execute
from kernels.contract import Config, Device, KernelSpec, Workload

Tensors = dict[str, torch.Tensor]
Run = Callable[[], Tensors]

BURST_NS = 60_000_000     # how long a kernel has the device before the next one's turn
SAMPLE_NS = 20_000_000    # of launches back to back between one pair of clock reads
GRAPH_NS = 2_000_000      # of launches in one CUDA graph
GRAPH_LAUNCHES = 200      # at most, so that capturing takes milliseconds


class Unusable(RuntimeError):
    """PyTorch cannot use a device; the text is one sentence, `remedy` another."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Timing:
    """Launches back to back between one pair of clock reads, and the time of each."""

    launches: int
    time_ns: float


class Timer(Protocol):
    """Times one kernel that is ready to run."""

    def burst(self) -> Iterator[Timing]:
        """Runs the kernel for about BURST_NS, at least once; each timing as soon as it is known."""


class Machine(Protocol):
    """A device as the runner uses it."""

    place: str    # torch's name for it
    source: str   # where its times come from

    def bind(self, spec: KernelSpec, workload: Workload, config: Config, tensors: Tensors) -> Run:
        """The kernel on these tensors. Raises: Refusal."""

    def timer(self, run: Run, first_ns: int) -> Timer:
        """A timer, warmed up. `first_ns`: what the launch took that was checked."""

    def synchronize(self) -> None:
        """Waits for what was launched."""

    def trim(self) -> None:
        """Gives memory that no tensor uses back to the device."""

    def release(self) -> None:
        """That, and what libraries keep for themselves; to be called only where nothing is left that was captured."""

    def free_bytes(self) -> int:
        """What could be allocated beside what is held."""

    def reserved_bytes(self) -> int | None:
        """What PyTorch's allocator holds; None where it keeps no account."""

    def allocated_bytes(self) -> int | None:
        """What of that belongs to tensors."""

    def peak_bytes(self) -> int | None:
        """The most that it held since `forget_peak`."""

    def forget_peak(self) -> None:
        """Begins the count of `peak_bytes` anew."""

    def used_bytes(self) -> int | None:
        """What is used of the device's memory, by whomever, as its driver says; None on the host."""

    def stamp(self) -> Any:
        """The time, once all is done that was asked for before; nothing waits."""

    def between(self, start: Any, end: Any) -> float:
        """Nanoseconds from one stamp to another, waiting for it."""

    def alive(self) -> bool:
        """Whether the device still answers after an error."""

    def out_of_memory(self, error: Exception) -> bool:
        """Whether that is what the error means."""

    def refine(self, device: Device) -> Device:
        """The device with what PyTorch knows of it."""


def open_machine(device: Device, look: Callable[[], None]) -> Machine:
    """The machine of a device. Raises: Unusable.

    Args:
        look: called between the programs of a kernel on the host, so that what it raises ends a long launch.
    """
    return CudaMachine(device) if device.kind == "cuda" else HostMachine(look)


class HostMachine:
    """This computer's processor: kernels run from their schedules, peers by themselves."""

    place = "cpu"
    source = "host clock"

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def bind(self, spec: KernelSpec, workload: Workload, config: Config, tensors: Tensors) -> Run:
        if spec.schedule:
            return execute.bind(spec, workload, config, tensors, self._look)
        return spec.launch(workload, config, tensors)

    def timer(self, run: Run, first_ns: int) -> Timer:
        return HostTimer(run, first_ns)

    def synchronize(self) -> None:
        """Nothing runs behind the caller's back."""

    def trim(self) -> None:
        """Freed memory is the system's at once."""

    def release(self) -> None:
        """Libraries keep little here."""

    def free_bytes(self) -> int:
        return memory.free_bytes(Device(id="cpu", kind="cpu", name=""), None)

    def reserved_bytes(self) -> int | None:
        return None

    def allocated_bytes(self) -> int | None:
        return None

    def peak_bytes(self) -> int | None:
        return None

    def forget_peak(self) -> None:
        """There is no account."""

    def used_bytes(self) -> int | None:
        return None

    def stamp(self) -> int:
        return time.perf_counter_ns()

    def between(self, start: int, end: int) -> float:
        return float(max(1, end - start))

    def alive(self) -> bool:
        return True

    def out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError) or "can't allocate memory" in str(error)

    def refine(self, device: Device) -> Device:
        return device


class HostTimer:
    """Reads the host's clock around enough launches. A launch so long that one is enough is a sample when it is checked."""

    def __init__(self, run: Run, first_ns: int) -> None:
        self._run = run
        self._warm = [Timing(1, float(first_ns))] if first_ns >= SAMPLE_NS else []
        once = first_ns if self._warm else self._time(1)
        few = min(100, SAMPLE_NS // 4 // once)
        self._count = max(1, SAMPLE_NS * few // self._time(few)) if few > 1 else max(1, SAMPLE_NS // once)

    def _time(self, launches: int) -> int:
        start = time.perf_counter_ns()
        for _ in range(launches):
            self._run()
        return max(1, time.perf_counter_ns() - start)

    def burst(self) -> Iterator[Timing]:
        warm, self._warm = self._warm, []
        yield from warm
        end = time.perf_counter_ns() + (0 if warm else BURST_NS)
        while not warm and time.perf_counter_ns() < end:
            yield Timing(self._count, self._time(self._count) / self._count)


class CudaMachine:
    """An NVIDIA GPU. All work of the thread goes to one stream of its own, so that any of it can be captured."""

    source = "CUDA events"

    def __init__(self, device: Device) -> None:
        if not torch.cuda.is_available():
            raise Unusable(f"PyTorch {torch.__version__} cannot use {device.id}", "`python -m engine doctor` says why.")
        self._index = _torch_index(device)
        self.place = f"cuda:{self._index}"
        torch.cuda.set_device(self._index)
        torch.cuda.set_stream(torch.cuda.Stream(self._index))  # type: ignore[no-untyped-call]  # PyTorch left it untyped
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def bind(self, spec: KernelSpec, workload: Workload, config: Config, tensors: Tensors) -> Run:
        return spec.launch(workload, config, tensors)

    def timer(self, run: Run, first_ns: int) -> Timer:  # noqa: ARG002  # which compiled the kernel
        return CudaTimer(run, self.trim)

    def synchronize(self) -> None:
        _mark().synchronize()

    def trim(self) -> None:
        torch.cuda.empty_cache()

    def release(self) -> None:
        torch._C._cuda_clearCublasWorkspaces()  # which a captured product would go on using
        self.trim()

    def free_bytes(self) -> int:
        free, _ = torch.cuda.mem_get_info(self._index)
        return max(0, free + torch.cuda.memory_reserved(self._index) - torch.cuda.memory_allocated(self._index)
                   - memory.SPARE_BYTES)

    def reserved_bytes(self) -> int | None:
        return torch.cuda.memory_reserved(self._index)

    def allocated_bytes(self) -> int | None:
        return torch.cuda.memory_allocated(self._index)

    def peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_reserved(self._index)

    def forget_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._index)

    def used_bytes(self) -> int | None:
        free, total = torch.cuda.mem_get_info(self._index)
        return total - free

    def stamp(self) -> torch.cuda.Event:
        return _mark()

    def between(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return float(start.elapsed_time(end) * 1e6)

    def alive(self) -> bool:
        try:
            torch.cuda.synchronize(self._index)
        except RuntimeError:
            return False
        return True

    def out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, torch.OutOfMemoryError)

    def refine(self, device: Device) -> Device:
        found = torch.cuda.get_device_properties(self._index)
        return replace(
            device, sms=found.multi_processor_count, capability=(found.major, found.minor),
            sram_bytes_per_block=getattr(found, "shared_memory_per_block_optin", device.sram_bytes_per_block),
            l2_bytes=found.L2_cache_size,
            memory_bytes=device.memory_bytes or found.total_memory,
        )


def _torch_index(device: Device) -> int:
    """CUDA's number of a device: NVML may count differently, so it is known by its UUID."""
    for index in range(torch.cuda.device_count()):
        if device.uuid and str(torch.cuda.get_device_properties(index).uuid) in device.uuid:
            return index
    number = int(device.id.partition(":")[2] or 0)
    if device.uuid or number >= torch.cuda.device_count():
        raise Unusable(f"PyTorch does not see {device.id} ({device.name})", "Look at CUDA_VISIBLE_DEVICES.")
    return number


def _mark() -> torch.cuda.Event:
    """The time on the stream, now. Waiting for it neither spins nor holds the interpreter's lock."""
    event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]  # PyTorch left it untyped
    event.record()
    return event


class CudaTimer:
    """Reads CUDA events around replays of a graph of launches, or around plain launches where capture does not work."""

    def __init__(self, run: Run, trim: Callable[[], None]) -> None:
        once = self._time(run, 1)
        estimate = self._time(run, max(1, min(50, int(GRAPH_NS / once))))
        trim()
        self._per_replay = max(1, min(GRAPH_LAUNCHES, math.ceil(GRAPH_NS / estimate)))
        graph = _capture(run, self._per_replay)
        self._kept = run, graph  # whose memory the captured launches use: a mask, what autograd saved, outputs
        self._replay: Callable[[], object] = graph.replay if graph else run
        self._per_replay = self._per_replay if graph else 1
        self._replays = max(1, round(SAMPLE_NS / (estimate * self._per_replay)))
        self._samples = max(1, round(BURST_NS / (estimate * self._per_replay * self._replays)))

    def burst(self) -> Iterator[Timing]:
        """One sample is always queued behind the one that is waited for, so that the device never waits for the host."""
        self._replay()  # what runs while the first mark is made
        marks = [_mark()]
        for number in range(self._samples + 1):
            if number < self._samples:
                for _ in range(self._replays):
                    self._replay()
                marks.append(_mark())
            if number:
                yield self._between(marks[number - 1], marks[number])

    def _between(self, start: torch.cuda.Event, end: torch.cuda.Event) -> Timing:
        end.synchronize()
        launches = self._replays * self._per_replay
        return Timing(launches, start.elapsed_time(end) * 1e6 / launches)

    def _time(self, run: Run, launches: int) -> float:
        start = _mark()
        for _ in range(launches):
            run()
        end = _mark()
        end.synchronize()
        return float(max(start.elapsed_time(end) * 1e6 / launches, 100.0))


def _capture(run: Run, launches: int) -> torch.cuda.CUDAGraph | None:
    """A graph of so many launches; None where one of them cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    try:
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            for _ in range(launches):
                run()
        finally:
            graph.capture_end()
    except Exception:  # plain launches remain, and tell what is wrong if more than the capture is
        torch.cuda.synchronize()
        return None
    return graph
