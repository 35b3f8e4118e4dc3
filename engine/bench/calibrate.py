"""Figures of a GPU's spec that a micro-benchmark can tell, each beside the spec's own. Without torch: a Bench times them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple, Protocol

from msgspec import Struct

from engine.results import TimeUs
from engine.simulator.figures import DeviceSpec, out_of_range

MIB = 1 << 20
STEPS = 32             # of the sweep through the L2, which goes from 4 of them to 40: to 1.25 times its size
FIRST, LAST = 4, 40
STRAIGHT = 12          # steps up to which reads surely come at full speed: an L2 in two parts keeps half of it twice
SLACK = 1.05           # of the straight line: what is within it is at full speed
READERS = (4, 8, 12, 16)  # programs that read each part of a quarter of the L2
RING_L2, RING_MEMORY = 1 / 16, 8  # of the L2's size
NEAR, FAR = (1 / 8, 3 / 16, 1 / 4, 5 / 16, 3 / 8), (2, 3, 4, 6, 8, 12, 16)  # of its size: reads that hit it, and that miss it
PUBLISHED = ("exps_per_clock", "vector_flops_per_clock")  # of the architecture: measured to be compared, and not taken over
NO_CLOCK = "NVML gives no clock of the SMs here"
FLAT = "reading more takes no longer: something else takes the time"


class Timed(NamedTuple):
    """A load, the quantiles of its time, and the median clock of the SMs meanwhile, in Hz; None where NVML tells none."""

    amount: float
    time: TimeUs
    clock_hz: float | None

    @property
    def rate(self) -> float:
        """Amount a second."""
        return self.amount / self.time.p50 * 1e6


class Unmeasured(RuntimeError):
    """Something cannot be timed here; the text says why."""


class Bench(Protocol):
    """What can be timed of a device."""

    sms: int

    def empty(self, programs: int) -> Timed:
        """A kernel that does nothing, after itself in a CUDA graph."""

    def host_launches(self) -> Timed:
        """A kernel that does nothing, launched again and again by PyTorch."""

    def read(self, n_bytes: int, readers: int = 1) -> Timed:
        """Reading so much again and again, each part by so many programs; how much they read together."""

    def read_memory(self) -> Timed:
        """Reading what no L2 holds, in the fastest of some shapes."""

    def copy(self) -> Timed:
        """The same of copying, by our kernel or an element-wise one of PyTorch's; bytes read and written together."""

    def write(self) -> Timed:
        """The same of writing."""

    def chase(self, n_bytes: int) -> Timed:
        """Loads of which each says where the next is, in a random ring through so many bytes."""

    def exponentials(self) -> Timed:
        """2^x in all lanes."""

    def multiply_adds(self) -> Timed:
        """Multiply-adds in float32 in all lanes; two flops each."""

    def product(self, dtype: str) -> Timed:
        """A large matrix product of PyTorch's. Raises: Unmeasured."""


