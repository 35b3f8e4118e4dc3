"""Our kernels under Compute Sanitizer: memcheck on every launch, racecheck on those that copy and multiply synchronously.

Each kernel and tool has a child process of its own, whose tensors are allocated one by one, so that a step beyond one is seen;
lengths are odd, strides as they come, and every output is compared with float64 as well. Without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from engine import planner
from engine.bench import watch
from engine.bench.cases import Case, Order
from kernels.contract import AttentionWorkload, Device, Family, KernelSpec, LinearWorkload, Workload
from kernels.contract.workload import DType

Tool = Literal["memcheck", "racecheck"]
State = Literal["clean", "errors", "not followed", "not run"]

TOOLS: tuple[Tool, ...] = ("memcheck", "racecheck")
DTYPES: tuple[DType, ...] = ("bfloat16", "float32")
SECONDS = 600.0  # for one kernel under one tool
ALONE = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "OMP_NUM_THREADS": "2"}  # every tensor its own allocation; no host taken whole
ATTENTION = (
    AttentionWorkload(batch=2, heads=4, kv_heads=2, seq=333, head_dim=128),
    AttentionWorkload(batch=100, heads=4, kv_heads=1, seq=300, head_dim=64),  # two programs share the heads of each block
    AttentionWorkload(batch=1, heads=2, kv_heads=1, seq=200, seq_kv=333, head_dim=64, causal=False),
    AttentionWorkload(batch=1, heads=2, kv_heads=2, seq=130, head_dim=40),
    AttentionWorkload(batch=1, heads=2, kv_heads=2, seq=300, seq_kv=701, head_dim=64, window=100),
)
DECODE = (
    AttentionWorkload(batch=2, heads=8, kv_heads=2, seq=1, seq_kv=1001, head_dim=128),
    AttentionWorkload(batch=3, heads=4, kv_heads=4, seq=1, seq_kv=512, head_dim=64),
    AttentionWorkload(batch=1, heads=6, kv_heads=1, seq=1, seq_kv=77, head_dim=40),
    AttentionWorkload(batch=300, heads=4, kv_heads=4, seq=1, seq_kv=100, head_dim=128),  # one split
)
LINEAR = (LinearWorkload(batch=5, d_in=333, d_out=77), LinearWorkload(batch=200, d_in=256, d_out=256, repeat=3))
SHAPES: dict[Family, Sequence[Workload]] = {"attention": ATTENTION, "decode": DECODE, "linear": LINEAR}
SUMMARY = re.compile(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (\d{1,9}) (?:error|hazard)", re.MULTILINE)
HEADING = ("COMPUTE-SANITIZER", "ERROR SUMMARY", "RACECHECK SUMMARY")


class Finding(Struct, frozen=True, kw_only=True):
    """What a tool says of a kernel. `launched`: cases that came to their end. `said`: a sentence, the tool's words in it."""

    kernel: str
    tool: Tool
    state: State
    launched: int
    errors: int | None = None
    said: str = ""

    @property
    def bad(self) -> bool:
        """Whether something is to be mended."""
        return self.state in ("errors", "not followed")


def run(specs: Sequence[KernelSpec], tools: Sequence[Tool], device: Device) -> Iterator[Finding]:
    """Kernel by kernel, each tool in turn. Raises: BadInput where Compute Sanitizer is missing."""
    path = watch.tool("compute-sanitizer")
    for spec in specs:
        for tool in tools:
            yield _find(path, spec, tool, device)


def cases_of(spec: KernelSpec, tool: Tool, device: Device) -> tuple[Case, ...]:
    """What is launched: every pass, in 16 and in 32 bits, with strides as they come and with NaN between rows."""
    found = []
    for shape in SHAPES[spec.info.family]:
        for dtype in (dtype for dtype in DTYPES if dtype in spec.info.dtypes):
            for direction in spec.info.passes:
                workload: Workload = replace(shape, dtype=dtype)
                if isinstance(workload, AttentionWorkload):
                    workload = replace(workload, pass_=direction)
                if tool == "memcheck" or not asynchronous(spec, workload, device):
                    found += [Case(kernel=spec.id, workload=workload, strided=strided) for strided in (False, True)]
    return tuple(found)


def asynchronous(spec: KernelSpec, workload: Workload, device: Device) -> bool:
    """Whether its tiles come by TMA or are multiplied by wgmma, which work while the warp that asked for them goes on."""
    config = planner.configured(spec, workload, device, {})
    asked = (kind for compilation in spec.compilations(workload, config) for kind in compilation.signature.values())
    return bool(config.params.get("wgmma")) or any(kind.startswith("tensordesc") for kind in asked)


def _find(path: str, spec: KernelSpec, tool: Tool, device: Device) -> Finding:
    cases = cases_of(spec, tool, device)
    if not cases:
        said = "each of its launches copies by TMA or multiplies by wgmma: racecheck is for synchronous ones"
        return Finding(kernel=spec.id, tool=tool, state="not run", launched=0, said=said)
    command = [path, "--tool", tool, "--target-processes", "application-only", "--print-limit", "10"]
    command += ["--report-api-errors", "no"] if tool == "memcheck" else []  # a query that finds nothing is none of ours
    return judged(spec.id, tool, watch.watch(command, Order(device=device.id, cases=cases, exact=True), SECONDS, ALONE), cases)


def judged(kernel: str, tool: Tool, seen: watch.Watched, cases: Sequence[Case]) -> Finding:
    """What a tool has said, in a finding."""
    ran = [done for done in seen.done if not done.refused]
    refused = list(dict.fromkeys(done.refused for done in seen.done if done.refused))
    failed = [done.refused for done in seen.done if done.failed]
    wrong = [done.check for done in ran if done.check and not done.check.ok]
    words, summary = _words(seen.log), SUMMARY.search(seen.log)
    errors = int(summary[1]) if summary else None

    def finding(state: State, *parts: str) -> Finding:
        said = "; ".join(part for part in parts if part)
        return Finding(kernel=kernel, tool=tool, state=state, launched=len(ran), errors=errors, said=said)

    if errors:
        return finding("errors", f"{errors} error{'s' * (errors > 1)}", words)
    if failed:
        return finding("errors", f"{len(failed)} of {len(seen.done)} launches failed", failed[0])
    if wrong:
        worst = max(check.max_error for check in wrong)
        return finding("errors", f"its output is wrong in {len(wrong)} of {len(ran)} launches, by {worst:.2g} at most")
    if summary is None or len(seen.done) < len(cases):
        return finding("not followed", seen.late or words or seen.last_line or f"exit {seen.code}")
    if not ran:
        return finding("not run", *refused)
    return finding("clean", words, f"{len(cases) - len(ran)} refused: {'; '.join(refused)}" if refused else "")


def _words(log: str) -> str:
    """The first thing that the tool has to say, beside its heading and its summary."""
    lines = (line.lstrip("=").strip() for line in log.splitlines() if line.startswith("====="))
    return next((line for line in lines if line and not line.startswith(HEADING)), "")


def told(finding: Finding) -> str:
    """In a line."""
    launched = f" ({finding.launched} launches)" if finding.launched else ""
    return f"{finding.kernel} {finding.tool}: {finding.state}{launched}{': ' if finding.said else ''}{finding.said}"
