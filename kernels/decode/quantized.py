"""Split decoding over a cache in 8 bits: int8, or fp8 (e4m3), with a float32 scale per token and KV head.

    K = K8 k_scale, V = V8 v_scale;  S = (Q K8^T) k_scale / sqrt(D);  P = softmax(S);  O = (P v_scale) V8
HBM traffic: K8 and V8 once, 2 B H_kv N D bytes, their scales, 8 B H_kv N, and beside that what split_kv moves.
The tiles stay in 8 bits until they are in registers. A tile is read as 16-bit pairs of neighbouring dims, as the matrix units
take operands of 16 bits; the even and the odd dims are products of their own. A pair becomes two float16 without a conversion
(they run at a quarter rate): int8 by 1024 + 128 + x, whose float16 has x + 128 in its last byte; fp8 by moving sign, exponent
and mantissa, which is x / 256, subnormals included. Q is divided by its rows' maxima, so that float16 holds it.
Float32 workloads are multiplied in float32.
Source: Dao et al., Flash-Decoding (2023); the float16 of int8: Kim et al., Who says elephants can't run (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from kernels import tuned
from kernels.attention import reference, row_walk
from kernels.contract import (
    AttentionWorkload,
    Compilation,
    Config,
    Cost,
    Device,
    KernelInfo,
    KernelSpec,
    Operand,
    Refusal,
    Schedule,
    Slot,
    TileOp,
    const,
    var,
)
from kernels.decode import combine, shares, split_kv
from kernels.decode.eight_bits import CODES, Code, quantised
from kernels.decode.quantized_share import share
from kernels.decode.steps import Steps
from kernels.jit import LOG2E, POINTER, describable, descriptor, next_power_of_2, require_triton

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

P_UNIT = 64.0  # by which P v_scale is multiplied while it is float16: it is far below 1, where float16 is coarse
FP8_UNIT = 256.0  # by which the float16 of an fp8 is too small


def _block_d(workload: AttentionWorkload) -> int:
    """Columns of a tile: 16 pairs at least."""
    return max(32, next_power_of_2(workload.head_dim))


def _constants(code: Code, workload: AttentionWorkload, config: Config, count: int) -> dict[str, Any]:
    exact = workload.dtype == "float32"
    unit = FP8_UNIT if code == "fp8" else 1.0
    known = split_kv.constants(workload, config, shares.packed(workload), count)
    flags = {"BLOCK_D": _block_d(workload), "TMA": config.params.get("tma", 0) > 0, "FP8": code == "fp8", "ASM": True,
             "EXACT": exact, "P_UNIT": 1.0 if exact else P_UNIT, "O_UNIT": unit if exact else unit / P_UNIT}
    precision = known.pop("PRECISION")
    return known | flags | {"PRECISION": precision}


def bind(
    code: Code, workload: AttentionWorkload, config: Config, tensors: Tensors, lengths: torch.Tensor
) -> Callable[[], None]:
    """The launches on a cache of `workload.keys` tokens a sequence, of which the first `lengths` count; allocates nothing.

    Args:
        tensors: Q and O [B, H_q, 1, D]; K8 and V8 [B, H_kv, N, D] in 8 bits, contiguous in D, other strides even; k_scale and
            v_scale float32 [B, H_kv, N], contiguous in N; and what `shares.scratch` names.
        lengths: int32 [B], at most N each; read when the launch runs.

    Raises:
        Refusal: Triton is missing, or the strides of K8 or V8 are odd.
    """
    import torch

    require_triton()
    w, count = workload, shares.splits(workload, config)
    q, o = tensors["Q"], tensors["O"]
    try:
        k, v = (tensors[name].view(torch.int16) for name in ("K8", "V8"))
    except RuntimeError as error:
        raise Refusal(f"the 8-bit cache is read in pairs of dims: make its strides and its address even ({error})") from error
    scales = tensors["k_scale"], tensors["v_scale"]
    flags = _constants(code, w, config, count) | {"ASM": q.is_cuda}
    flags["TMA"] = flags["TMA"] and describable(k) and describable(v)
    block = [1, 1, config["block_n"], flags["BLOCK_D"] // 2]
    descriptors = [descriptor(x, block) if flags["TMA"] else x for x in (k, v)]
    strides = (*q.stride()[:2], *k.stride()[:3], *v.stride()[:3], *(s for x in scales for s in x.stride()[:2]), *o.stride()[:2])
    part, lse = (tensors[name] if count > 1 else None for name in ("O_part", "lse_part"))
    unit = FP8_UNIT if code == "fp8" else 1.0
    numbers = (part.shape[2] if part is not None else 1, w.group, w.head_dim**-0.5 * LOG2E * unit)
    options = flags | {"num_warps": config["warps"], "num_stages": config["stages"]}
    grid = (count, w.heads // shares.packed(w), w.batch)
    second = combine.bind(w, config, tensors, count) if count > 1 else None

    def run() -> None:
        share[grid](q, k, v, *descriptors, *scales, o, part, lse, lengths, *strides, *numbers, **options)
        if second is not None:
            second()

    return run


def launch(code: Code, workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """`bind` where every sequence has all its tokens, which are quantised here."""
    import torch

    save(code, workload, tensors)
    o = tensors["O"]
    lengths = torch.full((workload.batch,), workload.keys, dtype=torch.int32, device=o.device)
    bound = bind(code, workload, config, tensors, lengths)

    def run() -> Tensors:
        bound()
        return {"O": o}

    return run


def save(code: Code, workload: AttentionWorkload, tensors: Tensors) -> None:
    """K8, V8 and their scales from K and V, a sequence at a time: their float32 is large."""
    for b in range(workload.batch):
        for plain, small, scale in (("K", "K8", "k_scale"), ("V", "V8", "v_scale")):
            found, scales = quantised(tensors[plain][b], code)
            tensors[small][b].copy_(found)
            tensors[scale][b].copy_(scales)


def dequantised_reference(
    code: Code, workload: AttentionWorkload, tensors: Mapping[str, torch.Tensor], rows: torch.Tensor | None = None
) -> Tensors:
    """Attention in float64 over the cache as its 8 bits have it."""
    exact = dict(tensors)
    for name in "KV":
        found, scale = quantised(tensors[name], code)
        exact[name] = found.double() * scale.double()[..., None]
    return reference.reference(workload, exact, rows)


def cache_operands(code: Code, workload: AttentionWorkload) -> tuple[Operand, ...]:
    """K8, V8 [B, H_kv, N, D] and k_scale, v_scale [B, H_kv, N], left by the steps before."""
    w = workload
    shape = (w.batch, w.kv_heads, w.keys)
    return (
        *(Operand(name=name, shape=(*shape, w.head_dim), itemsize=1, role="saved", dtype=CODES[code].dtype)
          for name in ("K8", "V8")),
        *(Operand(name=name, shape=shape, itemsize=4, role="saved", dtype="float32") for name in ("k_scale", "v_scale")),
    )


def operands(code: Code, workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Those of split_kv, and the cache in 8 bits; K and V themselves are not read."""
    return (*shares.operands(workload), *cache_operands(code, workload))


