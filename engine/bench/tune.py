"""The search for tuned configurations: near what a table has, checked whole, in turns with it, cell by cell. Imports torch.

Of each cell (head dim, element size, mask, bracket of keys) one workload, the middle one, tries candidates for a burst each:
around the present row, then around the best so far, until that is the centre. What comes near the best is measured at every
workload of the cell in turns with the present row, and tuning.py chooses. What is wrong anywhere is never chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from engine import memory, planner
from engine.bench.candidates import around, configured, worth_trying
from engine.bench.contenders import Contender, burst, first_line, prepare, take_turns
from engine.bench.grid import Row
from engine.bench.tuning import Finalist, Params, Trial, Tuning, choose, finalist, said
from engine.buffers import Pool, Tensors, allocate
from engine.machine import Machine, Unusable, open_machine
from engine.results import TimeUs, time_us
from kernels.contract import Config, Device, KernelSpec, Refusal, Workload
from kernels.tuned import table_for, tables
from kernels.tuned.edit import Cell, cell_of

NEAR = 0.8      # of the best one's speed: slower candidates are dropped after one burst
FINALISTS = 6   # beside the present row


def cells_of(rows: Sequence[Row], specs: Iterable[KernelSpec], device: Device) -> dict[Cell, list[Row]]:
    """The cells of the device's table that these rows fall into, kernel by kernel; kernels without rows there have none."""
    name = table_for(device)
    found: dict[Cell, list[Row]] = {}
    for spec in specs:
        for row in rows if spec.id in tables()[name].kernels else ():
            w = row.workload
            if w.pass_ in spec.info.passes and w.dtype in spec.info.dtypes and spec.info.params_of(w.pass_):
                found.setdefault(cell_of(name, spec.id, w), []).append(row)
    return found


def present_at(spec: KernelSpec, workload: Workload, device: Device) -> Params:
    """What the table has for a workload, of the parameters that mean something in its pass."""
    config = spec.configure(workload, device)
    return {param.name: config[param.name] for param in spec.info.params_of(workload.pass_)}


def run(
    cells: Mapping[Cell, Sequence[Row]], specs: Mapping[str, KernelSpec], device: Device, seconds: float
) -> Iterator[Tuning]:
    """Searches cell by cell. `seconds`: for each finalist at each workload.

    Raises:
        Unusable: PyTorch cannot use the device, or a candidate has broken it.
    """
    machine = open_machine(device, lambda: None)
    device = machine.refine(device)
    pool = Pool(machine.place)
    for cell, rows in cells.items():
        yield _Search(cell, specs[cell.kernel], device, machine, pool, seconds).run(rows)
        machine.trim()


