"""The verdict line of a batching: one sentence from the numbers on screen, and further facts. Free of Qt."""

from __future__ import annotations

from app import format as fmt
from app.batching.facts import ONES, SHORT, Knee, found, in_cache, kernel_title, knee, parts, share
from app.batching.state import BatchState
from app.facts import memory_name
from app.store import Snapshot
from app.verdict import ALIKE, Verdict
from engine.protocol import Batching, Provenance

NEAR = 2.0      # times: a measured knee that is further from the predicted one is not called what was predicted
LIMITED = 0.3   # of the product ceiling, from where on arithmetic may be what limits the largest batch


def verdict(snapshot: Snapshot) -> Verdict:
    """What a batch costs beside one row; before two batches are measured, what the bytes foretell."""
    state = snapshot.batch
    if snapshot.hello is None:
        return Verdict("Waiting for the engine.")
    if state.batching is None:
        return Verdict(snapshot.refusals.get("", "Choose what is batched to see what a batch costs."))
    if (wrong := _wrong(snapshot, state)) is not None:
        return wrong
    lead = state.kernels[0]
    if not state.running(lead):
        return _refused(snapshot, state)
    more = tuple(fact for fact in (
        _ceilings(state), _library(snapshot, state), _near(snapshot, state), _left_out(state)) if fact)
    times = state.times(lead)
    if len(times) < 2:
        return _foretold(state, state.batching, more)
    bend = knee(state)
    return Verdict(_pace(state.batching, times, bend) + _bend(state, times, bend), _provenance(state, bend), more)


def _pace(batching: Batching, times: dict[int, float], bend: Knee) -> str:
    """What the largest batch before the bend takes and does, beside the smallest."""
    first, *rest = times
    end = bend.measured or bend.predicted or float("inf")
    shown = max((batch for batch in rest if batch <= end * 1.001), default=rest[-1])  # a fit lands beside it
    longer = times[shown] / times[first]
    one = f"one {ONES[batching.work]}" if first == 1 else fmt.plural(first, ONES[batching.work])
    return (f"A batch of {fmt.count(shown)} takes {fmt.ratio(longer)} the time of {one} and does "
            f"{fmt.ratio(shown / first / longer)} the work a second")


def _bend(state: BatchState, times: dict[int, float], bend: Knee) -> str:
    """Where arithmetic takes over, as measured and as predicted; or that it does not."""
    batching = state.batching
    assert batching is not None
    what, last, foretold = SHORT[batching.work], fmt.count(max(times)), fmt.count(bend.predicted)
    if bend.measured is not None:
        at = fmt.count(bend.measured)
        if bend.predicted is None:
            if batching.work == "model":
                return f"; from batch {at} on the growing caches bend its throughput, and arithmetic never takes over"
            return f"; from batch {at} on its throughput bends"
        if max(bend.measured / bend.predicted, bend.predicted / bend.measured) < NEAR:
            reached = share(state, state.kernels[0], max(times))
            if reached is not None and reached.flops < LIMITED:
                return (f"; from batch {at} on its throughput bends (predicted {foretold}), though at "
                        f"{fmt.percent(reached.flops)} of what a plain product does")
            return f"; from batch {at} on this {what} is bound by arithmetic (predicted {foretold})"
        if batching.work == "model" and bend.measured < bend.predicted:
            return f"; from batch {at} on the growing caches bend its throughput, long before arithmetic (predicted {foretold})"
        return f"; from batch {at} on its throughput bends; that arithmetic takes over was predicted at {foretold}"
    if bend.predicted is None:
        if batching.work == "model":
            return f"; up to batch {last} it is bound by memory, for the cache grows with the batch"
        return ""
    if bend.predicted > max(times):
        return f"; up to batch {last} this {what} is bound by memory, as predicted up to {foretold}"
    return f"; up to batch {last} its throughput does not bend, predicted {foretold}"


