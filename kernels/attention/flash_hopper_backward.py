"""FlashAttention's backward pass for Hopper: the walk of flash_backward.py, by warps with roles.

One program owns 128 keys. One warp is the producer: the copy engine (TMA) brings K and V once, then Q, dO and their numbers
tile by tile through rings guarded by barriers. Two warpgroups are the consumers, of 64 keys each:
- S^T = K Q^T and dP^T = V dO^T are issued together, so that P is exponentiated beside the second product;
- P^T and dS^T come out of the matrix unit as dV += P^T dO and dK += dS^T Q take them in, from registers;
- dQ = dS K needs the dS of both: each writes its half to shared memory, in turn to one of two places, and multiplies one
  half of dQ, of its columns at D 128 and of its rows below; the copy engine adds that half to the sum in HBM while dK is
  multiplied.
A place of dS is free again without a barrier of its own: who writes the next but one has seen the other's next.
Where too few programs would fill the device, as with one KV head for all, several share the query heads of a KV head and the
copy engine adds their dK and dV to float32 sums, zeroed before and rounded after; their last bits then differ from run to run,
as those of dQ do.
dK and dV of 64 keys fill the registers up to a head dim of 128. Launches before and after and the formula are flash's.
Source: Shah et al., FlashAttention-3 (2024), section 3 and its published backward kernel's order of products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kernels import tuned
from kernels.attention import flash, gradient_rows, key_walk
from kernels.attention.hopper_tiles import TABLE, WARPGROUP_ROWS, require_hopper, tma_described, tma_descriptor
from kernels.contract import AttentionWorkload, Compilation, Config, Cost, Operand, Schedule
from kernels.jit import LOG2E, add_shared_to_global, arg_names, block_d, cdiv, gl, gluon_jit, hopper, partition_barrier

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

BLOCK_N = 128
PANEL = 64  # columns of dQ that one consumer multiplies, at most
PROGRAMS = 4 * 132  # wanted at least, some for every multiprocessor of an H100 or H200
LENGTHS = ("n_q", "n_kv", "window", "share", "parts")


@gluon_jit
def _tiles(
    col: gl.tensor, sizes: gl.tuple, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, CAUSAL: gl.constexpr, WINDOW: gl.constexpr,
) -> Any:
    """(first, lead, tail, last) tile of queries: first..lead and tail..last need a mask, lead..tail none."""
    n_q, n_kv, window, _, _ = sizes
    shift = n_kv - n_q
    first = 0
    lead = 0
    last = (n_q + BLOCK_M - 1) // BLOCK_M
    if CAUSAL:
        first = gl.minimum(gl.maximum(col - shift, 0) // BLOCK_M, last)
        lead = (gl.maximum(col + BLOCK_N - 1 - shift, 0) + BLOCK_M - 1) // BLOCK_M
    if WINDOW:
        last = gl.minimum(last, (gl.maximum(col + BLOCK_N - 1 - shift + window, 0) + BLOCK_M - 1) // BLOCK_M)
    last = gl.maximum(last, first)
    tail = last
    if WINDOW:
        tail = (gl.maximum(col - shift + window - BLOCK_M + 1, 0) + BLOCK_M - 1) // BLOCK_M
    if col + BLOCK_N > n_kv:
        lead = last
    lead = gl.minimum(gl.maximum(lead, first), last)
    tail = gl.minimum(gl.maximum(tail, lead), last)
    return first, lead, tail, last


@gluon_jit
def _fetch(tile_desc: gl.tensor, row_desc: gl.tensor, b: gl.tensor, h: gl.tensor, row: gl.tensor, ring: gl.tuple,
           t: gl.tensor) -> None:
    """Asks for the t-th tile of a ring and its numbers once their place is free; a fresh barrier lets parity 1 through."""
    tile, numbers, full, empty = ring
    STAGES: gl.constexpr = tile.shape[0]
    place = t % STAGES
    hopper.mbarrier.wait(empty.index(place), (t // STAGES + 1) & 1)
    here = full.index(place)
    hopper.mbarrier.expect(here, tile_desc.block_type.nbytes + row_desc.block_type.nbytes)
    hopper.tma.async_copy_global_to_shared(tile_desc, [b, h, row, 0], here, tile.index(place).reshape(tile_desc.block_shape))
    hopper.tma.async_copy_global_to_shared(row_desc, [b, h, row], here, numbers.index(place).reshape(row_desc.block_shape))


@gluon_jit
def _fetch_keys(desc: gl.tensor, b: gl.tensor, g: gl.tensor, col: gl.tensor, keys: gl.tuple) -> None:
    """Asks for the two halves of K or V."""
    tile, full = keys
    hopper.mbarrier.expect(full, 2 * desc.block_type.nbytes)
    for c in gl.static_range(2):
        half = tile.index(c).reshape(desc.block_shape)
        hopper.tma.async_copy_global_to_shared(desc, [b, g, col + c * 64, 0], full, half)


@gluon_jit
def _produce(parts: gl.tuple, CAUSAL: gl.constexpr, WINDOW: gl.constexpr) -> None:
    """K and the first Q, then V, then Q and dO of every tile, through the query heads that are this program's."""
    q_desc, k_desc, v_desc, do_desc, base_desc, delta_desc, keys, values, queries, gradients, sizes = parts
    _, _, _, share, programs = sizes
    BLOCK_M: gl.constexpr = queries[0].shape[1]
    BLOCK_N: gl.constexpr = keys[0].shape[0] * 64
    col, g, b = gl.program_id(0) * BLOCK_N, gl.program_id(1) // programs, gl.program_id(2)
    first, _, _, last = _tiles(col, sizes, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
    if last > first:
        _fetch_keys(k_desc, b, g, col, keys)
        t = 0
        for r in range(share):
            h = gl.program_id(1) * share + r
            for m in range(first, last):
                _fetch(q_desc, base_desc, b, h, m * BLOCK_M, queries, t)
                if t == 0:
                    _fetch_keys(v_desc, b, g, col, values)
                _fetch(do_desc, delta_desc, b, h, m * BLOCK_M, gradients, t)
                t += 1


@gluon_jit
def _seen(
    row: gl.tensor, col: gl.tensor, sizes: gl.tuple, BLOCK_M: gl.constexpr, CAUSAL: gl.constexpr, WINDOW: gl.constexpr,
    S_LAYOUT: gl.constexpr,
) -> Any:
    """Which queries see which of the 64 keys from col: [64, BLOCK_M], as S^T lies."""
    n_q, n_kv, window, _, _ = sizes
    cols = col + gl.arange(0, 64, gl.SliceLayout(1, S_LAYOUT))
    upper = row + n_kv - n_q + gl.arange(0, BLOCK_M, gl.SliceLayout(0, S_LAYOUT))  # the last key that a query sees
    seen = (cols < n_kv)[:, None]
    if CAUSAL:
        seen = seen & (cols[:, None] <= upper[None, :])
    if WINDOW:
        seen = seen & (cols[:, None] > (upper - window)[None, :])
    return seen


@gluon_jit
def _step(
    state: gl.tuple, b: gl.tensor, h: gl.tensor, m: gl.tensor, col: gl.tensor, bounds: gl.tuple, parts: gl.tuple,
    scale_log2: float, C: gl.constexpr, MASKED: gl.constexpr, CAUSAL: gl.constexpr, WINDOW: gl.constexpr,
    S_LAYOUT: gl.constexpr, D_LAYOUT: gl.constexpr, Q_LAYOUT: gl.constexpr,
) -> Any:
    """One tile of queries further; t counts tiles. Within bounds (lead, tail) a windowed tile needs no mask."""
    dk, dv, t = state
    lead, tail = bounds
    sum_desc, keys, values, queries, gradients, scores, halves, _, sizes = parts
    k_tile, _ = keys
    v_tile, _ = values
    q_tile, base_tile, q_full, q_empty = queries
    do_tile, delta_tile, do_full, do_empty = gradients
    ds_tile, ds_full = scores
    STAGES: gl.constexpr = q_tile.shape[0]
    BLOCK_M: gl.constexpr = q_tile.shape[1]
    WIDTH: gl.constexpr = halves.shape[2]
    ROWS: gl.constexpr = BLOCK_M // 64           # dQ is so many blocks of 64 rows
    PANELS: gl.constexpr = q_tile.shape[2] // WIDTH  # and so many panels of columns: two halves in all
    COLUMNS: gl.constexpr = gl.SliceLayout(0, S_LAYOUT)
    row = m * BLOCK_M
    place = t % STAGES
    parity = (t // STAGES) & 1
    turn = t % 2
    q = q_tile.index(place)
    do = do_tile.index(place)
    zero = gl.full([64, BLOCK_M], 0.0, gl.float32, S_LAYOUT)
    hopper.mbarrier.wait(q_full.index(place), parity)
    s = hopper.warpgroup_mma(k_tile.index(C), q.permute((1, 0)), zero, use_acc=False, is_async=True)
    hopper.mbarrier.wait(do_full.index(place), parity)
    dp = hopper.warpgroup_mma(v_tile.index(C), do.permute((1, 0)), zero, use_acc=False, is_async=True)
    s = hopper.warpgroup_mma_wait(1, deps=[s])
    base = base_tile.index(place).load(COLUMNS)
    p = gl.exp2(s * scale_log2 - base[None, :])
    if MASKED and not WINDOW:
        p = gl.where(_seen(row, col + C * 64, sizes, BLOCK_M, CAUSAL, WINDOW, S_LAYOUT), p, 0.0)
    if WINDOW:  # noqa: SIM102 - decided by the compiler, and then by the program
        if (m < lead) | (m >= tail):
            p = gl.where(_seen(row, col + C * 64, sizes, BLOCK_M, CAUSAL, WINDOW, S_LAYOUT), p, 0.0)
    dp = hopper.warpgroup_mma_wait(0, deps=[dp])
    delta = delta_tile.index(place).load(COLUMNS)
    p_in = gl.convert_layout(p.to(q.dtype), gl.DotOperandLayout(0, D_LAYOUT, 2))
    ds = (p * (dp - delta[None, :])).to(q.dtype)
    dv = hopper.warpgroup_mma(p_in, do, dv, is_async=True)
    ds_tile.index(turn * 2 + C).store(ds)
    hopper.fence_async_shared()
    partition_barrier()
    hopper.mbarrier.arrive(ds_full.index(turn))
    ds_in = gl.convert_layout(ds, gl.DotOperandLayout(0, D_LAYOUT, 2))
    hopper.mbarrier.wait(ds_full.index(turn), (t // 2) & 1)
    dq = gl.full([64, WIDTH], 0.0, gl.float32, Q_LAYOUT)
    for c in gl.static_range(2):  # a row of 128 bytes is what the copy engine swizzles: wider tiles lie as panels of that width
        panels = ds_tile.index(turn * 2 + c)._reinterpret(q.dtype, [ROWS, 64, 64], ds_tile.type.layout)
        k = k_tile.index(c)._reinterpret(q.dtype, [PANELS, 64, WIDTH], k_tile.type.layout).index(C % PANELS)
        dq = hopper.warpgroup_mma(panels.index(C % ROWS).permute((1, 0)), k, dq, use_acc=c > 0, is_async=True)
    dk = hopper.warpgroup_mma(ds_in, q, dk, is_async=True)
    dv, dq, _ = hopper.warpgroup_mma_wait(1, deps=[dv, dq, p_in])
    hopper.mbarrier.arrive(do_empty.index(place))
    hopper.tma.store_wait(pendings=0)  # the half before has left its place
    half = halves.index(C)
    half.store(dq)
    hopper.fence_async_shared()
    at = [b, h, row + (C % ROWS) * 64, (C % PANELS) * WIDTH]
    add_shared_to_global(sum_desc, at, half.reshape(sum_desc.block_shape))
    dk, _ = hopper.warpgroup_mma_wait(0, deps=[dk, ds_in])
    hopper.mbarrier.arrive(q_empty.index(place))
    return dk, dv, t + 1


@gluon_jit
def _consume(
    parts: gl.tuple, dk_desc: gl.tensor, dv_desc: gl.tensor, scale: float, scale_log2: float, C: gl.constexpr,
    CAUSAL: gl.constexpr, WINDOW: gl.constexpr, MASKED: gl.constexpr, SHARED: gl.constexpr,
) -> None:
    """dK and dV of the C-th 64 keys."""
    _, keys, values, queries, gradients, _, halves, done, sizes = parts
    _, _, _, share, programs = sizes
    v_tile, v_full = values
    BLOCK_M: gl.constexpr = queries[0].shape[1]
    BLOCK_N: gl.constexpr = keys[0].shape[0] * 64
    BLOCK_D: gl.constexpr = queries[0].shape[2]
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_M, 16])
    D_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_D, 16])
    Q_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, halves.shape[2], 16])
    col, g, b = gl.program_id(0) * BLOCK_N, gl.program_id(1) // programs, gl.program_id(2)
    first, lead, tail, last = _tiles(col, sizes, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
    dk = gl.full([64, BLOCK_D], 0.0, gl.float32, D_LAYOUT)
    dv = gl.full([64, BLOCK_D], 0.0, gl.float32, D_LAYOUT)
    if last > first:
        hopper.mbarrier.wait(keys[1], 0)
        hopper.mbarrier.wait(v_full, 0)
        state = (dk, dv, 0)
        bounds = (lead, tail)
        for r in range(share):
            h = gl.program_id(1) * share + r
            if WINDOW:  # one loop, which asks at every tile: three would not find the registers
                for m in range(first, last):
                    state = _step(state, b, h, m, col, bounds, parts, scale_log2, C, True, CAUSAL, True,
                                  S_LAYOUT, D_LAYOUT, Q_LAYOUT)
            elif MASKED:
                for m in range(first, lead):
                    state = _step(state, b, h, m, col, bounds, parts, scale_log2, C, True, CAUSAL, False,
                                  S_LAYOUT, D_LAYOUT, Q_LAYOUT)
            if not WINDOW:
                for m in range(lead, last):
                    state = _step(state, b, h, m, col, bounds, parts, scale_log2, C, False, CAUSAL, False,
                                  S_LAYOUT, D_LAYOUT, Q_LAYOUT)
        dk, dv, _ = state
    row = col + C * 64
    if SHARED:  # float32 takes the room of a ring, once no one reads the rings
        hopper.mbarrier.arrive(done)
        hopper.mbarrier.wait(done, 0)
        ring = queries[0]
        if C == 1:
            ring = gradients[0]
        SUMS: gl.constexpr = gl.NVMMASharedLayout(dk_desc.layout.swizzle_byte_width, 32, rank=2)
        place = ring._reinterpret(gl.float32, [BLOCK_M * queries[0].shape[0] // 128, 64, BLOCK_D], SUMS).index(0)
        _leave(dv_desc, dv, place, b, g, row, True)
        _leave(dk_desc, dk, place, b, g, row, True)
    else:  # where the 64 keys' V was, which no one else reads
        _leave(dv_desc, dv, v_tile.index(C), b, g, row, False)
        _leave(dk_desc, dk * scale, v_tile.index(C), b, g, row, False)


@gluon_jit
def _leave(
    desc: gl.tensor, x: gl.tensor, place: gl.tensor, b: gl.tensor, g: gl.tensor, row: gl.tensor, ADD: gl.constexpr,
) -> None:
    """Writes, or adds, 64 rows by way of a place in shared memory, and waits until they have left it."""
    place.store(x.to(place.dtype))
    hopper.fence_async_shared()
    if ADD:
        add_shared_to_global(desc, [b, g, row, 0], place.reshape(desc.block_shape))
    else:
        hopper.tma.async_copy_shared_to_global(desc, [b, g, row, 0], place.reshape(desc.block_shape))
    hopper.tma.store_wait(pendings=0)


@partial(gluon_jit, do_not_specialize=LENGTHS)
def _flash_hopper_backward(
    q_desc: gl.tensor, k_desc: gl.tensor, v_desc: gl.tensor, do_desc: gl.tensor, base_desc: gl.tensor, delta_desc: gl.tensor,
    sum_desc: gl.tensor, dk_desc: gl.tensor, dv_desc: gl.tensor, n_q: int, n_kv: int, window: int, share: int, parts: int,
    scale: float, scale_log2: float, BLOCK_M: gl.constexpr, BLOCK_D: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    WINDOW: gl.constexpr, MASKED: gl.constexpr, SHARED: gl.constexpr,
) -> None:
    TILE: gl.constexpr = gl.NVMMASharedLayout(q_desc.layout.swizzle_byte_width, 16, rank=2)
    SCORES: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    SUMS: gl.constexpr = gl.NVMMASharedLayout(sum_desc.layout.swizzle_byte_width, 32, rank=2)
    NUMBERS: gl.constexpr = gl.NVMMASharedLayout(0, 32, rank=1)
    BARRIER: gl.constexpr = hopper.mbarrier.MBarrierLayout()
    dtype: gl.constexpr = q_desc.dtype
    k_tile = gl.allocate_shared_memory(dtype, [2, 64, BLOCK_D], TILE)
    v_tile = gl.allocate_shared_memory(dtype, [2, 64, BLOCK_D], TILE)
    q_tile = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_M, BLOCK_D], TILE)
    do_tile = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_M, BLOCK_D], TILE)
    ds_tile = gl.allocate_shared_memory(dtype, [4, 64, BLOCK_M], SCORES)  # two turns of two consumers
    halves = gl.allocate_shared_memory(gl.float32, [2, 64, sum_desc.block_shape[3]], SUMS)
    base_tile = gl.allocate_shared_memory(gl.float32, [STAGES, BLOCK_M], NUMBERS)
    delta_tile = gl.allocate_shared_memory(gl.float32, [STAGES, BLOCK_M], NUMBERS)
    k_full = gl.allocate_shared_memory(gl.int64, [1], BARRIER)
    v_full = gl.allocate_shared_memory(gl.int64, [1], BARRIER)
    q_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    q_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    do_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    do_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    ds_full = gl.allocate_shared_memory(gl.int64, [2, 1], BARRIER)
    hopper.mbarrier.init(k_full, count=1)
    hopper.mbarrier.init(v_full, count=1)
    for i in gl.static_range(STAGES):
        hopper.mbarrier.init(q_full.index(i), count=1)
        hopper.mbarrier.init(do_full.index(i), count=1)
        hopper.mbarrier.init(q_empty.index(i), count=2)  # a place is free once both consumers released it
        hopper.mbarrier.init(do_empty.index(i), count=2)
    for i in gl.static_range(2):
        hopper.mbarrier.init(ds_full.index(i), count=2)
    done = gl.allocate_shared_memory(gl.int64, [1], BARRIER)
    hopper.mbarrier.init(done, count=2)
    hopper.fence_async_shared()

    sizes = (n_q, n_kv, window, share, parts)
    keys = (k_tile, k_full)
    values = (v_tile, v_full)
    queries = (q_tile, base_tile, q_full, q_empty)
    gradients = (do_tile, delta_tile, do_full, do_empty)
    fetch = (q_desc, k_desc, v_desc, do_desc, base_desc, delta_desc, keys, values, queries, gradients, sizes)
    walk = (sum_desc, keys, values, queries, gradients, (ds_tile, ds_full), halves, done, sizes)
    # Registers a thread: two consumers of 4 warps and 4 warps for the producer's one share the 65,536 of the SM.
    gl.warp_specialize([
        (_consume, (walk, dk_desc, dv_desc, scale, scale_log2, 0, CAUSAL, WINDOW, MASKED, SHARED)),
        (_consume, (walk, dk_desc, dv_desc, scale, scale_log2, 1, CAUSAL, WINDOW, MASKED, SHARED)),
        (_produce, (fetch, CAUSAL, WINDOW)),
    ], [4, 1], [240, 24])