@dataclass
class _Search:
    """Of one cell. `trials`: by parameters, as they are said."""

    cell: Cell
    spec: KernelSpec
    device: Device
    machine: Machine
    pool: Pool
    seconds: float
    trials: dict[str, Trial] = field(default_factory=dict)

    def run(self, rows: Sequence[Row]) -> Tuning:
        """The cell's workloads that fit the memory, searched."""
        rows = [row for row in rows if self._fits(row.workload)]
        if not rows:
            return self._found(rows, {}, refused="no workload of it fits the free memory of this device")
        probe = rows[len(rows) // 2].workload
        config = self.spec.configure(probe, self.device)
        present = present_at(self.spec, probe, self.device)
        finalists = self._final(rows, self._climb(probe, present), present) if self._may_run(probe, present) else []
        if not finalists:
            reasons = planner.reasons(self.spec, probe, config, self.device) if not self.trials else []
            return self._found(rows, present, refused="; ".join(reasons) or f"none runs: {self._skips()}")
        return self._found(rows, present, finalists)

    def _found(self, rows: Sequence[Row], present: Params, finalists: Sequence[Finalist] = (), refused: str = "") -> Tuning:
        return Tuning(
            cell=self.cell, table=table_for(self.device), device=self.device.name, rows=tuple(row.id for row in rows),
            present=present, chosen=choose(finalists, present) if finalists else present,
            trials=tuple(self.trials.values()), finalists=tuple(finalists), refused=refused)

    def _skips(self) -> str:
        return "; ".join(dict.fromkeys(trial.skipped for trial in self.trials.values() if trial.skipped))

    def _fits(self, workload: Workload) -> bool:
        need = memory.peak_bytes(self.device, workload, [self.spec.operands(workload)])
        return need <= self.machine.free_bytes() + self.pool.bytes

    def _may_run(self, workload: Workload, present: Params) -> bool:
        """Whether anything near the present row may."""
        near = around(self.spec.info.params_of(workload.pass_), present)
        return any(True for _ in worth_trying(self.spec, workload, self.device, near))

    def _tensors(self, workload: Workload) -> tuple[Tensors, Tensors]:
        """Inputs, and what all candidates write in turn."""
        operands = self.spec.operands(workload)
        inputs = self.pool.views(workload, memory.inputs_of(operands))
        return inputs, allocate(workload, memory.owned(operands), self.machine.place)

    def _climb(self, workload: Workload, present: Params) -> list[Params]:
        """Candidates near the best at one workload, the fastest first."""
        inputs, own = self._tensors(workload)
        times: dict[str, tuple[float, Params]] = {}
        centre: Params = {}
        best = present
        while best != centre:
            centre = best
            fresh = [one for one in around(self.spec.info.params_of(workload.pass_), centre) if said(one) not in self.trials]
            for params, config in worth_trying(self.spec, workload, self.device, fresh):
                if contender := self._prepared(params, config, workload, inputs, own):
                    burst(contender)
                    times[said(params)] = median(contender.times_ns), params
                    self.trials[said(params)] = Trial(params=params, time_us=times[said(params)][0] / 1e3)
            best = min(times.values(), key=lambda timed: timed[0])[1] if times else centre
        ordered = sorted(times.values(), key=lambda timed: timed[0])
        return [params for time, params in ordered if ordered[0][0] >= NEAR * time]

    def _prepared(
        self, params: Params, config: Config, workload: Workload, inputs: Tensors, own: Tensors
    ) -> Contender | None:
        """Ready to be timed; None, and a trial that says why, where it cannot be or is wrong."""
        try:
            contender = prepare(self.spec, workload, config, self.machine, inputs, own)
        except Refusal as reason:
            skipped = str(reason)
        except Exception as error:  # a compiler's, or one about resources: of any type
            if not self.machine.alive():
                raise Unusable(f"{self.cell.name} with {said(params)} broke {self.device.id} ({first_line(error)})",
                               "Start anew with the same --record, and leave that kernel out.") from error
            skipped = first_line(error)
        else:
            if contender.check.ok:
                return contender
            skipped = f"WRONG: error {contender.check.max_error:.2g} against a tolerance of {contender.check.tolerance:.2g}"
        self.trials[said(params)] = Trial(params=params, skipped=skipped)
        return None

    def _final(self, rows: Sequence[Row], best: Sequence[Params], present: Params) -> list[Finalist]:
        """The best and the present row at every workload, those alone that are right at all of them."""
        if not best:
            return []
        left = {said(params): params for params in [present, *(one for one in best if one != present)][: FINALISTS + 1]}
        times: dict[str, dict[str, TimeUs]] = {name: {} for name in left}
        for row in rows:
            measured = self._in_turns(row.workload, left)
            left = {name: params for name, params in left.items() if name in measured}
            for name, time in measured.items():
                times[name][row.id] = time
        base = times[said(present)] if said(present) in left else None
        return [finalist(params, times[name], base) for name, params in left.items()]

    def _in_turns(self, workload: Workload, chosen: Mapping[str, Params]) -> dict[str, TimeUs]:
        """Those that run and are right, timed."""
        inputs, own = self._tensors(workload)
        ready: dict[str, Contender] = {}
        for name, params in chosen.items():
            config = configured(self.spec, workload, self.device, params)
            if contender := self._prepared(params, config, workload, inputs, own):
                ready[name] = contender
        take_turns(list(ready.values()), self.seconds)
        return {name: time_us(contender.times_ns) for name, contender in ready.items()}