def compilations(code: Code, workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """The share, and where there are splits their combination."""
    count, tma = shares.splits(workload, config), config.params.get("tma", 0) > 0
    pointer, block = POINTER[workload.dtype], [1, 1, config["block_n"], _block_d(workload) // 2]
    described = f"tensordesc<i16[{', '.join(map(str, block))}]>"
    signature = {"q_ptr": pointer, "k_ptr": "*i16", "v_ptr": "*i16"}
    signature |= dict.fromkeys(("k_desc", "v_desc"), described if tma else "*i16")
    signature |= dict.fromkeys(("k_scale_ptr", "v_scale_ptr"), "*fp32") | {"o_ptr": pointer, "part_ptr": "*fp32"}
    signature |= {"lse_ptr": "*fp32", "lengths_ptr": "*i32"}
    strides = ("qb", "qh", "kb", "kh", "kn", "vb", "vh", "vn", "ksb", "ksh", "vsb", "vsh", "ob", "oh")
    signature |= dict.fromkeys((f"stride_{x}" for x in strides), "i32")
    signature |= {"n_splits": "i32", "group": "i32", "scale_log2": "fp32"}
    first = Compilation(launch=code, kernel=share, signature=signature, warps=config["warps"], stages=config["stages"],
                        constants=_constants(code, workload, config, count))
    return (first, combine.compilation(workload, config)) if count > 1 else (first,)


def configure(code: Code, workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table; the splits follow from the device's wave."""
    config = shares.configured(code, workload, device)
    return tuned.with_resources(config, compilations(code, workload, config), device)


def constraints(code: Code, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched."""
    title = CODES[code].title
    need = 2 * config["block_n"] * shares.ring(config) * _block_d(workload)
    return [*shares.refused(title, workload, config, device), *tuned.too_large(title, need, device)]


def cost(code: Code, workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form."""
    cache = {operand.name: operand.bytes for operand in cache_operands(code, workload)}
    return shares.cost(workload, shares.packed(workload), shares.splits(workload, config), cache,
                       _steps(code, workload, config))


def _steps(code: Code, workload: AttentionWorkload, config: Config) -> Steps:
    """Tiles in 8 bits, unpacked to float16; Q by its maxima."""
    return replace(shares.steps(workload, config, shares.packed(workload)), width=_block_d(workload), stored=1, code=code)


def schedule(code: Code, workload: AttentionWorkload, config: Config) -> Schedule:
    """Two launches, or one where one split is enough; K8 and V8 tiles and their scales arrive ahead in rings."""
    w, bn, bd, heads = workload, config["block_n"], _block_d(workload), shares.packed(workload)
    count, ring = shares.splits(w, config), shares.ring(config)
    at, ahead, steps = (var("b"), (var("t") * heads) // w.group, var("j") * bn), ring - 1, _steps(code, w, config)

    def loads(small: str, scale: str) -> tuple[TileOp, TileOp]:
        return (
            TileOp(kind="load", title=f"load {small}", operand=small, at=(*at, const(0)), tile=(1, 1, bn, bd), writes=(small,),
                   ahead=ahead),
            TileOp(kind="load", title=f"load {scale}", operand=scale, at=at, tile=(1, 1, bn), writes=(scale,), ahead=ahead),
        )

    rings = (
        *(Slot(name=name, shape=(bn, bd), itemsize=1, copies=ring, operand=name) for name in ("K8", "V8")),
        *(Slot(name=name, shape=(bn,), itemsize=4, copies=ring, place="registers", operand=name)
          for name in ("k_scale", "v_scale")),
    )
    body = (*loads("K8", "k_scale"), *loads("V8", "v_scale"),
            *split_kv.tile_ops(w, steps, ("Q", "K8", "k_scale"), ("O", "P", "V8", "v_scale"), "scaled_scores",
                               "accumulate_scaled_pv"))
    first = split_kv.share_launch(code, "a split of the 8-bit cache", w, config, heads, count, rings, body, steps)
    return Schedule(kernel=code, operands=(*operands(code, w), *row_walk.unwritten(w)),
                    launches=(first, combine.launch(w, config, count)) if count > 1 else (first,))


def _spec(code: Code, place: int, summary: str) -> KernelSpec:
    return KernelSpec(
        info=KernelInfo(
            id=code, title=CODES[code].title, place=place, summary=summary, family="decode", role="ours",
            source="Dao et al. 2023, Flash-Decoding; Kim et al. 2022", params=(*shares.PARAMS, shares.SPLITS, split_kv.TMA,
                                                                              split_kv.DEPENDENT),
        ),
        operands=partial(operands, code), inputs=reference.inputs, reference=partial(dequantised_reference, code),
        launch=partial(launch, code), configure=partial(configure, code), constraints=partial(constraints, code),
        cost=partial(cost, code), schedule=partial(schedule, code), compilations=partial(compilations, code),
        tolerance=reference.tolerance, save=partial(save, code),
    )


KERNELS = (
    _spec("int8", 7, "K and V in 8-bit integers with a scale per token and head"),
    _spec("fp8", 8, "K and V in 8-bit floats (e4m3) with a scale per token and head"),
)
