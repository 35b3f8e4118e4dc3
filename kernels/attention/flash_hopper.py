"""FlashAttention for Hopper, forward: warps with roles, K and V through a ring, softmax beside the matrix units.

The formula, HBM traffic and tile traffic are flash's; what differs is who does what:
- one warp is the producer: the copy engine (TMA) fills a ring of `stages` tiles of K and one of V, guarded by barriers;
- each warpgroup of four warps is a consumer of 64 query rows: S = Q K^T from shared memory, P V with P in registers;
- S of the next tile and P V of this one are issued together, and the softmax of the next runs while P V is computed; in
  turns, so that one consumer's products fill the matrix unit during another's softmax;
- programs stay resident and walk over (head, block of rows) items: the heads of a section, whose K and V fit in the L2
  together, come before the next section's, and within it the longest rows come first.
A block of rows that sees no key still visits the first tile, wholly masked, so that every barrier turns for every item.
Source: Shah et al., FlashAttention-3 (2024), algorithm 2 and section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from kernels import tuned
from kernels.attention import flash_hopper_backward, reference, row_walk
from kernels.attention.hopper_tiles import (
    SRAM_BYTES,
    TABLE,
    WARPGROUP_ROWS,
    elsewhere,
    require_hopper,
    tma_described,
    tma_descriptor,
)
from kernels.contract import (
    Affine,
    AttentionWorkload,
    Axis,
    Compilation,
    Config,
    Cost,
    Device,
    Expr,
    KernelInfo,
    KernelSpec,
    Launch,
    Loop,
    Param,
    Schedule,
    Slot,
    Table,
    TileOp,
    const,
    of_pass,
    var,
)
from kernels.jit import LOG2E, block_d, cdiv, gl, gluon_jit, hopper

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

SECTION_BYTES = 24 << 20  # K and V that programs read at one time: half of the L2, which two halves of the chip share
PROGRAMS = 132  # one a multiprocessor of an H100 or H200, where the device does not say
LENGTHS = ("n_q", "n_kv", "window", "heads", "group", "blocks", "items", "span", "zigzag")


@gluon_jit
def _place(start: gl.tensor, sizes: gl.tuple) -> Any:
    """(batch, head, block of rows) of an item; `start` counts items by program."""
    _, _, _, heads, _, blocks, items, span, zigzag = sizes
    step = gl.num_programs(0)
    turn = start // step
    back = (zigzag != 0) & (turn % 2 == 1) & ((turn + 1) * step <= items)
    item = gl.where(back, (2 * turn + 1) * step - 1 - start, start)  # who had the longest row gets the shortest
    section = item // (span * blocks)
    rest = item % (span * blocks)
    flat = section * span + rest % span
    return flat // heads, flat % heads, blocks - 1 - rest // span


@gluon_jit
def _tiles(
    m: gl.tensor, sizes: gl.tuple, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, CAUSAL: gl.constexpr, WINDOW: gl.constexpr,
) -> Any:
    """(first, lead, full, last): tiles first..lead and full..last need a mask, lead..full none; first < last always."""
    n_q, n_kv, window, _, _, _, _, _, _ = sizes
    shift = n_kv - n_q
    first = 0
    lead = 0
    full = n_kv // BLOCK_N
    last = (n_kv + BLOCK_N - 1) // BLOCK_N
    if CAUSAL:
        full = gl.minimum(full, gl.maximum(m * BLOCK_M + shift + 1, 0) // BLOCK_N)
        last = gl.minimum(last, gl.maximum((m + 1) * BLOCK_M + shift + BLOCK_N - 1, BLOCK_N) // BLOCK_N)
    if WINDOW:
        first = gl.maximum(m * BLOCK_M + shift - window + 1, 0) // BLOCK_N
        lead = (gl.maximum((m + 1) * BLOCK_M + shift - window, 0) + BLOCK_N - 1) // BLOCK_N
        lead = gl.minimum(gl.maximum(lead, first), last)
        full = gl.maximum(full, lead)
    return first, lead, full, last


@gluon_jit
def _fetch(desc: gl.tensor, b: gl.tensor, h: gl.tensor, row: gl.tensor, ring: gl.tuple, t: gl.tensor) -> None:
    """Asks for the t-th tile of a ring once its place is free: a fresh barrier lets parity 1 through, so the first
    STAGES tiles wait for no one, and tile t waits for the release of tile t - STAGES."""
    tile, full, empty = ring
    STAGES: gl.constexpr = tile.shape[0]
    place = t % STAGES
    hopper.mbarrier.wait(empty.index(place), (t // STAGES + 1) & 1)
    hopper.mbarrier.expect(full.index(place), desc.block_type.nbytes)
    view = tile.index(place).reshape(desc.block_shape)
    hopper.tma.async_copy_global_to_shared(desc, [b, h, row, 0], full.index(place), view)


@gluon_jit
def _produce(parts: gl.tuple, CAUSAL: gl.constexpr, WINDOW: gl.constexpr) -> None:
    """Q of each consumer, then K a tile ahead of V, as the consumers take them: as many as they take, item by item."""
    q_desc, k_desc, v_desc, queries, keys, values, sizes = parts
    _, _, _, _, group, _, items, _, _ = sizes
    q_tile, q_full, q_empty = queries
    CONSUMERS: gl.constexpr = q_tile.shape[0]
    BLOCK_M: gl.constexpr = CONSUMERS * 64
    BLOCK_N: gl.constexpr = keys[0].shape[1]
    t = 0
    for start in range(gl.program_id(0), items, gl.num_programs(0)):
        visit = start // gl.num_programs(0)
        b, h, m = _place(start, sizes)
        first, _, _, last = _tiles(m, sizes, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
        for c in gl.static_range(CONSUMERS):
            hopper.mbarrier.wait(q_empty.index(c), (visit + 1) & 1)
            hopper.mbarrier.expect(q_full.index(c), q_desc.block_type.nbytes)
            view = q_tile.index(c).reshape(q_desc.block_shape)
            hopper.tma.async_copy_global_to_shared(q_desc, [b, h, m * BLOCK_M + c * 64, 0], q_full.index(c), view)
        g = h // group
        _fetch(k_desc, b, g, first * BLOCK_N, keys, t)
        for j in range(first + 1, last):
            _fetch(k_desc, b, g, j * BLOCK_N, keys, t + 1)
            _fetch(v_desc, b, g, (j - 1) * BLOCK_N, values, t)
            t += 1
        _fetch(v_desc, b, g, (last - 1) * BLOCK_N, values, t)
        t += 1


@gluon_jit
def _thread_sums(p: gl.tensor, BLOCK_N: gl.constexpr) -> Any:
    """Row sums over what each thread holds: [64, 4], the four threads of a row still apart."""
    return gl.sum(gl.sum(p.reshape([64, BLOCK_N // 8, 4, 2]), 3), 1)


@gluon_jit
def _mask(s: gl.tensor, j: gl.tensor, upper: gl.tensor, lower: gl.tensor, BLOCK_N: gl.constexpr, WINDOW: gl.constexpr) -> Any:
    """S with -inf for the keys of tile j outside lower < key <= upper of the row."""
    cols = gl.arange(0, BLOCK_N, gl.SliceLayout(0, s.type.layout))
    seen = cols[None, :] <= (upper - j * BLOCK_N)[:, None]
    if WINDOW:
        seen = seen & (cols[None, :] > (lower - j * BLOCK_N)[:, None])
    return gl.where(seen, s, float("-inf"))


@gluon_jit
def _softmax(
    s: gl.tensor, m_i: gl.tensor, l_i: gl.tensor, scale_log2: float, BLOCK_N: gl.constexpr, HIDING: gl.constexpr,
) -> Any:
    """P, the factor of what came before, m and l [64, 4], in base 2. With HIDING a row may have seen no key yet."""
    top = gl.max(gl.max(s.reshape([64, BLOCK_N // 16, 16]), 1), 1)  # as a tree, for a chain of 64 would wait on itself
    m_new = gl.maximum(m_i, gl.convert_layout(top, gl.SliceLayout(1, s.type.layout)) * scale_log2)
    base = m_new
    if HIDING:
        base = gl.where(m_new == float("-inf"), 0.0, m_new)
    p = gl.exp2(s * scale_log2 - base[:, None])
    alpha = gl.exp2(m_i - base)
    fade = gl.convert_layout(alpha, gl.SliceLayout(1, l_i.type.layout))
    return p, alpha, m_new, l_i * fade[:, None] + _thread_sums(p, BLOCK_N)


@gluon_jit
def _step(
    state: gl.tuple, visit: gl.tensor, j: gl.tensor, q: gl.tensor, keys: gl.tuple, values: gl.tuple, turns: gl.tensor,
    upper: gl.tensor, lower: gl.tensor, scale_log2: float, C: gl.constexpr, MASKED: gl.constexpr, WINDOW: gl.constexpr,
    PINGPONG: gl.constexpr, S_LAYOUT: gl.constexpr, O_LAYOUT: gl.constexpr,
) -> Any:
    """One tile further: P of tile j, while P V of the tile before is computed. t counts tiles, visit the items before."""
    p, acc, m_i, l_i, t = state
    k_tile, k_full, k_empty = keys
    v_tile, v_full, v_empty = values
    STAGES: gl.constexpr = k_tile.shape[0]
    BLOCK_N: gl.constexpr = k_tile.shape[1]
    this = t % STAGES
    following = (t + 1) % STAGES
    parity = ((t + 1) // STAGES) & 1
    hopper.mbarrier.wait(k_full.index(following), parity)
    if PINGPONG:  # t - visit turns were taken, by every consumer as many; the first of consumer 0 passes a fresh barrier
        hopper.mbarrier.wait(turns.index(C), (t - visit + (C == 0)) & 1)
    zero = gl.full([64, BLOCK_N], 0.0, gl.float32, S_LAYOUT)
    s = hopper.warpgroup_mma(q, k_tile.index(following).permute((1, 0)), zero, use_acc=False, is_async=True)
    acc = hopper.warpgroup_mma(p, v_tile.index(this), acc, is_async=True)
    if PINGPONG:
        hopper.mbarrier.arrive(turns.index((C + 1) % turns.shape[0]))
    s = hopper.warpgroup_mma_wait(1, deps=[s])
    hopper.mbarrier.arrive(k_empty.index(following))
    if MASKED:
        s = _mask(s, j, upper, lower, BLOCK_N, WINDOW)
    e, alpha, m_i, l_i = _softmax(s, m_i, l_i, scale_log2, BLOCK_N, MASKED)
    # This wait is the next step's, and why STAGES is at least 2: V of this tile is not yet released. Here its branch keeps
    # the assembler from moving the exponentials behind P V's wait.
    hopper.mbarrier.wait(v_full.index(following), parity)
    acc, _ = hopper.warpgroup_mma_wait(0, deps=[acc, p])
    hopper.mbarrier.arrive(v_empty.index(this))
    acc = acc * gl.convert_layout(alpha, gl.SliceLayout(1, O_LAYOUT))[:, None]
    p = gl.convert_layout(e.to(v_tile.dtype), gl.DotOperandLayout(0, O_LAYOUT, 2))
    return p, acc, m_i, l_i, t + 1


@gluon_jit
def _consume(
    parts: gl.tuple, C: gl.constexpr, CAUSAL: gl.constexpr, WINDOW: gl.constexpr, MASKED: gl.constexpr,
    PINGPONG: gl.constexpr, OWN_O: gl.constexpr,
) -> None:
    """The C-th 64 rows of every item: for each tile one wait on its barrier and one release, as the producer counts."""
    o_desc, queries, keys, values, o_tile, turns, sizes, scale_log2 = parts
    n_q, n_kv, window, _, _, _, items, _, _ = sizes
    q_tile, q_full, q_empty = queries
    k_tile, k_full, k_empty = keys
    v_tile, v_full, v_empty = values
    BLOCK_M: gl.constexpr = q_tile.shape[0] * 64
    BLOCK_D: gl.constexpr = q_tile.shape[2]
    STAGES: gl.constexpr = k_tile.shape[0]
    BLOCK_N: gl.constexpr = k_tile.shape[1]
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_D, 16])
    ROWS: gl.constexpr = gl.SliceLayout(1, S_LAYOUT)
    q = q_tile.index(C)
    out = o_tile.index(C)
    t = 0
    for start in range(gl.program_id(0), items, gl.num_programs(0)):
        visit = start // gl.num_programs(0)
        b, h, m = _place(start, sizes)
        first, lead, full, last = _tiles(m, sizes, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
        row = m * BLOCK_M + C * 64
        upper = gl.full([64], 0, gl.int32, ROWS) + (n_kv - 1)  # the last key that a row sees
        if CAUSAL:
            upper = gl.minimum(upper, row + gl.arange(0, 64, ROWS) + (n_kv - n_q))
        lower = upper
        if WINDOW:
            lower = upper - window
        acc = gl.full([64, BLOCK_D], 0.0, gl.float32, O_LAYOUT)
        m_i = gl.full([64], float("-inf"), gl.float32, ROWS)
        zero = gl.full([64, BLOCK_N], 0.0, gl.float32, S_LAYOUT)
        l_i = _thread_sums(zero, BLOCK_N)

        parity = (t // STAGES) & 1
        hopper.mbarrier.wait(q_full.index(C), visit & 1)
        hopper.mbarrier.wait(k_full.index(t % STAGES), parity)
        s = hopper.warpgroup_mma(q, k_tile.index(t % STAGES).permute((1, 0)), zero, use_acc=False, is_async=True)
        s = hopper.warpgroup_mma_wait(0, deps=[s])
        hopper.mbarrier.arrive(k_empty.index(t % STAGES))
        if MASKED:  # noqa: SIM102 - decided by the compiler, and then by the program
            if (first < lead) | (first >= full):
                s = _mask(s, first, upper, lower, BLOCK_N, WINDOW)
        e, _alpha, m_i, l_i = _softmax(s, m_i, l_i, scale_log2, BLOCK_N, MASKED)
        p = gl.convert_layout(e.to(v_tile.dtype), gl.DotOperandLayout(0, O_LAYOUT, 2))
        hopper.mbarrier.wait(v_full.index(t % STAGES), parity)
        state = (p, acc, m_i, l_i, t)
        if WINDOW:
            for j in range(first + 1, lead):
                state = _step(state, visit, j, q, keys, values, turns, upper, lower, scale_log2, C, True,
                              WINDOW, PINGPONG, S_LAYOUT, O_LAYOUT)
        for j in range(gl.maximum(lead, first + 1), full):
            state = _step(state, visit, j, q, keys, values, turns, upper, lower, scale_log2, C, False,
                              WINDOW, PINGPONG, S_LAYOUT, O_LAYOUT)
        if MASKED:
            for j in range(gl.maximum(full, first + 1), last):
                state = _step(state, visit, j, q, keys, values, turns, upper, lower, scale_log2, C, True,
                              WINDOW, PINGPONG, S_LAYOUT, O_LAYOUT)
        p, acc, m_i, l_i, t = state
        if OWN_O:
            hopper.mbarrier.arrive(q_empty.index(C))  # the last S is done, the producer may bring the next Q
        acc = hopper.warpgroup_mma(p, v_tile.index(t % STAGES), acc, is_async=True)
        acc, p = hopper.warpgroup_mma_wait(0, deps=[acc, p])
        hopper.mbarrier.arrive(v_empty.index(t % STAGES))
        t += 1

        total = gl.convert_layout(gl.sum(l_i, 1), gl.SliceLayout(1, O_LAYOUT))
        acc = acc * (1.0 / gl.where(total == 0.0, 1.0, total))[:, None]
        if OWN_O:
            hopper.tma.store_wait(pendings=0)  # the O before has left its place
        out.store(acc.to(out.dtype))
        hopper.fence_async_shared()
        hopper.tma.async_copy_shared_to_global(o_desc, [b, h, row, 0], out.reshape(o_desc.block_shape))
        if not OWN_O:  # O lay where Q was
            hopper.tma.store_wait(pendings=0)
            hopper.mbarrier.arrive(q_empty.index(C))
    hopper.tma.store_wait(pendings=0)


@partial(gluon_jit, do_not_specialize=LENGTHS)
def _flash_hopper(
    q_desc: gl.tensor, k_desc: gl.tensor, v_desc: gl.tensor, o_desc: gl.tensor, n_q: int, n_kv: int, window: int,
    heads: int, group: int, blocks: int, items: int, span: int, zigzag: int, scale_log2: float,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_D: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    WINDOW: gl.constexpr, MASKED: gl.constexpr, PINGPONG: gl.constexpr, OWN_O: gl.constexpr,
) -> None:
    CONSUMERS: gl.constexpr = BLOCK_M // 64
    TILE: gl.constexpr = gl.NVMMASharedLayout(q_desc.layout.swizzle_byte_width, 16, rank=2)
    BARRIER: gl.constexpr = hopper.mbarrier.MBarrierLayout()
    q_tile = gl.allocate_shared_memory(q_desc.dtype, [CONSUMERS, 64, BLOCK_D], TILE)
    k_tile = gl.allocate_shared_memory(q_desc.dtype, [STAGES, BLOCK_N, BLOCK_D], TILE)
    v_tile = gl.allocate_shared_memory(q_desc.dtype, [STAGES, BLOCK_N, BLOCK_D], TILE)
    o_tile = q_tile
    if OWN_O:
        o_tile = gl.allocate_shared_memory(q_desc.dtype, [CONSUMERS, 64, BLOCK_D], TILE)
    turns = gl.allocate_shared_memory(gl.int64, [CONSUMERS, 1], BARRIER)
    q_full = gl.allocate_shared_memory(gl.int64, [CONSUMERS, 1], BARRIER)
    q_empty = gl.allocate_shared_memory(gl.int64, [CONSUMERS, 1], BARRIER)
    for c in gl.static_range(CONSUMERS):
        hopper.mbarrier.init(turns.index(c), count=1)
        hopper.mbarrier.init(q_full.index(c), count=1)
        hopper.mbarrier.init(q_empty.index(c), count=1)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], BARRIER)
    for i in gl.static_range(STAGES):
        hopper.mbarrier.init(k_full.index(i), count=1)
        hopper.mbarrier.init(v_full.index(i), count=1)
        hopper.mbarrier.init(k_empty.index(i), count=CONSUMERS)  # a place is free once every consumer released it
        hopper.mbarrier.init(v_empty.index(i), count=CONSUMERS)
    hopper.fence_async_shared()

    queries = (q_tile, q_full, q_empty)
    keys = (k_tile, k_full, k_empty)
    values = (v_tile, v_full, v_empty)
    sizes = (n_q, n_kv, window, heads, group, blocks, items, span, zigzag)
    fetch = (q_desc, k_desc, v_desc, queries, keys, values, sizes)
    attend = (o_desc, queries, keys, values, o_tile, turns, sizes, scale_log2)
    # Registers a thread: 4 warps for each consumer and 4 for the producer's one share the 65,536 of the SM.
    if CONSUMERS == 1:
        gl.warp_specialize([
            (_consume, (attend, 0, CAUSAL, WINDOW, MASKED, PINGPONG, OWN_O)),
            (_produce, (fetch, CAUSAL, WINDOW)),
        ], [1], [24])
    elif CONSUMERS == 2:
        gl.warp_specialize([
            (_consume, (attend, 0, CAUSAL, WINDOW, MASKED, PINGPONG, OWN_O)),
            (_consume, (attend, 1, CAUSAL, WINDOW, MASKED, PINGPONG, OWN_O)),
            (_produce, (fetch, CAUSAL, WINDOW)),
        ], [4, 1], [240, 24])
    else:
        gl.warp_specialize([
            (_consume, (attend, 0, CAUSAL, WINDOW, MASKED, PINGPONG, OWN_O)),
            (_consume, (attend, 1, CAUSAL, WINDOW, MASKED, PINGPONG, OWN_O)),
            (_consume, (attend, 2, CAUSAL, WINDOW, MASKED, PINGPONG, OWN_O)),
            (_produce, (fetch, CAUSAL, WINDOW)),
        ], [4, 4, 1], [160, 160, 32])


def _consumers(config: Config) -> int:
    return max(1, config["block_m"] // WARPGROUP_ROWS)


def _sram_bytes(workload: AttentionWorkload, config: Config, rows_of_o: int = 0) -> int:
    """Q, the rings of K and V, a place for O if it has its own, and the barriers."""
    rows = config["block_m"] + 2 * config["block_n"] * config["stages"] + rows_of_o
    return rows * block_d(workload.head_dim) * 2 + 1024


def _own_o(workload: AttentionWorkload, config: Config) -> bool:
    """Whether O has a place of its own to leave from, so that the next Q can come: where it fits, else it leaves from Q's."""
    return _sram_bytes(workload, config, rows_of_o=config["block_m"]) <= SRAM_BYTES


