"""`python -m kernels.tuned`: compiles every row of every table without a GPU and records what the compiler reports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import msgspec

from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Compilation, Resources
from kernels.contract.workload import DType
from kernels.jit import compile_for, triton
from kernels.tuned import CPU, Recorded, Tuned, choose, tables

HEAD_DIMS = (32, 64, 96, 128, 192, 256)
ROW_LENGTHS = (128, 256, 512, 1000, 1024, 2048, 4096, 8192, 16384)  # keys: variants of kernels that hold whole rows


def variants(tuned: Tuned) -> Iterator[Compilation]:
    """Every compilation that a table stands for, each once: head dims, full, causal and windowed, all row lengths."""
    seen: set[str] = set()
    dtypes: tuple[DType, ...] = ("bfloat16", "float32")
    masks: tuple[dict[str, int], ...] = ({"causal": False}, {"causal": True}, {"causal": True, "window": 256})
    for (kernel, rows), dtype, head_dim, keys, mask in product(tuned.kernels.items(), dtypes, HEAD_DIMS, ROW_LENGTHS, masks):
        shape = AttentionWorkload(head_dim=head_dim, dtype=dtype, seq=keys, **mask)  # type: ignore[arg-type]
        if dtype not in catalog()[kernel].info.dtypes:
            continue
        for compilation in catalog()[kernel].compilations(shape, choose(rows, shape)):
            if compilation.key not in seen:
                seen.add(compilation.key)
                yield compilation


def main() -> None:
    """Writes sm_*.resources.json beside the tables."""
    for name, tuned in sorted(tables().items()):
        if name == CPU:
            continue
        found: dict[str, Resources] = {}
        for compilation in variants(tuned):
            found[compilation.key], _ = compile_for(compilation, tuned.covers[0])
            sys.stdout.write(f"{name} {compilation.key}: {found[compilation.key]}\n")
            sys.stdout.flush()
        text = msgspec.json.format(msgspec.json.encode(Recorded(triton.__version__, dict(sorted(found.items())))), indent=1)
        (Path(__file__).parent / f"{name}.resources.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    main()
