"""`python scripts/time_fused_linear.py [--rows 1,8] [--tiles] [--only TEXT]`: the layers of GPT-2 and Llama 3 8B on this GPU.

Each line: 100 launches in one CUDA graph over weights that together exceed the L2, the median of 20 replays, per launch, and
the bytes of W over that as a fraction of a copy's bandwidth measured before; kernels/linear/fused.py without and with
`overlap`, and torch's F.linear (which adds the bias alone). --tiles also tries other tiles.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from kernels.linear.fused import Norm, Tiles, bind, configure

LAUNCHES = 100
F16, BF16 = torch.float16, torch.bfloat16
LAYERS: dict[str, tuple[int, int, torch.dtype, dict[str, Any]]] = {
    "gpt2 qkv": (768, 2304, F16, {"norm": "layernorm", "bias": True}),
    "gpt2 out": (768, 768, F16, {"bias": True, "residual": True}),
    "gpt2 up": (768, 3072, F16, {"norm": "layernorm", "bias": True, "activation": "gelu_tanh"}),
    "gpt2 down": (3072, 768, F16, {"bias": True, "residual": True}),
    "gpt2 head": (768, 50257, F16, {"norm": "layernorm"}),
    "llama qkv": (4096, 6144, BF16, {"norm": "rmsnorm"}),
    "llama out": (4096, 4096, BF16, {"residual": True}),
    "llama gate+up": (4096, 14336, BF16, {"norm": "rmsnorm", "activation": "swiglu"}),
    "llama down": (14336, 4096, BF16, {"residual": True}),
    "llama head": (4096, 128256, BF16, {"norm": "rmsnorm"}),
}


def seconds(calls: list[Callable[[], Any]]) -> float:
    """Of one call, in a graph of LAUNCHES that goes round them."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(LAUNCHES):
            calls[i % len(calls)]()
    times = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000 / LAUNCHES)
    return statistics.median(times)


def alternatives(rows: int, d_in: int, d_out: int, gated: bool) -> Iterator[Tiles]:
    """Other tiles of a layer."""
    whole = 1 << (d_in - 1).bit_length()
    if rows == 1:
        for warps in (4, 8):
            for block_k in sorted({min(whole, k) for k in (1024, 2048, 4096, 16384)}):
                for block_n in (1, 2, 4, 8, 16):
                    if 4 <= block_n * block_k * (2 if gated else 1) / warps / 32 / 8 <= 24 and d_out // block_n >= 64:
                        yield Tiles(0, block_n, block_k, warps)
        return
    block_m = max(16, 1 << (rows - 1).bit_length())
    for block_n in (16, 32, 64, 128):
        for block_k in (64, 128, 256):
            for stages in (3, 4, 6):
                for warps in (4, 8):
                    need = stages * block_k * 2 * (block_n * (2 if gated else 1) + block_m)
                    if 32 << 10 <= need <= 200 << 10:
                        yield Tiles(block_m, block_n, block_k, warps, stages)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="1")
    parser.add_argument("--only", default="")
    parser.add_argument("--tiles", action="store_true")
    given = parser.parse_args()
    big = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    bandwidth = big.numel() / seconds([partial(big[: 1 << 29].copy_, big[1 << 29 :])])
    print(f"{torch.cuda.get_device_name()}: copy {bandwidth / 1e12:.2f} TB/s read plus written")
    del big
    for rows in map(int, given.rows.split(",")):
        for name, (d_in, d_out, dtype, options) in LAYERS.items():
            if given.only in name:
                time_layer(name, rows, d_in, d_out, dtype, options, bandwidth, given.tiles)


def time_layer(
    name: str, rows: int, d_in: int, d_out: int, dtype: torch.dtype, options: dict[str, Any], bandwidth: float, tiles: bool,
) -> None:
    gated = options.get("activation") == "swiglu"
    wide = d_out * (2 if gated else 1)
    size = d_in * wide * 2
    weights = [torch.randn(wide, d_in, dtype=dtype, device="cuda") * d_in**-0.5 for _ in range(max(2, -(-(300 << 20) // size)))]
    x, y = torch.randn(rows, d_in, dtype=dtype, device="cuda"), torch.empty(rows, d_out, dtype=dtype, device="cuda")
    bias = torch.randn(d_out, dtype=dtype, device="cuda") if options.get("bias") else None
    gain, shift = (torch.randn(d_in, dtype=dtype, device="cuda") for _ in range(2))
    norm = {"layernorm": Norm(gain, 1e-5, shift), "rmsnorm": Norm(gain, 1e-5)}.get(options.get("norm", ""))
    residual = torch.randn_like(y) if options.get("residual") else None

    def ours(cut: Tiles | None, overlap: bool) -> float:
        more = {"bias": bias, "norm": norm, "activation": options.get("activation", "none"), "residual": residual}
        return seconds([bind(x, w, y, tiles=cut, overlap=overlap, **more) for w in weights])

    def shown(time: float) -> str:
        return f"{time * 1e6:7.2f} us {size / time / bandwidth:4.0%}"

    plain, overlapped = ours(None, False), ours(None, True)
    linear = seconds([partial(torch.nn.functional.linear, x, w, bias) for w in weights])
    chosen = configure(rows, d_in, d_out, 2, gated, torch.cuda.get_device_properties(0).multi_processor_count)
    print(f"M{rows:<3} {name:14} {d_in:>5} -> {d_out:<6} ours {shown(plain)}  overlap {shown(overlapped)}  "
          f"F.linear {shown(linear)}  {tuple(chosen)}", flush=True)
    if tiles:
        found = []
        for cut in alternatives(rows, d_in, d_out, gated):
            try:
                found.append((ours(cut, True), cut))
            except Exception as error:
                print(f"      {tuple(cut)}: {str(error).splitlines()[0][:80]}")
        print("      overlap, best: " + "; ".join(f"{tuple(cut)} {shown(time)}" for time, cut in sorted(found)[:4]), flush=True)


if __name__ == "__main__":
    main()