def parts(workload: AttentionWorkload) -> int:
    """Programs that share the query heads of a KV head, and sum dK and dV in HBM: as many as fill the device, no more."""
    w = workload
    alone = cdiv(w.keys, BLOCK_N) * w.kv_heads * w.batch
    return next((n for n in range(1, w.group) if w.group % n == 0 and n * alone >= PROGRAMS), w.group)


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, Any]:
    w = workload
    return {
        "BLOCK_M": config["block_m"], "BLOCK_D": block_d(w.head_dim), "STAGES": config["stages"], "CAUSAL": w.causal,
        "WINDOW": w.window > 0, "MASKED": w.causal or w.keys % BLOCK_N > 0, "SHARED": parts(w) > 1,
    }


def _blocks(workload: AttentionWorkload, config: Config) -> dict[str, list[int]]:
    """The blocks in which the copy engine moves each operand."""
    summed = " sum" if parts(workload) > 1 else ""
    bm, bd = config["block_m"], block_d(workload.head_dim)
    rows, half, numbers = [1, 1, bm, bd], [1, 1, WARPGROUP_ROWS, bd], [1, 1, bm]
    return {
        "Q": rows, "K": half, "V": half, "dO": rows, "base": numbers, "delta": numbers,
        "dQ sum": [1, 1, WARPGROUP_ROWS, min(bd, PANEL)], f"dK{summed}": half, f"dV{summed}": half,
    }


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The walk and what goes before and after it, on tensors of any strides that the copy engine takes; lse and scratch
    contiguous.

    O and lse are flash's, made here, once.

    Raises:
        Refusal: Gluon is missing, the tensors are not on a GPU, or a stride is not the copy engine's.
    """
    require_hopper(tensors)
    w = workload
    flash.launch(w, tuned.choose(TABLE, "flash", w), tensors)()
    seen = tensors | {name: tensors[name][:, :, : w.seq] for name in ("base", "delta")}
    tiles = [tma_descriptor(name, seen[name], block) for name, block in _blocks(w, config).items()]
    scale = w.head_dim**-0.5
    numbers = (w.seq, w.keys, w.window, w.group // parts(w), parts(w), scale, scale * LOG2E)
    grid = (cdiv(w.keys, BLOCK_N), w.kv_heads * parts(w), w.batch)
    options = _constants(w, config) | {"num_warps": 4}
    before, after = gradient_rows.bind(w, tensors, parts(w) > 1)

    def run() -> Tensors:
        before()
        _flash_hopper_backward[grid](*tiles, *numbers, **options)
        after()
        return {name: tensors[name] for name in ("dQ", "dK", "dV")}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """The launches of the backward pass and flash's forward before them; none where the head dim is refused."""
    w = workload
    if constraints(w):
        return ()
    names = [name for name in arg_names(_flash_hopper_backward) if name.endswith("_desc")]
    described = {
        name: tma_described("float32" if operand in ("base", "delta") or operand.endswith("sum") else w.dtype, block)
        for name, (operand, block) in zip(names, _blocks(w, config).items(), strict=True)
    }
    walk = Compilation(
        launch="flash_hopper_backward", kernel=_flash_hopper_backward, constants=_constants(w, config), warps=4,
        stages=config["stages"], signature=described | dict.fromkeys(LENGTHS, "i32") | {"scale": "fp32", "scale_log2": "fp32"},
    )
    before, after = gradient_rows.compilations(w, parts(w) > 1)
    return *before, walk, *after, *flash.compilations(w, tuned.choose(TABLE, "flash", w))


