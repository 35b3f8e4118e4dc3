"""What follows from a snapshot and is said in more than one place: waste, lower bounds, how K and V are shared. Free of Qt."""

from __future__ import annotations

from app import format as fmt
from app.store import Snapshot
from engine.protocol import AttentionWorkload, KernelPlan, Model

ORDER = ("Q", "K", "V", "S", "P", "O")
WASTE = frozenset({"S", "P"})  # what need never leave the SM


def by_operand(plan: KernelPlan) -> list[tuple[str, int]]:
    """HBM bytes read and written of each operand in one execution; Q K V, then S and P, then O, then any other."""
    sizes = [(name, traffic.read + traffic.written) for name, traffic in plan.cost.hbm.items()]
    return sorted(sizes, key=lambda entry: operand_rank(entry[0]))


def operand_rank(name: str) -> tuple[int, str]:
    """The order in which operands are listed."""
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def wasted_bytes(plan: KernelPlan) -> int:
    """HBM bytes spent on what a fused kernel keeps on the SM."""
    return sum(size for name, size in by_operand(plan) if name in WASTE)


def opaque(snapshot: Snapshot, kernel: str) -> bool:
    """No schedule is known: its bytes are those of its operands, a lower bound."""
    plan = snapshot.plans.get(kernel)
    return any(info.opaque for info in snapshot.infos if info.id == kernel) and (plan is None or plan.schedule is None)


def traffic(snapshot: Snapshot, plan: KernelPlan) -> str:
    """A kernel's HBM bytes in words: `12.2 GiB`, or `≥ 160 MiB` where only a lower bound is known; n/a where none are."""
    if not plan.cost.hbm:
        return fmt.NA
    return ("≥ " if opaque(snapshot, plan.kernel) else "") + fmt.bytes_iec(plan.cost.hbm_bytes)


def no_number(snapshot: Snapshot, kernel: str) -> tuple[str, str]:
    """Why a kernel has no time to show: a word or two, and a sentence. Empty where it has one."""
    check = snapshot.checks.get(kernel)
    if check is not None and not check.ok:
        return "check failed", (
            f"The output is off by {fmt.error(check.max_error)} of the largest value; {fmt.error(check.tolerance)} is allowed."
        )
    if snapshot.shown(kernel) is not None:
        return "", ""
    if kernel in snapshot.refusals:
        return "refused", snapshot.refusals[kernel]
    return fmt.NA, "There is no sample yet."


def memory_name(snapshot: Snapshot) -> str:
    """HBM, or RAM on a CPU."""
    return snapshot.device.memory_name if snapshot.device else "HBM"


def sharing(workload: AttentionWorkload, kv_heads: int) -> str:
    """`MHA`, `GQA-8` (8 KV heads) or `MQA`."""
    return shared(workload.heads, kv_heads)


def shared(heads: int, kv_heads: int) -> str:
    """The same of any number of query heads."""
    return "MHA" if kv_heads == heads else "MQA" if kv_heads == 1 else f"GQA-{kv_heads}"


def model_of(snapshot: Snapshot) -> Model | None:
    """The model whose attention has the workload's shape; None where none has."""
    workload, models = snapshot.workload, snapshot.hello.models if snapshot.hello else ()
    if workload is None:
        return None
    shape = (workload.heads, workload.kv_heads, workload.head_dim)
    return next((model for model in models if (model.heads, model.kv_heads, model.head_dim) == shape), None)
