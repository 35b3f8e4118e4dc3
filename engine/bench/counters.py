"""Counts the bytes of each launch of our kernels with Nsight Compute, in a child process a row. Without torch."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from statistics import median

from msgspec import Struct

from engine.bench import watch
from engine.bench.cases import Case, Done, Order
from engine.bench.grid import Row, named
from engine.bench.hardware_bytes import Cache, KernelBytes, LaunchBytes, Result
from engine.options import BadInput
from kernels.contract import AttentionWorkload, Config, Device, KernelSpec, Workload
from kernels.contract.walk import launch_totals
from kernels.contract.workload import Pass

READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
SECTORS, HITS = "lts__t_sectors_srcunit_tex.sum", "lts__t_sectors_srcunit_tex_lookup_hit.sum"  # what the SMs asked of the L2
METRICS = (READ, WRITTEN, SECTORS, HITS)
SECTOR_BYTES = 32
L2_BYTES = 60 << 20  # of an H200
PARTS = (0.25, 1, 4)  # of it
TIMES = 5  # executions of each kernel
SECONDS = 300.0  # for one row: a start, compiling, and launches that are each played more than once


class Counted(Struct, frozen=True):
    """A launch as the counters saw it: metric -> value."""

    function: str
    metrics: dict[str, float]


def rows(only: tuple[str, ...] = ()) -> list[Row]:
    """Those of them that `only` names. Forward: three shapes of many heads, one of eight long ones, and three of a single head
    whose K and V are a quarter, all and four times of an H200's L2. Backward: as many KV heads as query heads, and one for all.
    Decoding: three shapes of many heads, and of one KV head the same three parts of the L2."""
    shapes = ((4, 16, 2048, 128, False), (4, 16, 4096, 128, True), (8, 16, 4096, 64, False), (1, 8, 65536, 128, False),
              *((1, 1, _keys(part), 128, False) for part in PARTS))
    back = (_row(4, 16, 4096, 128, True, "backward"), _row(4, 16, 4096, 128, True, "backward", kv_heads=1))
    decoding = ((4, 32, 32, 4096), (16, 32, 8, 4096), (64, 32, 8, 8192), *((1, 8, 1, _keys(part)) for part in PARTS))
    return named([*(_row(*shape) for shape in shapes), *back, *(_decoding(*shape) for shape in decoding)], only)


def _keys(part: float) -> int:
    """Of one KV head of 128 dims in bfloat16, whose K and V take that part of an H200's L2."""
    one = AttentionWorkload(batch=1, heads=1, kv_heads=1, seq=1, head_dim=128)
    return int(part * L2_BYTES) // one.kv_cache_bytes()


def _row(
    batch: int, heads: int, seq: int, head_dim: int, causal: bool, pass_: Pass = "forward", kv_heads: int = 0,
) -> Row:
    workload = AttentionWorkload(
        batch=batch, heads=heads, kv_heads=kv_heads or heads, seq=seq, head_dim=head_dim, causal=causal, pass_=pass_)
    shared = f":{kv_heads}" if kv_heads else ""
    return Row(f"{pass_} B{batch} H{heads}{shared} D{head_dim} {'causal' if causal else 'full'} N{seq}", workload, False)


def _decoding(batch: int, heads: int, kv_heads: int, keys: int) -> Row:
    """One query of each of so many sequences."""
    workload = AttentionWorkload(
        batch=batch, heads=heads, kv_heads=kv_heads, seq=1, seq_kv=keys, head_dim=128, causal=False)
    return Row(f"decode B{batch} H{heads}:{kv_heads} D128 N{keys}", workload, False)


def suited(workload: Workload, specs: Sequence[KernelSpec]) -> list[KernelSpec]:
    """Those of `specs` that a row is for: decode kernels where one query reads a cache, else the others."""
    decoding = isinstance(workload, AttentionWorkload) and workload.seq == 1
    return [spec for spec in specs if (spec.info.family == "decode") == decoding]


def run(chosen: Sequence[Row], specs: Sequence[KernelSpec], device: Device, cache: Cache) -> Iterator[Result]:
    """Counts row by row, of each the kernels of `specs` that it is for; rows without one are passed over.

    Raises:
        BadInput: ncu is missing, may not read the counters, or has not counted what was launched.
    """
    path = watch.tool("ncu")
    version = watch.version(path)
    for row in chosen:
        if not (asked := suited(row.workload, specs)):
            continue
        cases = tuple(Case(kernel=spec.id, workload=row.workload) for spec in asked)
        order = Order(device=device.id, exact=False, cases=cases, times=TIMES)
        done, counted = _counted(path, order, cache)
        kernels = []
        for spec, answer in zip(asked, done, strict=True):
            kernel, counted = _kernel(spec, row.workload, answer, counted)
            kernels.append(kernel)
        yield Result(row=row.id, device=device.name, workload=row.workload, cache=cache, tool=version, times=TIMES,
                     kernels=tuple(kernels))


