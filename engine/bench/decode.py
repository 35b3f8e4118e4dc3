"""The decode bench: one query token a sequence over 15 caches, kernels and peers in turns, each output checked whole.

Samples are graph replays of some milliseconds between CUDA events, as the attention bench takes them. The L2 is warm: a cache
smaller than it is read from there. Speed is what the cost says is read of the cache, over the median time. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import geometric_mean

from msgspec import Struct

from engine.bench.ceilings import read_ceiling
from engine.bench.contenders import Contender, ready, take_turns
from engine.bench.grid import Row, named
from engine.buffers import Pool
from engine.machine import Machine, open_machine
from engine.results import Check, TimeUs, time_us
from kernels.contract import AttentionWorkload, Config, Device, KernelSpec, Workload

HEADS, HEAD_DIM = 32, 128
SHARING = {"MHA": 32, "GQA": 8, "MQA": 1}  # KV heads
CACHES = ((1, 4096), (1, 65536), (16, 4096), (16, 32768), (64, 8192))  # sequences and tokens of each
LARGE_BYTES = 1_000_000_000  # a cache that no L2 holds a part of worth naming
NOT_CACHE = ("Q", "O", "O_part", "lse_part")
BESIDE = "split_kv"  # what kernels of smaller caches are compared with


class Entry(Struct, frozen=True, kw_only=True):
    """One kernel in one row. `cache_bytes`: what is read of K and V. `refused` is a sentence, and then there are no numbers."""

    kernel: str
    role: str
    config: dict[str, int]
    cache_bytes: int
    time_us: TimeUs | None = None
    tb_per_s: float | None = None
    of_best_peer: float | None = None
    of_ceiling: float | None = None
    over_split_kv: float | None = None
    check: Check | None = None
    refused: str | None = None


class Result(Struct, frozen=True, kw_only=True):
    """One row. `ceiling_tb_per_s`: of a plain kernel that only reads, in the same run."""

    row: str
    device: str
    workload: AttentionWorkload
    entries: tuple[Entry, ...]
    ceiling_tb_per_s: float
    l2_policy: str = "warm"


def rows(only: tuple[str, ...] = ()) -> list[Row]:
    """The 15 caches of 32 query heads, head dim 128, in bfloat16; or those that `only` names."""
    return named([
        Row(f"{sharing} B{batch} N{tokens}", AttentionWorkload(
            batch=batch, heads=HEADS, kv_heads=kv_heads, seq=1, seq_kv=tokens, head_dim=HEAD_DIM, causal=False), True)
        for sharing, kv_heads in SHARING.items() for batch, tokens in CACHES], only)


def run(
    chosen: Iterable[Row], specs: Sequence[KernelSpec], device: Device, seconds: float,
    params: Mapping[str, Mapping[str, int]],
) -> Iterator[Result]:
    """Measures row by row. `seconds`: for each kernel, once it is ready. `params`: kernel -> parameter -> value.

    Raises:
        Unusable: PyTorch cannot use the device.
        PlanError: a parameter that a kernel does not have.
    """
    machine = open_machine(device, lambda: None)
    device = machine.refine(device)
    ceiling = read_ceiling(machine)
    machine.trim()
    pool = Pool(machine.place)
    for row in chosen:
        yield _measure(row, specs, device, machine, pool, seconds, params, ceiling)
        machine.trim()


def _measure(
    row: Row, specs: Sequence[KernelSpec], device: Device, machine: Machine, pool: Pool, seconds: float,
    params: Mapping[str, Mapping[str, int]], ceiling: float,
) -> Result:
    workload = row.workload
    contenders, lack = ready(specs, workload, device, machine, pool, params)
    good = [contender for contender in contenders if contender.check.ok]
    take_turns(good, seconds)
    times = {c.spec.id: time_us(c.times_ns).p50 for c in good}
    peer = min((times[c.spec.id] for c in good if c.spec.info.role == "peer"), default=None)
    found = {c.spec.id: _timed(c, workload, peer, times.get(BESIDE), ceiling) for c in contenders}
    found |= {spec.id: _entry(spec, workload, lack[spec.id][0], refused=lack[spec.id][1]) for spec in specs if spec.id in lack}
    return Result(row=row.id, device=device.name, workload=workload, ceiling_tb_per_s=ceiling / 1e12,
                  entries=tuple(found[spec.id] for spec in specs))


def _timed(
    contender: Contender, workload: Workload, peer: float | None, beside: float | None, ceiling: float
) -> Entry:
    if not contender.check.ok:
        return _entry(contender.spec, workload, contender.config, check=contender.check, refused="its output is wrong")
    times = time_us(contender.times_ns)
    rate = _cache_bytes(contender.spec, workload, contender.config) / times.p50 * 1e6
    return _entry(
        contender.spec, workload, contender.config, check=contender.check, time_us=times, tb_per_s=rate / 1e12,
        of_best_peer=peer / times.p50 if peer else None, of_ceiling=rate / ceiling,
        over_split_kv=beside / times.p50 if beside else None)


def _entry(spec: KernelSpec, workload: Workload, config: Config, **found: object) -> Entry:
    return Entry(kernel=spec.id, role=spec.info.role, config=config.params,
                 cache_bytes=_cache_bytes(spec, workload, config), **found)  # type: ignore[arg-type]


def _cache_bytes(spec: KernelSpec, workload: Workload, config: Config) -> int:
    """What the cost says is read of K and V, their scales and their tables."""
    return sum(moved.read for name, moved in spec.cost(workload, config).hbm.items() if name not in NOT_CACHE)


def brief(result: Result) -> str:
    """A row in a line: TB/s and time of each kernel, or that it was refused or failed its check."""
    return ", ".join(f"{entry.kernel} {_cell(entry)}" for entry in result.entries)


def _cell(entry: Entry) -> str:
    if entry.tb_per_s is None or entry.time_us is None:
        return "WRONG" if entry.check and not entry.check.ok else "refused"
    spread = (entry.time_us.p80 - entry.time_us.p20) / 2
    return f"{entry.tb_per_s:.2f} ({entry.time_us.p50:.1f} ± {spread:.1f} µs)"


def exact(entry: Entry, workload: AttentionWorkload) -> bool:
    """Whether the cache is in the workload's own precision."""
    return entry.cache_bytes >= workload.kv_cache_bytes()


