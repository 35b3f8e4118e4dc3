"""How decoding is cut: which query heads lie in one tile, into how many splits the cached tokens go, and what that costs.

A program owns a tile of query heads that share a KV head, and one split of the cached tokens. Grid and number of splits follow
from the capacity of the cache alone, for the lengths live on the device: of T tiles of keys split s of S has those from
s T // S to (s + 1) T // S, so that shares are even whatever the length is, and a share may be empty.
"""

from __future__ import annotations

from msgspec.structs import replace

from kernels import tuned
from kernels.attention import reference
from kernels.contract import AttentionWorkload, Config, Cost, Device, Expr, Operand, Param, Slot, Traffic, var
from kernels.decode.steps import Steps
from kernels.jit import block_d, cdiv, next_power_of_2

LEAST_ROWS = 16        # query heads of a tile, as the matrix units take them
MOST_HEADS = 64        # query heads that one program serves; in float32, which no matrix unit multiplies exactly, 16
LEAST_KEYS = 128       # of a split, where the number of splits is chosen
MOST_SPLITS = 128
MOST_PROGRAMS = 1024   # of a grid that is cut at all: some waves of the largest devices
USUAL_WAVE = 264       # programs that an H200 runs at once, for configurations that were made for no device
START_TILES = 2        # what a program costs beside its tiles, in tiles: it starts, fills its ring and writes its sums
TEAM_ELEMENTS = 2048   # of O that each warp may hold beside its tiles of Q, K and V: 64 registers of a thread
HOPPER = (9, 0)        # the first capability with a copy engine for tiles and with dependent launches
CHUNK_ELEMENTS = 4096  # of O of the splits that are combined at once, 32 splits at most

SPLITS = Param(name="splits", title="Splits", choices=(0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128),
               help="programs that share the cached tokens of a KV head; 0: as many as fill the device")
PARAMS = (
    Param(name="block_n", title="Block of keys", choices=(16, 32, 64, 128, 256), unit="rows"),
    Param(name="warps", title="Warps", choices=(1, 2, 4, 8)),
    Param(name="stages", title="Stages", choices=(1, 2, 3, 4, 5), help="depth of the pipeline of loads"),
)


def packed(workload: AttentionWorkload) -> int:
    """Query heads in one tile: the group's, or the largest part of it that a program serves."""
    most = LEAST_ROWS if workload.dtype == "float32" else MOST_HEADS
    return max(n for n in range(1, min(workload.group, most) + 1) if workload.group % n == 0)


def rows(heads: int) -> int:
    """Rows of the tile that so many query heads lie in."""
    return max(LEAST_ROWS, next_power_of_2(heads))