def constraints(workload: AttentionWorkload) -> list[str]:
    """A sentence where dK and dV do not fit the registers."""
    if block_d(workload.head_dim) <= 2 * PANEL:
        return []
    return ["flash for Hopper keeps dK and dV in registers and so has a backward pass for head dims up to 128, not "
            f"{workload.head_dim}: choose flash"]


def sram_bytes(workload: AttentionWorkload, config: Config) -> int:
    """K, V, rings of Q and dO with their numbers, two turns of dS, a tile of dQ that leaves, and the barriers."""
    bm, bn, bd, stages = config["block_m"], config["block_n"], block_d(workload.head_dim), config["stages"]
    return 2 * (2 * (bn + bm * stages) * bd + 2 * bm * bn) + 4 * bm * (bd + 2 * stages) + 1024


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """key_walk's, with sums of dK and dV where programs share a KV head."""
    return key_walk.operands(workload, parts(workload) > 1)


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """key_walk's closed form."""
    return key_walk.cost(workload, config, parts(workload), idle=False)


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """delta, the walk, dQ from its sum, and what shared KV heads need beside. The order is that of the data."""
    return key_walk.schedule(
        workload, config, kernel="flash_hopper", walk="flash_hopper_backward", warps=12, ring=config["stages"],
        turns=2, sum_in_sram=True, parts=parts(workload), idle=False, roles=("producer", "consumer"), groups=2,
        wgmma=True,
    )