def _items(workload: AttentionWorkload, config: Config) -> int:
    return cdiv(workload.seq, config["block_m"]) * workload.heads * workload.batch


def _resident(workload: AttentionWorkload, config: Config) -> int:
    """Programs that stay and walk over the items; 0 where every item has its own."""
    programs = config.params.get("programs", PROGRAMS)
    return programs if programs < _items(workload, config) else 0


def _zigzag(workload: AttentionWorkload, config: Config) -> bool:
    """Whether resident programs take every other round backwards: causal rows differ in length."""
    return workload.causal and _resident(workload, config) > 0


def _span(workload: AttentionWorkload, config: Config) -> int:
    """Heads in a section: a divisor of all heads of the batch, whole groups, whose K and V fit in half of the L2; all
    heads where rows are dealt out by length, which sections would break."""
    w = workload
    pairs = w.batch * w.kv_heads
    fitting = max(1, SECTION_BYTES // (2 * w.keys * w.head_dim * w.itemsize))
    if _zigzag(w, config):
        fitting = pairs
    return w.group * max(n for n in range(1, min(fitting, pairs) + 1) if pairs % n == 0)


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, Any]:
    return {
        "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"], "BLOCK_D": block_d(workload.head_dim),
        "STAGES": config["stages"], "CAUSAL": workload.causal, "WINDOW": workload.window > 0,
        "MASKED": workload.causal or workload.keys % config["block_n"] > 0,
        "PINGPONG": bool(config.params.get("pingpong", 1)),
        "OWN_O": _own_o(workload, config),
    }


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The kernel on Q, K, V and O of any strides that the copy engine takes.

    Raises:
        Refusal: Gluon is missing, the tensors are not on a GPU, or a stride is not the copy engine's.
    """
    require_hopper(tensors)
    w, bd = workload, block_d(workload.head_dim)
    q, o = (tma_descriptor(name, tensors[name], [1, 1, WARPGROUP_ROWS, bd]) for name in "QO")
    k, v = (tma_descriptor(name, tensors[name], [1, 1, config["block_n"], bd]) for name in "KV")
    blocks = cdiv(w.seq, config["block_m"])
    items = _items(w, config)
    numbers = (w.seq, w.keys, w.window, w.heads, w.group, blocks, items, _span(w, config), int(_zigzag(w, config)),
               w.head_dim**-0.5 * LOG2E)
    options = _constants(w, config) | {"num_warps": 4}
    grid = (_resident(w, config) or items,)

    def run() -> Tensors:
        _flash_hopper[grid](q, k, v, o, *numbers, **options)
        return {"O": tensors["O"]}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """The forward kernel with this workload's flags."""
    bd = block_d(workload.head_dim)
    queries, keys = (tma_described(workload.dtype, [1, 1, rows, bd]) for rows in (WARPGROUP_ROWS, config["block_n"]))
    signature = {"q_desc": queries, "k_desc": keys, "v_desc": keys, "o_desc": queries}
    signature |= dict.fromkeys(LENGTHS, "i32") | {"scale_log2": "fp32"}
    return (Compilation(
        launch="flash_hopper", kernel=_flash_hopper, signature=signature, constants=_constants(workload, config),
        warps=4, stages=config["stages"],
    ),)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of Hopper's table, on any device: it is the only one the kernel has."""
    chosen = tuned.choose(TABLE, "flash_hopper", replace(workload, dtype="bfloat16"))
    params = {name: value for name, value in chosen.params.items() if name not in ("warps", "wgmma")}
    if workload.pass_ == "forward":
        params["programs"] = 0 if device.kind == "cpu" else device.sms or PROGRAMS
    config = Config(params=params)
    return tuned.with_resources(config, _COMPILATIONS(workload, config), device)


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched: another architecture, float32, blocks or head dims that the pass does not take, tiles that
    do not fit the SM."""
    back = workload.pass_ == "backward"
    reasons = elsewhere(workload, device) or (flash_hopper_backward.constraints(workload) if back else [])
    if reasons or device.kind == "cpu":
        return reasons
    known = replace(device, sram_bytes_per_block=device.sram_bytes_per_block or SRAM_BYTES)
    need = flash_hopper_backward.sram_bytes if back else _sram_bytes
    return tuned.too_large("flash for Hopper", need(workload, config), known)


def _ranges(workload: AttentionWorkload, config: Config) -> tuple[Expr, Expr, Expr]:
    """(first, full, last) tile as expressions of m: without a window tiles first..full need no mask."""
    w, bm, bn = workload, config["block_m"], config["block_n"]
    first, last = row_walk.ranges(w, config, least=1)
    full = ((var("m") * bm + w.keys - w.seq + 1) // bn).clip(0, w.keys // bn) if w.causal else const(w.keys // bn)
    return first, full, last


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form. A block of rows that sees no key visits one tile."""
    return row_walk.cost(workload, config, least=1)


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """One launch whose programs walk over (head in section, block of rows, section); the producer's loads run ahead.

    The order is that of the data: the kernel also issues S of the next tile before it waits for P V of this one.
    """
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    first, full, last = _ranges(w, config)
    compiled, span = config.resources.get("flash_hopper"), _span(w, config)
    flat = _flat(w, config)
    at = (flat // w.heads, flat % w.heads, var("m") * bm, const(0))
    loops = ((first, last),) if w.window or not (w.causal or w.keys % bn) else ((first, full), (full, last))
    body: tuple[TileOp | Loop, ...] = (
        TileOp(kind="load", title="load Q", operand="Q", at=at, tile=(1, 1, bm, bd), writes=("Q",), warp_role="producer"),
        TileOp(kind="compute", title="m = -inf, l = 0, O = 0", fn="start", reads=("Q",), writes=("Q", "m", "l", "O"),
               warp_role="consumer"),
        *(Loop(var="j", first=start, last=stop, body=_tile_ops(w, config)) for start, stop in loops),
        TileOp(kind="compute", title="O = O / l", fn="finish", reads=("O", "l"), writes=("O out",), vector_flops=bm * bd,
               warp_role="consumer"),
        TileOp(kind="store", title="store O", operand="O", at=at, tile=(1, 1, bm, bd), reads=("O out",), warp_role="consumer"),
    )
    zigzag = _zigzag(w, config)
    return Schedule(
        kernel="flash_hopper", operands=(*reference.operands(w), *row_walk.unwritten(w)),
        tables={"zigzag": _rounds(_items(w, config), _resident(w, config))} if zigzag else {},
        launches=(Launch(
            name="flash_hopper", title="flash attention, warps with roles", warps=4 * _consumers(config) + 4,
            grid=(Axis("head", span), Axis("m", cdiv(w.seq, bm), reverse=True), Axis("section", w.batch * w.heads // span)),
            slots=_slots(w, config), body=body, resident=_resident(w, config), order="zigzag" if zigzag else "",
            groups=_consumers(config), async_products=True, wgmma=True,
            sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
        ),),
    )


def _rounds(items: int, programs: int) -> Table:
    """The order of items in which every other full round goes backwards."""
    start = np.arange(items)
    turn = start // programs
    back = (turn % 2 == 1) & ((turn + 1) * programs <= items)
    return Table((items,), tuple(np.where(back, (2 * turn + 1) * programs - 1 - start, start).tolist()))


def _flat(workload: AttentionWorkload, config: Config) -> Affine:
    """The head among all heads of the batch."""
    return var("section") * _span(workload, config) + var("head")


def _slots(workload: AttentionWorkload, config: Config) -> tuple[Slot, ...]:
    """And O on its way out."""
    out = Slot(name="O out", shape=(config["block_m"], block_d(workload.head_dim)), itemsize=workload.itemsize, operand="O")
    return (*row_walk.slots(workload, config, config["stages"]), out)


def _tile_ops(workload: AttentionWorkload, config: Config) -> tuple[TileOp, ...]:
    flat = _flat(workload, config)
    head = (flat // workload.heads, flat // workload.group % workload.kv_heads)
    return row_walk.tile_ops(workload, config, head, config["stages"], ("producer", "consumer"))


_COMPILATIONS = of_pass(compilations, flash_hopper_backward.compilations)

KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="flash_hopper", title="flash for Hopper", place=4,
            family="attention", role="ours", dtypes=("float16", "bfloat16"),
            summary="a warp that fetches, warpgroups that multiply in turns, softmax beside the matrix units",
            source="Shah et al. 2024, FlashAttention-3", passes=("forward", "backward"),
            params=(
                Param(name="block_m", title="Block of queries", choices=(64, 128, 192), unit="rows", passes=("forward",)),
                Param(name="block_n", title="Block of keys", choices=(64, 128), unit="rows", passes=("forward",)),
                Param(name="stages", title="Stages", choices=(2, 3, 4), help="depth of the rings: K and V, backward Q and dO"),
                Param(name="pingpong", title="Ping-pong", choices=(0, 1), passes=("forward",),
                      help="1: warpgroups multiply in turns, one's products beside the other's softmax"),
            ),
        ),
        operands=of_pass(reference.operands, flash_hopper_backward.operands), inputs=reference.inputs,
        reference=reference.reference, launch=of_pass(launch, flash_hopper_backward.launch),
        configure=configure, constraints=constraints, cost=of_pass(cost, flash_hopper_backward.cost),
        schedule=of_pass(schedule, flash_hopper_backward.schedule),
        compilations=_COMPILATIONS, tolerance=reference.tolerance,
    ),
)
