"""The verdict line of a decoding: one sentence from the numbers on screen, and further facts. Free of Qt."""

from __future__ import annotations

import math

from app import format as fmt
from app.decoding.facts import CACHE_TITLES, compared, kv_token_bytes, pages, power_of, time_at, titles
from app.decoding.state import DecodeState, LaneSeries, held_bytes
from app.facts import memory_name, shared
from app.store import Snapshot
from app.verdict import ALIKE, Verdict
from engine.protocol import Decoding, Lane

FLAT = 0.3      # an exponent below which the time of a step without a cache hardly grows
BOUND = 0.5     # of the peak bandwidth: a step that reads faster is bound by that


def verdict(snapshot: Snapshot) -> Verdict:
    """What the cache does; before the first samples of two lanes, what follows from the formulas alone."""
    state = snapshot.decode
    if snapshot.hello is None:
        return Verdict("Waiting for the engine.")
    if state.decoding is None:
        return Verdict(snapshot.refusals.get("", "Tick a cache and an attention to see what they cost."))
    running = [plan.lane for plan in state.running()]
    if not running:
        return _refused(snapshot, state, state.decoding)
    more = tuple(fact for fact in (
        _flat(snapshot, running) or _growth(state), _bandwidth(snapshot, running), _sharing(state.decoding, running),
        _pages(state, running), _left_out(state)) if fact)
    held = _shown(state, running)
    if held is None:
        return _foretold(state.decoding, running, more)
    position = _position(state, held)
    text, kind = _pace(state, state.decoding, held, position), state.lanes[held.id].provenance
    if held.cache == "none":
        return Verdict(text, f"speed {kind}", more)
    size = fmt.bytes_iec(held_bytes(state.decoding, held, position))
    each = fmt.bytes_iec(kv_token_bytes(state.decoding, held))
    return Verdict(f"{text}; the cache holds {size}, {each} a token", f"speed {kind}, bytes modelled", more)


def _shown(state: DecodeState, running: list[Lane]) -> Lane | None:
    """The lane that the sentence is about: of the pair that is compared, else the first that has a time."""
    pair = compared(state)
    ordered = ([state.lane(pair[0])] if pair else []) + running
    return next((lane for lane in ordered if state.median_ns(lane.id) is not None), None)


def _other(state: DecodeState, lane: Lane) -> LaneSeries | None:
    """The samples of the lane without a cache that a lane is compared with, where it is."""
    pair = compared(state)
    other = state.lanes.get(pair[1]) if pair and pair[0] == lane.id else None
    return other if other is not None and len(other.position) else None


def _position(state: DecodeState, lane: Lane) -> int:
    """Where a lane stands, or the one that it is compared with where that lags: all that the sentence says is of there."""
    series, other = state.lanes[lane.id], _other(state, lane)
    return int(min(one.position[-1] for one in (series, other) if one is not None))


def _pace(state: DecodeState, decoding: Decoding, lane: Lane, position: int) -> str:
    """How fast a lane is there, and how many times that is of the one without a cache."""
    title, series, other = decoding.model.title, state.lanes[lane.id], _other(state, lane)
    own = time_at(series, position) or series.median_ns
    assert own is not None
    rate = fmt.significant(decoding.batch * 1e9 / own)
    how = "Without a cache" if lane.cache == "none" else f"With its {_cache(lane)}"
    said = f"{how} {title} makes {rate} tokens/s at token {fmt.count(position)}"
    bare = time_at(other, position) if other is not None else None
    if bare is None:
        return said
    if max(bare / own, own / bare) < ALIKE:
        return f"{said}, as many as without"
    return f"{said}, {fmt.ratio(bare / own)} as many as without"


def _cache(lane: Lane) -> str:
    return "cache" if lane.cache == "dense" else f"{CACHE_TITLES[lane.cache]} cache"


def _foretold(decoding: Decoding, running: list[Lane], more: tuple[str, ...]) -> Verdict:
    """What the formulas say."""
    held = next((lane for lane in running if lane.cache != "none"), None)
    last, before = decoding.tokens, fmt.plural(decoding.tokens - 1, "token")
    again = f"Without a cache the step to token {fmt.count(last)} computes k and v of all {before} before it"
    if held is None:
        return Verdict(again, "modelled", more)
    size = fmt.bytes_iec(held_bytes(decoding, held, last))
    each = fmt.bytes_iec(kv_token_bytes(decoding, held))
    return Verdict(f"{again}; the {_cache(held)} holds them in {size}, {each} a token", "modelled", more)


