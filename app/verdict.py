"""The verdict line: one sentence in plain words, made from the numbers on screen, and where they come from. Free of Qt."""

from __future__ import annotations

from dataclasses import dataclass

from app import format as fmt
from app.facts import memory_name, model_of, opaque, sharing, wasted_bytes
from app.predicted import prediction, why
from app.store import Snapshot
from engine.protocol import KernelPlan

ALIKE = 1.02    # a ratio below it is no difference
FEW = 3         # samples of each kernel, before which no speeds are compared
MINOR = 0.3     # of a kernel's time: bytes that take less than it do not set its speed


@dataclass(frozen=True)
class Verdict:
    """`text`: the sentence. `provenance`: of its numbers, in words. `more`: further facts, the most telling first."""

    text: str
    provenance: str = ""
    more: tuple[str, ...] = ()


def verdict(snapshot: Snapshot) -> Verdict:
    """What happened and why; before the first sample, what the bytes alone foretell."""
    if snapshot.hello is None:
        return Verdict("Waiting for the engine.")
    if not snapshot.plans:
        return Verdict(snapshot.refusals.get("", "Tick a kernel to see what it moves."))
    for kernel in snapshot.plans:
        if snapshot.failed(kernel):
            return _failed(snapshot, kernel)
    running = [plan for plan in snapshot.plans.values() if plan.kernel not in snapshot.refusals]
    refused = [plan for plan in snapshot.plans.values() if plan.kernel in snapshot.refusals]
    pair = _pair(snapshot, running)
    limits = why(snapshot, [plan.kernel for plan in pair or running[:2]])
    facts = (_on_cpu(snapshot, pair), _faster_peer(snapshot, running), limits, _causal(snapshot, pair), _sharing(snapshot))
    more = tuple(fact for fact in facts if fact)
    if pair is not None:
        return _compared(snapshot, *pair, more)
    if refused:
        return _refused(snapshot, refused[0], running, more)
    return _peers(snapshot, running, more) if len(running) > 1 else _alone(snapshot, running[0], more)


def _pair(snapshot: Snapshot, running: list[KernelPlan]) -> tuple[KernelPlan, KernelPlan] | None:
    """Of the kernels whose traffic is known, the one that moves most and the one that moves least."""
    known = sorted((plan for plan in running if not opaque(snapshot, plan.kernel)), key=lambda plan: plan.cost.hbm_bytes)
    return (known[-1], known[0]) if len(known) > 1 else None


def _compared(snapshot: Snapshot, heavy: KernelPlan, light: KernelPlan, more: tuple[str, ...]) -> Verdict:
    many, few = snapshot.title(heavy.kernel), snapshot.title(light.kernel)
    fewer = heavy.cost.hbm_bytes / max(1, light.cost.hbm_bytes)
    waste = wasted_bytes(heavy)
    clause = f"; {many} spends {fmt.bytes_iec(waste)} on S and P" if waste else ""
    if fewer < ALIKE:
        moves, same = f"{few} and {many} move the same bytes", True
    else:
        moves, same = f"{few} moves {fmt.ratio(fewer)} fewer bytes than {many}", False
    speed = _speed_ratio(snapshot, heavy.kernel, light.kernel)
    if speed is None:
        return _foretold(snapshot, heavy, light, f"{moves}{clause}", more)
    verb = "run" if same else "runs"
    because = _why_not_faster(snapshot, heavy) if speed < ALIKE and not same else ""
    if 1 / ALIKE <= speed <= ALIKE:
        text = f"{moves} and {verb} at the same speed"
    elif speed > 1:
        text = f"{moves} and {'' if not same else f'{few} '}runs {fmt.ratio(speed)} faster"
    else:
        text = f"{moves} {'and' if same else 'but'} {'' if not same else f'{few} '}runs {fmt.ratio(1 / speed)} slower"
    provenance = f"bytes scheduled, speed {snapshot.series[light.kernel].provenance}"
    return Verdict(f"{text}{because or clause}", provenance, more)


