"""What of a prediction lies outside of what was held against measurements: sentences. The tables are docs/simulator.md."""

from __future__ import annotations

from engine.simulator import traffic
from engine.simulator.figures import DeviceSpec
from engine.simulator.prediction import Launched, Prediction
from kernels.contract import AttentionWorkload, KernelSpec, LinearWorkload, Workload

HELD = ("NVIDIA H200",)  # what drivers call the GPUs whose own kernels were measured beside their predictions
MATTER = {               # of the figures of a spec, those that limit by each part of a breakdown
    "matrix": ("achievable_matrix",), "L2": ("l2_bytes_per_clock", "achievable_l2"),
    "HBM": ("achievable_bandwidth", "achievable_copy", "achievable_l2", "memory_ramp_s"),
    "waits": ("memory_latency_s", "l2_latency_s"), "launch": ("graph_launch_s",),
}
SLOWER = ("paged", "int8", "fp8")
APART = 0.008  # of a walk, by which the SMs are further apart after it. Source: docs/performance.md, programs that drift apart
SHARED = 0.5   # of what SMs load, that the L2 has to find so that it matters


def doubts(kernel: KernelSpec, workload: Workload, spec: DeviceSpec, prediction: Prediction) -> tuple[str, ...]:
    """Empty where a prediction is of a kind that was held against measurements."""
    found = []
    if workload.dtype == "float32":
        found.append("float32 was not held against measurements")
    if workload.pass_ == "backward":
        found.append("backward passes are up to 20 % off")
    if isinstance(workload, AttentionWorkload) and workload.window:
        found.append("windows were not held against measurements")
    if isinstance(workload, LinearWorkload) and workload.repeat > 1:
        found.append("steps of a recurrent network were not held against measurements")
    if kernel.id in SLOWER and isinstance(workload, AttentionWorkload) and workload.kv_heads == 1:
        found.append("where one KV head serves all it was up to 45 % slower than predicted")
    if prediction.l2_hit_rate > SHARED and any(_drift_apart(each, spec) for each in prediction.launches):
        found.append("programs drift apart beyond what the L2 holds: up to 6 times as much was read")
    if min(each.programs for each in prediction.launches[:1]) < spec.sms // 4:
        found.append("so few programs were not held against measurements")
    if not set(spec.names) & set(HELD):
        found.append(f"our kernels were not measured on any {spec.title}")
    if guessed := [name for name in MATTER.get(prediction.limiter, ()) if name in spec.estimated]:
        found.append(f"{', '.join(guessed)} of {spec.title} {'is' if len(guessed) == 1 else 'are'} estimated")
    return tuple(found)


def _drift_apart(launch: Launched, spec: DeviceSpec) -> bool:
    """Whether the programs that run at once come to lie further apart than what the L2 holds; a walk at most, for an SM that is
    ahead begins the next one."""
    waves, walk = launch.programs / (launch.per_sm * spec.sms), launch.tile_bytes / launch.programs
    return min(1.0, APART * waves) * walk > traffic.cache_bytes(spec)
