"""`python -m engine.bench.child ORDER.json`: launches each case of an order, and answers with a line of JSON for each.

Run by watch.py under Nsight Compute or Compute Sanitizer. What is compiled, filled and compared lies outside of the range
that a profiler looks at (cudaProfilerStart to Stop).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch

from engine import devices, memory, planner
from engine.bench.cases import Case, Done, Order
from engine.bench.contenders import first_line
from engine.buffers import Pool, Tensors, allocate
from engine.checking import check, poison
from engine.machine import Machine, open_machine
from engine.results import Check
from kernels.catalog import catalog
from kernels.contract import Device, KernelSpec, Refusal, Workload

PADDING = (5, 8)  # rows and elements of NaN beside a strided tensor's own: 16 bytes at least, as TMA wants its strides


def main(path: str) -> None:
    """Answers on stdout, as soon as each case is done."""
    order = msgspec.json.decode(Path(path).read_bytes(), type=Order)
    device = planner.find_device(order.device, devices.find())
    machine = open_machine(device, lambda: None)
    device = machine.refine(device)
    for case in order.cases:
        done = _run(case, device, machine, order)
        machine.trim()
        sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")
        sys.stdout.flush()


def _run(case: Case, device: Device, machine: Machine, order: Order) -> Done:
    spec, workload = catalog()[case.kernel], case.workload
    config = planner.configured(spec, workload, device, {})
    try:
        if reasons := planner.reasons(spec, workload, config, device):
            raise Refusal("; ".join(reasons))
        if lack := _lack(spec, workload, device, machine, played_again=not order.exact):
            raise Refusal(lack)
        inputs, own = _from_host(case, spec, machine.place) if order.exact else _on_device(spec, workload, machine.place)
        launch = machine.bind(spec, workload, config, {**inputs, **own})
        outputs = launch()
        machine.synchronize()
        if order.exact:
            inputs, outputs = ({name: x.cpu() for name, x in found.items()} for found in (inputs, outputs))
        found = check(spec, workload, inputs, outputs, whole=order.exact)
        if not order.exact:  # after the check, which can fail: what was profiled is then this kernel's
            launch()
            machine.synchronize()
            for _ in range(order.times):
                with _profiled(machine):
                    launch()
    except Refusal as reason:
        return Done(kernel=case.kernel, config=config.params, refused=str(reason))
    except Exception as error:
        if not machine.alive():  # and nothing more can be launched in this process
            raise
        return Done(kernel=case.kernel, config=config.params, refused=first_line(error), failed=True)
    return Done(kernel=case.kernel, config=config.params,
                check=Check(ok=found.ok, max_error=found.max_error, tolerance=found.tolerance))


def _lack(spec: KernelSpec, workload: Workload, device: Device, machine: Machine, played_again: bool) -> str:
    """The sentence where the memory does not hold it; a profiler that plays a launch again keeps a copy of what it writes."""
    operands = spec.operands(workload)
    copies = max((operand.bytes for operand in memory.owned(operands)), default=0) if played_again else 0
    need, free = memory.peak_bytes(device, workload, [operands]) + copies, machine.free_bytes()
    return f"it needs {memory.text(need)} and {memory.text(free)} are free" if need > free else ""


def _on_device(spec: KernelSpec, workload: Workload, place: str) -> tuple[Tensors, Tensors]:
    operands = spec.operands(workload)
    own = allocate(workload, memory.owned(operands), place)
    poison(own)
    return Pool(place).views(workload, memory.inputs_of(operands)), own


def _from_host(case: Case, spec: KernelSpec, place: str) -> tuple[Tensors, Tensors]:
    """Made there and copied: fills and random numbers would be kernels too."""
    w, operands = case.workload, spec.operands(case.workload)
    inputs = spec.inputs(w, "cpu", torch.Generator().manual_seed(getattr(w, w.LENGTH)))
    own = allocate(w, memory.owned(operands), "cpu")
    poison(own)
    scratch = {operand.name for operand in operands if operand.role == "scratch"}

    def placed(name: str, tensor: torch.Tensor) -> torch.Tensor:
        fit = tensor.dim() == 4 and tensor.itemsize > 1 and name not in scratch
        return _strided(tensor, place) if case.strided and fit else tensor.to(place)

    return ({name: placed(name, x) for name, x in inputs.items()}, {name: placed(name, x) for name, x in own.items()})


def _strided(tensor: torch.Tensor, place: str) -> torch.Tensor:
    """[B, H, N, D] as a view of [B, N + 5, H, D + 8], NaN where it is not."""
    rows, elements = PADDING
    batch, heads, length, dims = tensor.shape
    wide = tensor.new_full((batch, length + rows, heads, dims + elements), math.nan)
    wide[:, :length, :, :dims] = tensor.transpose(1, 2)
    return wide.to(place)[:, :length, :, :dims].transpose(1, 2)


@contextmanager
def _profiled(machine: Machine) -> Iterator[None]:
    """Where a profiler looks that was told `--profile-from-start off`."""
    if machine.place == "cpu":
        yield
        return
    torch.cuda.profiler.start()  # type: ignore[no-untyped-call]  # PyTorch left it untyped
    try:
        yield
        machine.synchronize()
    finally:
        torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1])