def _speed_ratio(snapshot: Snapshot, slow: str, fast: str) -> float | None:
    """How many times faster `fast` is, by medians: 1 where their spreads overlap; None before both have some samples."""
    first, second = snapshot.shown(slow), snapshot.shown(fast)
    if first is None or second is None or min(first.n, second.n) < FEW:
        return None
    overlap = first.p20 <= second.p80 and second.p20 <= first.p80
    return 1.0 if overlap else first.p50 / second.p50


def _foretold(snapshot: Snapshot, heavy: KernelPlan, light: KernelPlan, said: str, more: tuple[str, ...]) -> Verdict:
    """Before there are samples: what is predicted, else what the bytes alone take."""
    slow, fast = prediction(snapshot, heavy.kernel), prediction(snapshot, light.kernel)
    if slow is None or fast is None:
        return Verdict(f"{said}{_time_of_bytes(snapshot, heavy, light)}", "scheduled", more)
    times = f"{fmt.time_ns(slow.time_ns)} against {fmt.time_ns(fast.time_ns)}"
    return Verdict(f"{said}; predicted are {times}", "bytes scheduled, times simulated", more)


def _time_of_bytes(snapshot: Snapshot, heavy: KernelPlan, light: KernelPlan) -> str:
    """The least time that the bytes take, where the device's bandwidth is known."""
    bandwidth = snapshot.device.bandwidth_bytes_per_s if snapshot.device else None
    if not bandwidth:
        return ""
    times = [fmt.time_ns(plan.cost.hbm_bytes / bandwidth * 1e9) for plan in (heavy, light)]
    return f"; at {fmt.rate(bandwidth)} the bytes alone take {times[0]} against {times[1]}"


def _why_not_faster(snapshot: Snapshot, heavy: KernelPlan) -> str:
    """Why fewer bytes did not help: said only where the numbers on screen show it."""
    device, stats = snapshot.device, snapshot.shown(heavy.kernel)
    if device is not None and device.kind == "cpu":
        return ": on a CPU each tile is a call into PyTorch, and calls cost more there than bytes"
    if device is None or not device.bandwidth_bytes_per_s or stats is None:
        return ""
    share = heavy.cost.hbm_bytes / device.bandwidth_bytes_per_s * 1e9 / stats.p50
    many = snapshot.title(heavy.kernel)
    return f": moving bytes is only {fmt.percent(share)} of {many}'s time here" if share < MINOR else ""


def _refused(snapshot: Snapshot, plan: KernelPlan, running: list[KernelPlan], more: tuple[str, ...]) -> Verdict:
    name = snapshot.title(plan.kernel)
    if snapshot.memory_bytes and plan.peak_memory_bytes > snapshot.memory_bytes:
        need, have = fmt.bytes_iec(plan.peak_memory_bytes), fmt.bytes_iec(snapshot.memory_bytes)
        text = f"{name} does not fit: it needs {need} and {have} of {memory_name(snapshot)} are free"
    else:
        text = f"{name} cannot run: {snapshot.refusals[plan.kernel].rstrip('.')}"
    going = [_brief(snapshot, other) for other in running[:2]]
    return Verdict("; ".join((text, *going)), "memory modelled" + _speed_provenance(snapshot, running), more)


def _brief(snapshot: Snapshot, plan: KernelPlan) -> str:
    name, stats = snapshot.title(plan.kernel), snapshot.shown(plan.kernel)
    need = f"{name} needs {fmt.bytes_iec(plan.peak_memory_bytes)}"
    return need if stats is None else f"{need} and runs at {fmt.tflops(snapshot.series[plan.kernel].median_tflops)}"


def _failed(snapshot: Snapshot, kernel: str) -> Verdict:
    check = snapshot.checks[kernel]
    return Verdict(
        f"{snapshot.title(kernel)} does not agree with the reference: error {fmt.error(check.max_error)}, "
        f"allowed {fmt.error(check.tolerance)}; its speed is not shown", "measured",
    )