def best_of(result: Result) -> Entry | None:
    """The fastest of ours in a row, of a cache in the workload's own precision."""
    timed = [entry for entry in result.entries if entry.role != "peer" and entry.time_us and exact(entry, result.workload)]
    return min(timed, key=lambda entry: entry.time_us.p50 if entry.time_us else 0.0, default=None)


def table(results: Sequence[Result]) -> str:
    """The results as a table in Markdown: TB/s of the cache, the best of ours over the best peer and over what can be read, and
    what smaller caches gain."""
    kernels = list(dict.fromkeys(entry.kernel for result in results for entry in result.entries))
    lines = ["| cache | " + " | ".join(kernels) + " | ours / best peer | of ceiling |", "|---" * (len(kernels) + 3) + "|"]
    for result in results:
        cells, ours = {entry.kernel: _cell(entry) for entry in result.entries}, best_of(result)
        ratios = (ours.of_best_peer, ours.of_ceiling) if ours else (None, None)
        shown = ["n/a" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        lines.append(" | ".join(["| " + result.row, *(cells.get(kernel, "n/a") for kernel in kernels), *shown]) + " |")
    return "\n".join([*lines, "", *_means(results)])


def _means(results: Sequence[Result]) -> list[str]:
    said = [f"TB/s of K and V, median and half of p20 to p80; L2 {policy}; a plain kernel reads {ceiling:.2f} TB/s"
            for policy, ceiling in dict.fromkeys((result.l2_policy, result.ceiling_tb_per_s) for result in results)]
    ratios = [ours.of_best_peer for result in results if (ours := best_of(result)) and ours.of_best_peer]
    if ratios:
        said.append(f"best of ours over the best peer: geometric mean {geometric_mean(ratios):.3f}, least {min(ratios):.3f}, "
                    f"over {len(ratios)} caches")
    gains: dict[str, list[float]] = {}
    for result in results:
        for entry in result.entries:
            large = result.workload.kv_cache_bytes() >= LARGE_BYTES
            if large and entry.over_split_kv and entry.role != "peer" and not exact(entry, result.workload):
                gains.setdefault(entry.kernel, []).append(entry.over_split_kv)
    return said + [f"{kernel} over {BESIDE}, caches of 1 GB or more: {min(gain):.2f} to {max(gain):.2f} times the speed"
                   for kernel, gain in gains.items()]