def _counted(path: str, order: Order, cache: Cache) -> tuple[tuple[Done, ...], list[Counted]]:
    """Without the metrics that this ncu or this GPU does not have, but those of the DRAM."""
    metrics = list(METRICS)
    while True:
        command = [path, "--profile-from-start", "off", "--target-processes", "application-only", "--clock-control", "none",
                   "--cache-control", cache, "--csv", "--print-units", "base", "--metrics", ",".join(metrics)]
        seen = watch.watch(command, order, SECONDS)
        unknown = [name for name in metrics if _unknown(name, seen.text)]
        if not unknown or {READ, WRITTEN} & set(unknown):
            return seen.done, _understood(seen, order)
        metrics = [name for name in metrics if name not in unknown]


def _unknown(metric: str, text: str) -> bool:
    stem = re.escape(metric.removesuffix(".sum"))
    return re.search(rf"(?i)(failed to find|unknown|invalid|unsupported) metric.*{stem}", text) is not None


def _understood(seen: watch.Watched, order: Order) -> list[Counted]:
    """The launches. Raises: BadInput."""
    if "ERR_NVGPUCTRPERM" in seen.text:
        raise BadInput("ncu may not read this GPU's counters: run as root, or admit all users with the driver's option "
                       "NVreg_RestrictProfilingToAdminUsers=0")
    errors = [line.removeprefix("==ERROR==").strip() for line in seen.text.splitlines() if line.startswith("==ERROR==")]
    why = seen.late or (errors or [seen.last_line])[0] or f"exit {seen.code}"
    if len(seen.done) < len(order.cases) and (seen.done or not errors):
        raise BadInput(f"{order.cases[len(seen.done)].kernel} did not come to its end under ncu ({why}): leave it out with "
                       "--kernel")
    found = parse(seen.log)
    if not seen.done or (not found and any(not answer.refused for answer in seen.done)):
        raise BadInput(f"ncu has counted nothing ({why}): run ncu by hand on a small program, to see whether it works here")
    return found


def parse(log: str, wanted: Collection[str] = METRICS) -> list[Counted]:
    """The launches in ncu's CSV, in order; what stands before its heading, or is no line of it, is passed over."""
    heading: list[str] = []
    found: dict[int, Counted] = {}
    for line in log.splitlines():
        try:
            cells = next(csv.reader([line]), [])
        except csv.Error:
            continue
        if not heading:
            heading = cells if "ID" in cells and "Metric Name" in cells else []
            continue
        row = dict(zip(heading, cells, strict=False))
        number, metric, value = (row.get(key, "") for key in ("ID", "Metric Name", "Metric Value"))
        if metric not in wanted or not re.fullmatch(r"\d{1,9}", number, re.ASCII):
            continue
        launch = found.setdefault(int(number), Counted(row.get("Kernel Name", ""), {}))
        if re.fullmatch(r"\d[\d,]{0,29}(\.\d+)?", value, re.ASCII):  # else n/a
            launch.metrics[metric] = float(value.replace(",", ""))
    return [found[number] for number in sorted(found)]


def _kernel(
    spec: KernelSpec, workload: Workload, done: Done, counted: list[Counted]
) -> tuple[KernelBytes, list[Counted]]:
    """What a kernel's launches moved, and the launches of those that follow it."""
    if done.refused or spec.schedule is None:
        return KernelBytes(kernel=spec.id, config=done.config, refused=done.refused or "no schedule says its launches"), counted
    config = Config(params=done.config)
    schedule, cost = spec.schedule(workload, config), spec.cost(workload, config)
    count = TIMES * len(schedule.launches)
    own, rest = counted[:count], counted[count:]
    if len(own) < count or any(not {READ, WRITTEN} <= one.metrics.keys() for one in own):
        refused = "ncu has not counted the bytes of all its launches"
        return KernelBytes(kernel=spec.id, config=done.config, check=done.check, refused=refused), rest
    launches = tuple(
        _launch(launch.name, own[place :: len(schedule.launches)], launch_totals(schedule, launch).tile_bytes)
        for place, launch in enumerate(schedule.launches)
    )
    return KernelBytes(kernel=spec.id, config=done.config, launches=launches, check=done.check,
                       hbm_read_bytes=cost.hbm_read_bytes, hbm_write_bytes=cost.hbm_write_bytes), rest


def _launch(name: str, executed: Sequence[Counted], tile_bytes: int) -> LaunchBytes:
    """Of one launch, as often as it was executed."""
    counted = set(METRICS).intersection(*(one.metrics.keys() for one in executed))
    found = {metric: median(one.metrics[metric] for one in executed) for metric in counted}
    sectors, read = found.get(SECTORS), [round(one.metrics[READ]) for one in executed]
    return LaunchBytes(
        launch=name, function=executed[0].function, dram_read_bytes=round(found[READ]), dram_write_bytes=round(found[WRITTEN]),
        dram_read_range=(min(read), max(read)),
        l2_bytes=None if sectors is None else round(sectors) * SECTOR_BYTES,
        l2_hit_rate=min(1.0, found[HITS] / sectors) if sectors and HITS in found else None,  # counted in two passes
        tile_bytes=tile_bytes)