def _peers(snapshot: Snapshot, running: list[KernelPlan], more: tuple[str, ...]) -> Verdict:
    """Kernels of which at most one has a known schedule: only their speeds can be compared."""
    timed = _timed(snapshot, running)
    least = fmt.bytes_iec(min(plan.cost.hbm_bytes for plan in running))
    if len(timed) < 2:
        both = " and ".join(snapshot.title(plan.kernel) for plan in running[:2])
        return Verdict(f"{both} must move at least {least}", "scheduled", more)
    (fast_ns, fast), (slow_ns, slow) = timed[0], timed[-1]
    names = snapshot.title(fast), snapshot.title(slow)
    if slow_ns / fast_ns < ALIKE:
        text = f"{names[0]} and {names[1]} run at the same speed"
    else:
        text = f"{names[0]} runs {fmt.ratio(slow_ns / fast_ns)} faster than {names[1]}"
    return Verdict(f"{text}; each must move at least {least}", f"bytes scheduled{_speed_provenance(snapshot, running)}", more)


def _alone(snapshot: Snapshot, plan: KernelPlan, more: tuple[str, ...]) -> Verdict:
    name, stats = snapshot.title(plan.kernel), snapshot.shown(plan.kernel)
    moves = f"{name} moves {'at least ' if opaque(snapshot, plan.kernel) else ''}{fmt.bytes_iec(plan.cost.hbm_bytes)}"
    waste = f", {fmt.bytes_iec(wasted_bytes(plan))} of it S and P" if wasted_bytes(plan) else ""
    if stats is None:
        return Verdict(f"{moves}{waste}; tick a second kernel to compare", "scheduled", more)
    speed = fmt.tflops(snapshot.series[plan.kernel].median_tflops)
    provenance = f"bytes scheduled{_speed_provenance(snapshot, [plan])}"
    return Verdict(f"{moves}{waste} and runs at {speed}, {fmt.time_ns(stats.p50)} each", provenance, more)


def _timed(snapshot: Snapshot, running: list[KernelPlan]) -> list[tuple[float, str]]:
    """Median times and kernels, fastest first."""
    shown = ((snapshot.shown(plan.kernel), plan.kernel) for plan in running)
    return sorted((stats.p50, kernel) for stats, kernel in shown if stats is not None and stats.n >= FEW)


def _speed_provenance(snapshot: Snapshot, running: list[KernelPlan]) -> str:
    kinds = {snapshot.series[plan.kernel].provenance for plan in running if snapshot.shown(plan.kernel) is not None}
    return f", speed {' and '.join(sorted(kinds))}" if kinds else ""


def _faster_peer(snapshot: Snapshot, running: list[KernelPlan]) -> str:
    """That a library is faster than our best, where it is."""
    timed = _timed(snapshot, running)
    ours = [entry for entry in timed if not opaque(snapshot, entry[1])]
    if not ours or timed[0] == ours[0] or ours[0][0] / timed[0][0] < ALIKE:
        return ""
    best, peer = ours[0], timed[0]
    return f"{snapshot.title(peer[1])} runs {fmt.ratio(best[0] / peer[0])} faster than {snapshot.title(best[1])}"


def _on_cpu(snapshot: Snapshot, pair: tuple[KernelPlan, KernelPlan] | None) -> str:
    """That a CPU's speeds say little of a GPU's."""
    cpu = snapshot.device is not None and snapshot.device.kind == "cpu"
    return "on a CPU both run tile by tile in PyTorch: bytes carry over to a GPU, speeds do not" if cpu and pair else ""


def _causal(snapshot: Snapshot, pair: tuple[KernelPlan, KernelPlan] | None) -> str:
    """How much of the matrix work the mask saves the kernel that skips hidden tiles."""
    if snapshot.workload is None or not snapshot.workload.causal or pair is None:
        return ""
    heavy, light = pair
    share = light.cost.flops / max(1, heavy.cost.flops)
    if share >= 1 / ALIKE:
        return ""
    names = snapshot.title(light.kernel), snapshot.title(heavy.kernel)
    return f"causal: {names[0]} does {fmt.percent(share)} of {names[1]}'s matrix work"


def _sharing(snapshot: Snapshot) -> str:
    """What sharing K and V among query heads saves, where they are shared."""
    workload = snapshot.workload
    if workload is None or workload.group == 1:
        return ""
    model = model_of(snapshot)
    layers = model.layers if model else 1
    size = fmt.bytes_iec(workload.kv_cache_bytes(layers=layers))
    whole = fmt.bytes_iec(workload.kv_cache_bytes(workload.heads, layers))
    return f"{sharing(workload, workload.kv_heads)} keeps the KV cache at {size} where MHA needs {whole}"