class Figure(Struct, frozen=True, kw_only=True):
    """One figure as measured, in the spec's unit. `missing` is a sentence where it was not, and then there are no numbers.

    Attributes:
        low, high: what the p80 and p20 of the times give, or of a sweep the step that it is within.
        spec, difference: the spec's own, and the measured over it less 1.
        clock_hz: of the SMs meanwhile; None where NVML tells none.
        source: what was measured.
        taken: whether a measured spec has this value; else it keeps the other.
        beside: what was measured on the way, by what it is and its unit.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    spec: float
    difference: float | None = None
    clock_hz: float | None = None
    samples: int = 0
    source: str = ""
    taken: bool = False
    beside: dict[str, float] = {}
    missing: str = ""


def figures(bench: Bench, spec: DeviceSpec) -> Iterator[Figure]:
    """Measures them one after the other. `spec`: of this GPU, whose sizes, peaks and bandwidth they are shares of."""
    yield _time(spec, "launch_s", bench.host_launches(), "a kernel that does nothing, launched again and again by PyTorch")
    yield _empty(bench, spec)
    latencies = list[float]()
    for name, ring, where in (("l2_latency_s", round(RING_L2 * spec.l2_bytes), "hits the L2"),
                              ("memory_latency_s", RING_MEMORY * spec.l2_bytes, "misses it")):
        said = f"a load that says where the next is, in a random ring through {ring / MIB:.3g} MiB, and {where}"
        chased = bench.chase(ring)
        latencies.append(chased.time.p50 / chased.amount)
        yield _time(spec, name, chased, said)
    yield _ramp(bench, spec, latencies[1] - latencies[0])
    yield _l2_rate(bench, spec)
    yield _l2_share(bench, spec)
    peak = spec.bandwidth_bytes_per_s
    read, copied, written = bench.read_memory(), bench.copy(), bench.write()
    yield _rate(spec, "achievable_bandwidth", read, peak, f"a kernel that only reads has {read.rate / 1e12:.3g} TB/s")
    yield _rate(spec, "achievable_copy", copied, peak, f"a copy has {copied.rate / 1e12:.3g} TB/s, read and written together",
                {"written, TB/s": written.rate / 1e12})
    yield _per_clock(bench, spec, "exps_per_clock", bench.exponentials(), "2^x in all lanes")
    yield _per_clock(bench, spec, "vector_flops_per_clock", bench.multiply_adds(), "multiply-adds of float32 in all lanes")
    yield _matrix(bench, spec)


def _empty(bench: Bench, spec: DeviceSpec) -> Figure:
    timed = {programs: bench.empty(programs) for programs in (1, bench.sms, 10 * bench.sms, 100 * bench.sms)}
    beside = {f"{programs} programs, us": each.time.p50 for programs, each in timed.items()}
    return _time(spec, "graph_launch_s", timed[1], "an empty launch of one program in a CUDA graph", beside)


def _ramp(bench: Bench, spec: DeviceSpec, later_us: float) -> Figure:
    """By how much the line through reads that miss the L2 begins later than that through those that hit it, without the time by
    which a single load comes later."""
    near, far = ([bench.read(round(part * spec.l2_bytes)) for part in parts] for parts in (NEAR, FAR))

    def start(timed: Sequence[Timed], quantile: str) -> float:
        return line([(one.amount, getattr(one.time, quantile)) for one in timed])[0]

    low, value, high = (1e-6 * max(0.0, start(far, quantile) - start(near, quantile) - later_us)
                        for quantile in ("p20", "p50", "p80"))
    hits, misses = start(near, "p50"), start(far, "p50")
    said = (f"reads of {FAR[0]} to {FAR[-1]} times the L2 take {misses:.3g} us beside bytes over bandwidth, those that hit it "
            f"{hits:.3g} us; a load that misses comes {later_us:.2g} us later")
    beside = {"reads that hit the L2, us": hits, "reads that miss it, us": misses}
    return _figure(spec, "memory_ramp_s", far[-1], said, value, min(low, value), max(value, high), beside)


def _l2_rate(bench: Bench, spec: DeviceSpec) -> Figure:
    """Of parts that several programs read: the slope over how many, so that what a launch takes is left out."""
    n_bytes = spec.l2_bytes // 4
    timed = [bench.read(n_bytes, readers) for readers in READERS]
    slope, each = line([(one.amount, one.time.p50) for one in timed])[1], timed[-1]
    if each.clock_hz is None or slope <= 0:
        return _missing(spec, "l2_bytes_per_clock", FLAT if each.clock_hz else NO_CLOCK)
    rate = 1e6 / slope
    per_clock = rate / each.clock_hz
    said = f"{rate / 1e12:.3g} TB/s of reads of {n_bytes / MIB:.3g} MiB, each part by {READERS[0]} to {READERS[-1]} programs"
    beside = {f"{readers} readers, us": one.time.p50 for readers, one in zip(READERS, timed, strict=True)}
    return _figure(spec, "l2_bytes_per_clock", each, said, per_clock, per_clock * each.time.p50 / each.time.p80,
                   per_clock * each.time.p50 / each.time.p20, beside)


def _l2_share(bench: Bench, spec: DeviceSpec) -> Figure:
    """Where a sweep leaves the straight line through its first sizes."""
    timed = [bench.read(spec.l2_bytes * step // STEPS) for step in range(FIRST, LAST + 1)]
    points = [(one.amount, one.time.p50) for one in timed]
    straight = points[:STRAIGHT - FIRST + 1]
    start, slope = line(straight)
    if slope <= 0:
        return _missing(spec, "achievable_l2", FLAT)
    full = knee(points, start, slope)
    said = f"reads, each part by one program, come at full speed ({1 / slope / 1e6:.3g} TB/s) up to {full / MIB:.3g} MiB"
    beside = {f"{n_bytes / MIB:.4g} MiB, us": us for n_bytes, us in points}
    share, step = min(1.0, full / spec.l2_bytes), 1 / STEPS
    return _figure(spec, "achievable_l2", timed[-1], said, share, share, min(1.0, share + step), beside)


def _matrix(bench: Bench, spec: DeviceSpec) -> Figure:
    """Of the first dtype of 16 bits that the part has, with the others beside."""
    found, beside, why = dict[str, Timed](), dict[str, float](), ""
    for dtype in spec.matrix_flops_per_clock:
        try:
            found[dtype] = bench.product(dtype)
            beside[f"{dtype}, TFLOP/s"] = found[dtype].rate / 1e12
        except Unmeasured as error:
            why = why or f"{dtype}: {error}"
    main = next((dtype for dtype in ("bfloat16", "float16") if dtype in found), "")
    if not main:
        return _missing(spec, "achievable_matrix", why or "the part has no dtype of 16 bits")
    peak = (spec.peak_tflops(main) or 0.0) * 1e12  # type: ignore[arg-type]  # one that the part has
    said = f"a large {main} product of PyTorch's at {beside[f'{main}, TFLOP/s']:.4g} TFLOP/s of {peak / 1e12:.4g}"
    said += f" (without {why})" if why else ""
    return _rate(spec, "achievable_matrix", found[main], peak, said, beside)


def _time(spec: DeviceSpec, name: str, timed: Timed, said: str, beside: dict[str, float] | None = None) -> Figure:
    """The time of one of a load's amount."""
    each = 1e-6 / timed.amount
    return _figure(spec, name, timed, said, timed.time.p50 * each, timed.time.p20 * each, timed.time.p80 * each, beside)


