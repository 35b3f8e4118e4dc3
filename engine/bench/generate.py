"""The generation bench: whole models decoded token by token, as often as asked, with the cache and without. Imports torch.

The first rows are the published experiment: GPT-2, ten runs of a thousand tokens, on a T4, whose figures are printed beside.
A run is the prompt and every step, host and all, as a user waits for it; weights are random, for speed does not hang on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import mean, median, stdev
from typing import Any, NamedTuple

import torch
from msgspec import Struct

from engine.bench.ceilings import read_ceiling
from engine.decoding import CacheKind, Decoding, Lane, Model
from engine.machine import Machine, open_machine
from engine.models.decoder import Decoder
from engine.models.generate import Generation
from engine.models.ops_for import ops_for
from engine.models.plan import peak_bytes
from engine.models.weights import random_weights
from kernels.contract import Device
from kernels.contract.workload import DType

FIT_FROM = 64            # tokens from which the growth of a step's time is fitted
SAMPLE = 8               # steps between two readings of the clock
WARM = 3                 # a prompt and two steps that are not counted: they load and compile


class Row(NamedTuple):
    """One model at one setting. `published`: mean and deviation in seconds of the same elsewhere, which `where` names."""

    id: str
    model: str
    cache: CacheKind
    dtype: DType
    runs: int
    prompt: int = 16
    new: int = 1000
    batch: int = 1
    published: tuple[float, float] | None = None
    where: str = ""


ROWS = (
    Row("T4 gpt2 cached float32", "gpt2", "dense", "float32", 10, published=(11.885, 0.272), where="T4"),
    Row("T4 gpt2 uncached float32", "gpt2", "none", "float32", 10, published=(56.197, 1.855), where="T4"),
    Row("gpt2 cached float16", "gpt2", "dense", "float16", 10),
    Row("gpt2 paged float16", "gpt2", "paged", "float16", 3),
    Row("gpt2 uncached float16", "gpt2", "none", "float16", 3),
    Row("llama-3-8b cached bfloat16", "llama-3-8b", "dense", "bfloat16", 3, new=256),
    Row("llama-3-8b int8 bfloat16", "llama-3-8b", "int8", "bfloat16", 3, new=256),
    Row("llama-3-8b 6k cached bfloat16", "llama-3-8b", "dense", "bfloat16", 2, prompt=6000, new=128),
)


class Result(Struct, frozen=True, kw_only=True):
    """One row.

    Attributes:
        seconds: of each run, the prompt included.
        tokens_per_s: median over the steps of all runs, all sequences together.
        exponent: of the power of the position that a step's time grows with, fitted from FIT_FROM tokens on.
        peak_memory_bytes, predicted_bytes: what torch reserved at most, and what the plan says of it.
        bandwidth_fraction: weights and cache that the steps read, over their time and `read_bytes_per_s`, measured in this run.
    """

    row: str
    device: str
    model: str
    cache: str
    dtype: str
    batch: int
    prompt: int
    new: int
    seconds: tuple[float, ...]
    tokens_per_s: float
    exponent: float | None
    bandwidth_fraction: float
    read_bytes_per_s: float
    peak_memory_bytes: int | None
    predicted_bytes: int
    published: tuple[float, float] | None = None
    where: str = ""


def run(rows: Sequence[Row], models: dict[str, Model], device: Device, runs: int | None = None) -> Iterator[Result]:
    """Row by row. `runs`: in place of each row's own. Raises: Unusable."""
    machine = open_machine(device, lambda: None)
    device = machine.refine(device)
    bandwidth = read_ceiling(machine)
    for row in rows:
        machine.release()
        yield _measure(row, models[row.model], device, machine, runs or row.runs, bandwidth)