def _refused(snapshot: Snapshot, state: DecodeState, decoding: Decoding) -> Verdict:
    name, plan = next(iter(state.plans.items()))
    text = f"{decoding.model.title} cannot be decoded so: {state.refusals[name].rstrip('.')}"
    if state.memory_bytes and plan.peak_memory_bytes > state.memory_bytes:
        need, have = fmt.bytes_iec(plan.peak_memory_bytes), fmt.bytes_iec(state.memory_bytes)
        what = f"{titles(state)[name]} needs {need} and {have} of {memory_name(snapshot)} are free"
        text = f"{decoding.model.title} does not fit: {what}"
        if plan.longest:
            text += f"; {fmt.count(plan.longest)} tokens fit"
    return Verdict(text, "memory modelled")


def _growth(state: DecodeState) -> str:
    """How the time of a token grows, with a cache and without."""
    pair = compared(state)
    if pair is None:
        return ""
    powers = [power_of(state.lanes[name].exponent) if name in state.lanes else "" for name in pair]
    return f"time per token {powers[0]} with a cache, {powers[1]} without" if all(powers) else ""


def _flat(snapshot: Snapshot, running: list[Lane]) -> str:
    """What binds a step without a cache on a GPU where its time hardly grows; empty where it does."""
    device, pair = snapshot.device, compared(snapshot.decode)
    name = pair[1] if pair else next((lane.id for lane in running if lane.cache == "none"), "")
    series = snapshot.decode.lanes.get(name)
    if device is None or device.kind == "cpu" or series is None or series.median_ns is None:
        return ""
    if series.exponent is None or series.exponent >= FLAT:
        return ""
    share = float(series.step_bytes[-1]) / series.median_ns * 1e9 / (device.bandwidth_bytes_per_s or math.inf)
    took = fmt.time_ns(series.median_ns)
    if share > BOUND:
        return f"without a cache a step is bound by the reading of weights here, {took} whatever the length"
    return f"without a cache a step takes {took} at almost any length: so few tokens leave the GPU idle"


def _bandwidth(snapshot: Snapshot, running: list[Lane]) -> str:
    """How much of the peak bandwidth the fastest reader takes."""
    peak = snapshot.device.bandwidth_bytes_per_s if snapshot.device else None
    lanes = snapshot.decode.lanes
    rates = [(float(lanes[lane.id].step_bytes[-1]) / time_ns * 1e9, lane) for lane in running
             if (time_ns := snapshot.decode.median_ns(lane.id)) is not None]
    if not rates or not peak:
        return ""
    rate, lane = max(rates, key=lambda entry: entry[0])
    return f"{titles(snapshot.decode)[lane.id]} reads {fmt.rate(rate)}, {fmt.percent(rate / peak)} of the peak"


def _sharing(decoding: Decoding, running: list[Lane]) -> str:
    """What fewer KV heads save."""
    heads = decoding.model.heads
    few = min(lane.kv_heads for lane in running)
    if few == heads:
        return ""
    small, whole = (Lane(cache="dense", kv_heads=kv_heads) for kv_heads in (few, heads))
    sizes = [fmt.bytes_iec(kv_token_bytes(decoding, lane)) for lane in (small, whole)]
    return f"{shared(heads, few)} keeps {sizes[0]} a token where MHA needs {sizes[1]}"


def _pages(state: DecodeState, running: list[Lane]) -> str:
    """How much of its pages a paged cache wastes."""
    paged = next((lane for lane in running if lane.cache == "paged" and lane.id in state.lanes), None)
    if paged is None or not len(state.lanes[paged.id].position):
        return ""
    held = pages(int(state.lanes[paged.id].position[-1]) - 1)
    return f"{fmt.plural(held.pages, 'page')} a sequence, {fmt.percent(held.waste)} of their slots empty"


def _left_out(state: DecodeState) -> str:
    names = [titles(state)[name] for name in state.plans if name in state.refusals]
    return f"{', '.join(names)} cannot run" if names else ""
