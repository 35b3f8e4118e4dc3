"""`python scripts/time_launches.py [--only TEXT]`: single executions of attention as Nsight Compute times them.

Of rows of the attention bench each kernel runs once, warm, between others that run once: so short that the power limit is not
reached, where a bench's bursts are held by it. A line each: row, kernel, microseconds of its launches together, the clock of
the SMs meanwhile in MHz. The caches and the clocks are left alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from engine.bench import counters, watch
from engine.bench.grid import Row, rows

KERNELS = ("flash", "flash_hopper", "sdpa_cudnn", "sdpa_flash")
LENGTHS = ("N512", "N2048", "N4096", "N16384")
TIME, CYCLES = "gpu__time_duration.sum", "sm__cycles_elapsed.max"
SAID = "executed "                       # begins the child's line after each execution
MARKER = "FillFunctor<signed char>"      # of PyTorch's kernel that the child launches after each


def chosen(only: str) -> list[Row]:
    """Those of the main rows that are timed."""
    return [row for row in rows((only,) if only else ()) if row.main and row.id.split()[-1] in LENGTHS]


def launch(only: str) -> None:
    """The child: launches everything once where the profiler looks."""
    import torch

    from engine import devices, memory, planner
    from engine.buffers import Pool, allocate
    from engine.machine import open_machine
    from kernels.catalog import catalog

    found = next(device for device in devices.find() if device.kind == "cuda")
    machine = open_machine(found, lambda: None)
    device, marker = machine.refine(found), torch.empty(1, dtype=torch.int8, device=machine.place)
    for row in chosen(only):
        for kernel in KERNELS:
            spec = catalog()[kernel]
            operands = spec.operands(row.workload)
            own = {} if spec.info.opaque else allocate(row.workload, memory.owned(operands), machine.place)
            inputs = Pool(machine.place).views(row.workload, memory.inputs_of(operands))
            config = planner.configured(spec, row.workload, device, {})
            if planner.reasons(spec, row.workload, config, device):
                continue
            call = machine.bind(spec, row.workload, config, {**inputs, **own})
            call()
            machine.synchronize()
            torch.cuda.profiler.start()  # type: ignore[no-untyped-call]  # PyTorch left it untyped
            call()
            marker.fill_(1)
            machine.synchronize()
            torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]
            print(f"{SAID}{row.id}|{kernel}", flush=True)
            del call, inputs, own
            machine.trim()


def timed(log: str) -> list[tuple[float, float]]:
    """Microseconds and MHz of each execution, from ncu's CSV: of what was launched between two markers."""
    found, time, cycles = list[tuple[float, float]](), 0.0, 0.0
    for one in counters.parse(log, (TIME, CYCLES)):
        if MARKER in one.function:
            found.append((time / 1e3, 1e3 * cycles / time))
            time, cycles = 0.0, 0.0
        else:
            time, cycles = time + one.metrics[TIME], cycles + one.metrics[CYCLES]
    return found


def main() -> None:
    """Itself under ncu, as the child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="words that a row's name holds, as 'backward D128'")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        launch(asked.only)
        return
    command = [watch.tool("ncu"), "--profile-from-start", "off", "--clock-control", "none", "--cache-control", "none", "--csv",
               "--print-units", "base", "--metrics", f"{TIME},{CYCLES}", sys.executable, __file__, "--child", "--only",
               asked.only]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    executed = [line.removeprefix(SAID) for line in done.stdout.splitlines() if line.startswith(SAID)]
    times = timed(done.stdout)
    if done.returncode or len(times) != len(executed):
        sys.exit(f"ncu timed {len(times)} of {len(executed)} executions: {(done.stderr or done.stdout).strip()[-500:]}")
    for name, (microseconds, clock) in zip(executed, times, strict=True):
        print(f"{name}|{microseconds:.1f}|{clock:.0f}")


if __name__ == "__main__":
    main()