def _measure(row: Row, model: Model, device: Device, machine: Machine, runs: int, bandwidth: float) -> Result:
    lane = Lane(cache=row.cache, kv_heads=model.kv_heads)
    decoding = Decoding(
        model=model, lanes=(lane,), batch=row.batch, prompt=row.prompt, new=min(row.new, model.context - row.prompt),
        dtype=row.dtype)
    machine.forget_peak()
    weights = random_weights(model, model.kv_heads, row.dtype, machine.place, 0)
    decoder = Decoder(model, model.kv_heads, weights, row.dtype, machine.place, ops_for(device))
    prompt = torch.randint(model.vocab, (row.batch, row.prompt), generator=torch.Generator().manual_seed(0)).to(machine.place)
    seconds: list[float] = []
    steps: list[tuple[int, float]] = []  # position, nanoseconds
    generation = Generation(decoder, row.cache, row.batch, decoding.tokens, sampling=None, graph=device.kind == "cuda")
    generation.prepare(row.prompt)
    for _ in range(WARM):
        generation.step() if generation.position else generation.prefill(prompt)
    for _ in range(runs):
        generation.reset()
        began = last = machine.stamp()
        generation.prefill(prompt)
        marks: list[tuple[int, int, Any, Any]] = []
        while generation.position < decoding.tokens:
            count = min(SAMPLE, decoding.tokens - generation.position)
            start = last if marks else machine.stamp()
            for _ in range(count):
                generation.step()
            last = machine.stamp()
            marks.append((generation.position, count, start, last))
        seconds.append(machine.between(began, last) / 1e9)
        steps += [(position, machine.between(start, end) / count) for position, count, start, end in marks]
    generation.close()
    moved = sum(decoding.step_bytes(lane, position) for position, _ in steps)
    return Result(
        row=row.id, device=device.name, model=model.id, cache=row.cache, dtype=row.dtype, batch=row.batch, prompt=row.prompt,
        new=decoding.new, seconds=tuple(seconds), tokens_per_s=row.batch * 1e9 / median(time for _, time in steps),
        exponent=_exponent(steps), bandwidth_fraction=moved / sum(time for _, time in steps) * 1e9 / bandwidth,
        read_bytes_per_s=bandwidth, peak_memory_bytes=machine.peak_bytes(),
        predicted_bytes=peak_bytes(decoding, [lane], device), published=row.published, where=row.where,
    )


def _exponent(steps: Sequence[tuple[int, float]]) -> float | None:
    """The slope of log time over log position, by least squares; None over too short a stretch."""
    far = [(math.log(position), math.log(time)) for position, time in steps if position >= FIT_FROM]
    if len(far) < 8:
        return None
    x, y = mean(a for a, _ in far), mean(b for _, b in far)
    return sum((a - x) * (b - y) for a, b in far) / sum((a - x) ** 2 for a, _ in far)


def told(result: Result) -> str:
    """In a line."""
    spread = f" ± {stdev(result.seconds):.3f}" if len(result.seconds) > 1 else ""
    beside = "; published on a {}: {:.3f} ± {:.3f} s".format(result.where, *result.published) if result.published else ""
    growth = "" if result.exponent is None else f", a step's time grows as n^{result.exponent:.2f}"
    return (f"{result.row}: {mean(result.seconds):.3f}{spread} s for {result.new:,} tokens, {len(result.seconds)} runs"
            f"{beside}; {result.tokens_per_s:,.0f} tokens/s, {result.bandwidth_fraction:.0%} of the bandwidth{growth}")


def table(results: Sequence[Result]) -> str:
    """In Markdown."""
    columns = ("row", "seconds", "published", "tokens/s", "growth of a step", "of the bandwidth", "peak GB", "predicted")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for r in results:
        spread = f" ± {stdev(r.seconds):.3f}" if len(r.seconds) > 1 else ""
        beside = f"{r.published[0]:.3f} ± {r.published[1]:.3f} ({r.where})" if r.published else ""
        growth = "" if r.exponent is None else f"n^{r.exponent:.2f}"
        peak = "n/a" if r.peak_memory_bytes is None else f"{r.peak_memory_bytes / 1e9:.2f}"
        lines.append(f"| {r.row} | {mean(r.seconds):.3f}{spread} | {beside} | {r.tokens_per_s:,.0f} | {growth} "
                     f"| {r.bandwidth_fraction:.2f} | {peak} | {r.predicted_bytes / 1e9:.2f} |")
    if results:
        lines += ["", f"{results[0].device}; the bandwidth is what a plain kernel reads in this run, "
                      f"{results[0].read_bytes_per_s / 1e12:.2f} TB/s."]
    return "\n".join(lines)
