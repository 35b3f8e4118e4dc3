"""What a kernel is, as data: workloads, devices, schedules, costs. msgspec, numpy and the standard library only."""

from kernels.contract.device import Device
from kernels.contract.expr import Affine, Expr, Least, Lookup, const, evaluate, lookup, var
from kernels.contract.schedule import Axis, Launch, Loop, Operand, Schedule, Slot, Table, TileOp
from kernels.contract.spec import (
    Blueprint,
    Compilation,
    Config,
    Cost,
    Family,
    KernelInfo,
    KernelSpec,
    Param,
    Refusal,
    Resources,
    Traffic,
    of_pass,
)
from kernels.contract.workload import ITEMSIZE, AttentionWorkload, Field, LinearWorkload, Workload, fields_of

__all__ = [
    "ITEMSIZE", "Affine", "AttentionWorkload", "Axis", "Blueprint", "Compilation", "Config", "Cost", "Device", "Expr", "Family",
    "Field", "KernelInfo", "KernelSpec", "Launch", "Least", "LinearWorkload", "Lookup", "Loop", "Operand", "Param", "Refusal",
    "Resources", "Schedule", "Slot", "Table", "TileOp", "Traffic", "Workload", "const", "evaluate", "fields_of", "lookup",
    "of_pass", "var",
]