def _foretold(state: BatchState, batching: Batching, more: tuple[str, ...]) -> Verdict:
    """What follows from the bytes."""
    largest = state.running(state.kernels[0])[-1]
    fixed = parts(batching, 1)[0]
    times = fmt.ratio(largest.moved_bytes / state.plans[min(state.plans)].moved_bytes)
    what = "the same weights" if batching.work == "model" else "the same W"
    return Verdict(
        f"A batch of {fmt.count(largest.batch)} reads {what}, {fmt.bytes_iec(fixed.size)}, as one {ONES[batching.work]} does: "
        f"it moves {times} the bytes and does {fmt.ratio(largest.batch / min(state.plans))} the arithmetic", "modelled", more)


def _wrong(snapshot: Snapshot, state: BatchState) -> Verdict | None:
    """An output that is not the reference's."""
    for (kernel, batch), check in state.checks.items():
        if not check.ok:
            return Verdict(
                f"{kernel_title(state, kernel, snapshot.title(kernel))} does not agree with the reference at batch "
                f"{fmt.count(batch)}: error {fmt.error(check.max_error)}, allowed {fmt.error(check.tolerance)}; its speed is "
                "not shown", "measured")
    return None


def _refused(snapshot: Snapshot, state: BatchState) -> Verdict:
    lead, batch = state.kernels[0], min(state.plans)
    plan, reason = state.plans[batch], state.refusals[state.kernels[0], batch]
    if state.memory_bytes and plan.peak_memory_bytes > state.memory_bytes:
        need, have = fmt.bytes_iec(plan.peak_memory_bytes), fmt.bytes_iec(state.memory_bytes)
        what = f"{need} are needed and {have} of {memory_name(snapshot)} are free"
        return Verdict(f"Not even batch {fmt.count(batch)} fits: {what}", "memory modelled")
    name = kernel_title(state, lead, snapshot.title(lead))
    return Verdict(f"{name} cannot run at batch {fmt.count(batch)}: {reason.rstrip('.')}", "modelled")


def _provenance(state: BatchState, bend: Knee) -> str:
    kinds: set[Provenance] = {point.provenance for point in state.points[state.kernels[0]].values()}
    said = f"times {' and '.join(sorted(kinds))}"
    return f"{said}, prediction modelled from {found(state)} ceilings" if bend.predicted is not None else said


def _ceilings(state: BatchState) -> str:
    """How near the two ends come to the two ceilings."""
    lead, top = state.kernels[0], state.ceilings
    times = state.times(lead)
    if top is None or len(times) < 2:
        return ""
    first, last = min(times), max(times)
    low, high = share(state, lead, first), share(state, lead, last)
    assert low is not None
    assert high is not None
    return (f"batch {fmt.count(first)} moves {fmt.percent(low.bytes)} of {fmt.rate(top.bytes_per_s)}, batch {fmt.count(last)} "
            f"does {fmt.percent(high.flops)} of {fmt.quantity(top.flops_per_s, 'FLOP/s')}")


def _library(snapshot: Snapshot, state: BatchState) -> str:
    """That the library is faster at some batch sizes, where it is."""
    if len(state.kernels) < 2:
        return ""
    lead, other = state.kernels[:2]
    ours, theirs = state.times(lead), state.times(other)
    gains = [(ours[batch] / theirs[batch], batch) for batch in ours if batch in theirs]
    most = max(gains, default=(0.0, 0))
    if most[0] < ALIKE:
        return ""
    return f"{snapshot.title(other)} is up to {fmt.ratio(most[0])} faster, at batch {fmt.count(most[1])}"


def _near(snapshot: Snapshot, state: BatchState) -> str:
    """That W is read from the L2, which is faster than the ceiling of the memory."""
    assert state.batching is not None
    if not in_cache(state.batching, snapshot.device):
        return ""
    assert snapshot.device is not None
    return (f"W fits the L2 of {fmt.bytes_iec(snapshot.device.l2_bytes)} and is read from there: choose a larger width to read "
            f"it from {memory_name(snapshot)}")


def _left_out(state: BatchState) -> str:
    batches = sorted({batch for kernel, batch in state.refusals if kernel == state.kernels[0]})
    return f"batch {', '.join(map(fmt.count, batches))} cannot run" if batches else ""
