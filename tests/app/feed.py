"""Event streams for the tests of the app: what an engine would send, with the catalog's own costs."""

from __future__ import annotations

import math

from engine.protocol import (
    Checked,
    DeviceSample,
    Event,
    Hello,
    KernelPlan,
    KernelSample,
    MemorySample,
    Model,
    Phase,
    Planned,
    Predicted,
    PredictedLaunch,
    Roof,
)
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Device, fields_of

GIB = 2**30
H200 = Device(
    id="cuda:0", kind="cuda", name="NVIDIA H200", capability=(9, 0), sms=132, sram_bytes_per_block=232448, l2_bytes=60 << 20,
    memory_bytes=150754820096, bandwidth_bytes_per_s=4.8e12, driver="580.159",
)
CPU = Device(id="cpu", kind="cpu", name="AMD EPYC 9B14", sms=2, memory_bytes=16 * GIB)
WORKLOAD = AttentionWorkload(batch=4, seq=4096, heads=16, kv_heads=16, head_dim=128)
MEDIANS_NS = {
    "naive": 14.1e6, "flash": 2.31e6, "sdpa_cudnn": 2.0e6, "sdpa_efficient": 3.4e6, "sdpa_flash": 2.9e6, "sdpa_math": 17e6,
}
MODEL = Model(id="llama-3-8b", title="Llama-3-8B", heads=32, kv_heads=8, head_dim=128, layers=32, context=8192,
              hidden=4096, mlp=14336, vocab=128256)


def hello() -> Hello:
    """The first event. Of the catalog the kernels of MEDIANS_NS: a new kernel changes no approved picture."""
    infos = tuple(spec.info for spec in catalog().values() if spec.id in MEDIANS_NS)
    return Hello(devices=(H200, CPU), kernels=infos, fields=fields_of(AttentionWorkload), models=(MODEL,))


def planned(
    kernels: tuple[str, ...] = ("naive", "flash"), workload: AttentionWorkload = WORKLOAD, device: Device = H200,
    generation: int = 1, refused: dict[str, str] | None = None, t_s: float = 0.0,
) -> Planned:
    """The answer to a Configure: costs and schedules as the kernels state them."""
    plans = []
    for kernel in kernels:
        spec = catalog()[kernel]
        config = spec.configure(workload, device)
        peak = sum(operand.bytes for operand in spec.operands(workload) if operand.materialised)
        plans.append(KernelPlan(
            kernel=kernel, config=config, cost=spec.cost(workload, config), peak_memory_bytes=peak,
            schedule=spec.schedule(workload, config) if spec.schedule else None, refused=(refused or {}).get(kernel),
        ))
    peak = max((plan.peak_memory_bytes for plan in plans), default=0) + GIB // 2
    return Planned(t_ns=round(t_s * 1e9), generation=generation, device=device.id, workload=workload, plans=tuple(plans),
                   peak_memory_bytes=peak, memory_bytes=device.memory_bytes or 0)


def predicted(kernel: str, workload: AttentionWorkload = WORKLOAD, generation: int = 1, off: float = -0.04) -> Predicted:
    """A prediction that is off by so much of the median of `run`, the same whatever the simulator says today."""
    time_ns, cost = (1 + off) * MEDIANS_NS[kernel], planned((kernel,), workload).plans[0].cost
    square = kernel in ("naive", "sdpa_math")
    units = ("launch", "matrix", "exponential", "vector", "sram", "L2", "HBM", "waits", "tail")
    shares = dict(zip(units, (0.01, 0.2, 0.1, 0.15, 0.0, 0.4, 0.9, 0.3, 0.02) if square else
                             (0.01, 0.8, 0.35, 0.45, 0.12, 0.3, 0.05, 0.2, 0.04), strict=True))
    launches = ("scores", "mask", "softmax", "pv") if kernel == "naive" else (kernel,)
    return Predicted(
        generation=generation, kernel=kernel, time_ns=time_ns, clock_hz=1.755e9, limiter="HBM" if square else "matrix",
        launches=tuple(PredictedLaunch(name=name, time_ns=time_ns / len(launches), per_sm=2, limit="registers")
                       for name in launches),
        breakdown_ns={unit: share * time_ns for unit, share in shares.items()}, l2_hit_rate=0.62,
        dram_read_bytes=cost.hbm_read_bytes, dram_write_bytes=cost.hbm_write_bytes, source="simulator, H200 SXM",
        roof=Roof(flops_per_s=989e12, exps_per_s=3.7e12, l2_bytes_per_s=9e12, dram_bytes_per_s=4.8e12))


def sample(kernel: str, t_s: float, time_ns: float, generation: int = 1) -> KernelSample:
    """One timing."""
    return KernelSample(t_ns=round(t_s * 1e9), generation=generation, kernel=kernel, launches=8, time_ns=time_ns)


def wave(t_s: float, phase: float) -> float:
    """A smooth scatter of a few percent that is the same on every machine."""
    return 0.02 * math.sin(7.3 * t_s + phase) + 0.01 * math.sin(31.7 * t_s + 2 * phase)


def device_sample(t_s: float, device: Device = H200) -> DeviceSample:
    """The device's counters while a run goes on."""
    if device.kind == "cpu":
        return DeviceSample(t_ns=round(t_s * 1e9), device="cpu", utilisation=0.96 + wave(t_s, 0), memory_used_bytes=5 * GIB,
                            memory_total_bytes=device.memory_bytes, source="psutil",
                            missing={"power_w": "this CPU reports no power", "sm_clock_hz": "not read on a CPU"})
    return DeviceSample(
        t_ns=round(t_s * 1e9), device="cuda:0", utilisation=0.97 + wave(t_s, 0) / 2, memory_used_bytes=round(12.4 * GIB),
        memory_total_bytes=device.memory_bytes, dram_utilisation=0.38 + wave(t_s, 1), power_w=612 + 400 * wave(t_s, 2),
        power_limit_w=700.0, sm_clock_hz=1755e6, temperature_c=54.0, throttle=(),
    )


def run(
    kernels: tuple[str, ...] = ("naive", "flash"), seconds: float = 26.0, workload: AttentionWorkload = WORKLOAD,
    device: Device = H200, slower: float = 1.0,
) -> list[Event]:
    """A whole live run at ten samples a second and kernel."""
    events: list[Event] = [hello(), planned(kernels, workload, device)]
    if device.kind != "cpu":
        events += [predicted(kernel, workload) for kernel in kernels]
    events += [Checked(generation=1, kernel=kernel, ok=True, max_error=4.1e-3, tolerance=2e-2, rows=64) for kernel in kernels]
    events.append(Phase(generation=1, name="measuring", done=len(kernels), total=len(kernels)))
    scores = 2 * workload.batch * workload.heads * workload.seq * workload.keys * workload.itemsize
    owners = {"Q K V O": GIB // 2, "S and P": scores, "other": GIB // 4}
    if "naive" not in kernels:
        del owners["S and P"]
    events.append(MemorySample(generation=1, owners=owners))
    for i in range(round(seconds * 10)):
        t_s = 0.5 + i / 10
        events += [
            sample(kernel, t_s + 0.01 * at, slower * MEDIANS_NS[kernel] * (1 + wave(t_s, at)))
            for at, kernel in enumerate(kernels)
        ]
        events.append(device_sample(t_s + 0.05, device))
    return events