def _rate(
    spec: DeviceSpec, name: str, timed: Timed, peak: float, said: str, beside: dict[str, float] | None = None
) -> Figure:
    """A load's amount a second, over `peak`."""
    p80, p50, p20 = (timed.amount / us * 1e6 / peak for us in (timed.time.p80, timed.time.p50, timed.time.p20))
    return _figure(spec, name, timed, said, p50, p80, p20, beside)


def _per_clock(bench: Bench, spec: DeviceSpec, name: str, timed: Timed, said: str) -> Figure:
    if timed.clock_hz is None:
        return _missing(spec, name, NO_CLOCK)
    return _rate(spec, name, timed, timed.clock_hz * bench.sms, said)


def _figure(
    spec: DeviceSpec, name: str, timed: Timed, said: str, value: float, low: float, high: float,
    beside: dict[str, float] | None = None,
) -> Figure:
    """Not taken where it is the architecture's, or nothing that a spec may say."""
    own: float = getattr(spec, name)
    return Figure(
        name=name, value=value, low=low, high=high, spec=own, difference=value / own - 1 if own else None,
        clock_hz=timed.clock_hz, samples=timed.time.n, source=said,
        taken=name not in PUBLISHED and not out_of_range(name, value), beside=beside or {})


def _missing(spec: DeviceSpec, name: str, why: str) -> Figure:
    return Figure(name=name, spec=getattr(spec, name), missing=why)


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Where a straight line through points (x, y) starts at x = 0, and its slope: medians over all pairs, so that a few points
    that are off move neither. Source: Theil 1950, Sen 1968.

    Args:
        points: two at least, no two with the same x.
    """
    slope = median((y - v) / (x - u) for i, (x, y) in enumerate(points) for u, v in points[:i])
    return median(y - slope * x for x, y in points), slope


def knee(points: Sequence[tuple[float, float]], start: float, slope: float) -> float:
    """The largest x whose y is within SLACK of the line; the smallest there is where none is."""
    return max((x for x, y in points if y <= SLACK * (start + slope * x)), default=min(x for x, _ in points))