def most_splits(workload: AttentionWorkload) -> int:
    """For how many splits there is scratch."""
    w = workload
    return max(1, min(MOST_SPLITS, cdiv(w.keys, LEAST_ROWS), cdiv(MOST_PROGRAMS, w.batch * w.heads // packed(w))))


def splits(workload: AttentionWorkload, config: Config) -> int:
    """The splits of a launch: those that are set, else those that take the least time where programs come in waves.

    A wave takes as long as its programs: their tiles, and START_TILES. `wave`: programs that the device runs at once.
    """
    w, most = workload, most_splits(workload)
    if config.params.get("splits"):
        return min(config["splits"], most)
    programs, tiles = w.batch * w.heads // packed(w), cdiv(w.keys, config["block_n"])
    wave = config.params.get("wave", USUAL_WAVE)
    most = min(most, max(1, w.keys // LEAST_KEYS))
    return min(range(1, most + 1), key=lambda s: (cdiv(programs * s, wave) * (cdiv(tiles, s) + START_TILES), s))


def ring(config: Config) -> int:
    """Copies of a tile that the pipeline of loads keeps. Source: the shared memory that the compiler reports."""
    return max(1, config["stages"] - 1)


def sram_bytes(workload: AttentionWorkload, config: Config, itemsize: int) -> int:
    """The rings of K and V, of elements of that size."""
    return 2 * config["block_n"] * ring(config) * block_d(workload.head_dim) * itemsize


def teams(workload: AttentionWorkload, config: Config, heads: int) -> int:
    """Warps that walk over keys of their own until the sums are taken, where registers hold O for each; else 1."""
    own = config["block_n"] // config["warps"] >= 16 and rows(heads) * block_d(workload.head_dim) <= TEAM_ELEMENTS
    return config["warps"] if own and workload.dtype != "float32" else 1


def configured(kernel: str, workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table. `wave`: programs that the device runs at once, `per_sm` of the row on each SM."""
    config = tuned.nearest(kernel, workload, device)
    sms = device.sms if device.kind != "cpu" and device.sms else 1
    return replace(config, params={"splits": 0} | config.params | {"wave": sms * config.params.get("per_sm", 1)})


def refused(title: str, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What decoding does not do, and what a device does not."""
    w, reasons = workload, []
    if w.seq > 1:
        reasons.append(f"{title} decodes one query a sequence: set the sequence to 1 and the KV length to the cached tokens")
    if w.window:
        reasons.append(f"{title} reads the whole cache: set window to 0")
    older = device.kind != "cpu" and device.capability is not None and device.capability < HOPPER
    asked = [name for name in ("tma", "dependent") if config.params.get(name)]
    if older and asked:
        reasons.append(f"{' and '.join(asked)} of {title} need compute capability {HOPPER[0]}.{HOPPER[1]}: set them to 0")
    return reasons


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Q, K, V and O, and where there may be splits their O and lse."""
    return (*reference.operands(workload), *scratch(workload))


def scratch(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """The O [B, H_q, splits, D] and lse [B, H_q, splits] of the splits, float32; none where the cache is never split."""
    w, most = workload, most_splits(workload)
    if most == 1:
        return ()
    return (
        Operand(name="O_part", shape=(w.batch, w.heads, most, w.head_dim), itemsize=4, role="scratch"),
        Operand(name="lse_part", shape=(w.batch, w.heads, most), itemsize=4, role="scratch"),
    )


def steps(workload: AttentionWorkload, config: Config, heads: int, *, paged: bool = False) -> Steps:
    """What a walk by `heads` query heads a program does on tiles of numbers as the workload has them."""
    w = workload
    return Steps(rows=rows(heads), keys=config["block_n"], width=block_d(w.head_dim), teams=teams(w, config, heads),
                 warps=config["warps"], itemsize=w.itemsize, stored=w.itemsize, paged=paged)


def cost(workload: AttentionWorkload, heads: int, count: int, cache: dict[str, int], steps: Steps) -> Cost:
    """Closed form of a walk over all tiles of K and V by every tile of query heads, in `count` splits.

    Args:
        heads: query heads of a program.
        cache: bytes of each operand of the cache.
        steps: of a program.
    """
    w, bn, bd, r = workload, steps.keys, steps.width, steps.rows
    owners, queries = w.batch * w.heads // heads, w.batch * w.heads * w.head_dim * w.itemsize
    tiles = owners * cdiv(w.keys, bn)
    vector_flops = tiles * (steps.softmax_flops + 2 * steps.tile_flops)
    vector_flops += owners * count * (steps.start_flops + steps.end_flops)
    exps = tiles * (r * bn + steps.teams * r)
    hbm = {"Q": Traffic(queries, 0), **{name: Traffic(size, 0) for name, size in cache.items()}, "O": Traffic(0, queries)}
    tile = hbm | {"Q": Traffic(queries * count, 0)} | {
        name: Traffic(size * (w.group // heads), 0) for name, size in cache.items()}
    if count > 1:
        parts, chunks = w.batch * w.heads * count, w.batch * w.heads * cdiv(count, chunk(w))
        vector_flops += owners * count * r + chunks * merge_flops(w) + w.batch * w.heads * block_d(w.head_dim)
        exps += chunks * (chunk(w) + 1)
        moved = {"O_part": Traffic(4 * parts * w.head_dim, 4 * parts * w.head_dim), "lse_part": Traffic(4 * parts, 4 * parts)}
        hbm, tile = hbm | moved, tile | moved
    return Cost(nominal_flops=w.nominal_flops, flops=tiles * 4 * r * bn * bd, vector_flops=vector_flops, exps=exps, hbm=hbm,
                tile=tile)


def chunk(workload: AttentionWorkload) -> int:
    """Splits that are combined at once."""
    return min(32, CHUNK_ELEMENTS // block_d(workload.head_dim))


def merge_flops(workload: AttentionWorkload) -> int:
    """Of one chunk: its maximum, weights, and the sum of its O and l beside those of before."""
    bd = block_d(workload.head_dim)
    return chunk(workload) * (2 * bd + 3) + bd + 3


def bounds(workload: AttentionWorkload, config: Config, count: int) -> tuple[Expr, Expr]:
    """(first, last) tile of split s; `last` is one past."""
    tiles = cdiv(workload.keys, config["block_n"])
    return (var("s") * tiles) // count, (var("s") * tiles + tiles) // count


def slots(workload: AttentionWorkload, config: Config, heads: int, bd: int) -> tuple[Slot, ...]:
    """What a program holds beside its tiles of K and V: in registers Q, S, P, m, l and O."""
    r, bn, size = rows(heads), config["block_n"], workload.itemsize
    return (
        Slot(name="Q", shape=(r, bd), itemsize=size, place="registers", operand="Q"),
        Slot(name="S", shape=(r, bn), itemsize=4, place="registers", operand="S"),
        Slot(name="P", shape=(r, bn), itemsize=size, place="registers", operand="P"),
        Slot(name="m", shape=(r,), itemsize=4, place="registers"),
        Slot(name="l", shape=(r,), itemsize=4, place="registers"),
        Slot(name="O", shape=(r, bd), itemsize=4, place="registers", operand="O"),
    )
