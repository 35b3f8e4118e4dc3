"""`python -m kernels.tuned [KERNEL ...]`: compiles the rows of every table without a GPU, records what the compiler reports.

With names, only those kernels are compiled anew; what is recorded of the others by the same Triton stays.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator, Sequence
from itertools import product
from pathlib import Path

import msgspec

from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Compilation, LinearWorkload, Resources
from kernels.contract.workload import DType
from kernels.jit import compile_for, triton
from kernels.tuned import BACKWARD, CPU, Recorded, choose, choose_batch, recorded, tables

HEAD_DIMS = (32, 64, 96, 128, 192, 256)
HEADS = {"attention": ((8, 8), (8, 1)), "decode": ((8, 8), (32, 1))}  # query and KV heads, as a family tells apart
MASKS: dict[str, tuple[dict[str, int], ...]] = {
    "attention": ({"causal": False}, {"causal": True}, {"causal": True, "window": 256}), "decode": ({},)}
DTYPES: tuple[DType, ...] = ("bfloat16", "float32")
ROW_LENGTHS = (128, 256, 512, 1000, 1024, 2048, 4096, 8192, 16384)  # keys: of whole rows, tables and ragged ends


BATCHES = (1, 32, 64, 128, 256, 4096)  # of a layer, whose inputs fill their tiles or do not, split or whole, once or in steps
INPUTS = (1024, 4096, 8192, 1001, 4001)


def variants(table: str, kernels: Container[str] | None = None) -> Iterator[Compilation]:
    """Every compilation that a table (or some kernels of it) stands for, each once: head dims, masks, row
    lengths, shared KV heads."""
    seen: set[str] = set()
    for compilation in _compilations(table, [k for k in tables()[table].kernels if kernels is None or k in kernels]):
        if compilation.key not in seen:
            seen.add(compilation.key)
            yield compilation


def _compilations(table: str, chosen: Sequence[str]) -> Iterator[Compilation]:
    layers = [kernel for kernel in chosen if catalog()[kernel.removesuffix(BACKWARD)].info.family == "linear"]
    for kernel, kind, batch, width, repeat in product(layers, DTYPES, BATCHES, INPUTS, (1, 2)):
        layer = LinearWorkload(batch=batch, d_in=width, d_out=width, repeat=repeat, dtype=kind)
        yield from catalog()[kernel].compilations(layer, choose_batch(table, kernel, layer))
    rest = [kernel for kernel in chosen if kernel not in layers]
    for rows, dtype, head_dim, keys in product(rest, DTYPES, HEAD_DIMS, ROW_LENGTHS):
        spec, direction = catalog()[rows.removesuffix(BACKWARD)], "backward" if rows.endswith(BACKWARD) else "forward"
        if dtype not in spec.info.dtypes:
            continue
        family = spec.info.family
        for mask, (heads, kv_heads) in product(MASKS[family], HEADS[family]):
            shape = AttentionWorkload(
                heads=heads, kv_heads=kv_heads, head_dim=head_dim, dtype=dtype, seq=1 if family == "decode" else keys,
                seq_kv=keys, pass_=direction, **mask)  # type: ignore[arg-type]
            yield from spec.compilations(shape, choose(table, spec.id, shape))


def main(*kernels: str) -> None:
    """Writes sm_*.resources.json beside the tables."""
    for name, tuned in sorted(tables().items()):
        if name == CPU:
            continue
        before = recorded(name)
        anew = {c.key for c in variants(name, kernels or None)}
        found: dict[str, Resources] = {}
        for compilation in variants(name):
            key = compilation.key
            if key in before.resources and key not in anew and before.triton == triton.__version__:
                found[key] = before.resources[key]
                continue
            found[key], _ = compile_for(compilation, tuned.covers[0])
            sys.stdout.write(f"{name} {key}: {found[key]}\n")
            sys.stdout.flush()
        text = msgspec.json.format(msgspec.json.encode(Recorded(triton.__version__, dict(sorted(found.items())))), indent=1)
        (Path(__file__).parent / f"{name}.resources.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
