"""What follows from a snapshot and is said in more than one place."""

from __future__ import annotations

import pytest

from app import format as fmt
from app.facts import by_operand, memory_name, model_of, no_number, opaque, operand_rank, sharing, traffic, wasted_bytes
from app.store import Snapshot, Store
from engine.protocol import Checked, Event, Refused
from kernels.contract import AttentionWorkload
from tests.app import feed

GQA = AttentionWorkload(heads=32, kv_heads=8, head_dim=128)
MATRIX = 4 * 16 * 4096 * 128 * 2    # bytes of Q, K, V or O
SCORES = 4 * 16 * 4096 * 4096 * 2   # bytes of S or P


def snapshot(*events: Event) -> Snapshot:
    store = Store()
    for event in (feed.hello(), *events):
        store.reduce(event)
    return store.snapshot()


def test_operands_are_listed_as_attention_reads_and_writes_them() -> None:
    assert sorted(["dQ", "O", "lse", "P", "S", "V", "K", "Q"], key=operand_rank) == ["Q", "K", "V", "S", "P", "O", "dQ", "lse"]
    names = [name for name, _ in by_operand(snapshot(feed.planned()).plans["naive"])]
    assert names == ["Q", "K", "V", "S", "P", "O"]


def test_the_bytes_of_an_operand_are_those_read_and_written() -> None:
    plans = snapshot(feed.planned()).plans
    assert dict(by_operand(plans["flash"])) == dict.fromkeys("QKVO", MATRIX)
    assert dict(by_operand(plans["naive"]))["Q"] == MATRIX


def test_waste_is_s_and_p() -> None:
    plans = snapshot(feed.planned()).plans
    sizes = dict(by_operand(plans["naive"]))
    assert wasted_bytes(plans["naive"]) == sizes["S"] + sizes["P"] >= 4 * SCORES
    assert wasted_bytes(plans["flash"]) == 0


def test_what_is_opaque_is_a_lower_bound() -> None:
    shown = snapshot(feed.planned(("flash", "sdpa_cudnn")))
    assert [opaque(shown, kernel) for kernel in ("flash", "sdpa_cudnn", "unheard of")] == [False, True, False]
    said = [traffic(shown, plan).replace(fmt.SPACE, " ") for plan in shown.plans.values()]
    assert said == ["256 MiB", "≥ 256 MiB"]


def test_memory_is_ram_on_a_cpu() -> None:
    assert memory_name(Snapshot()) == "HBM"
    assert memory_name(snapshot(feed.planned())) == "HBM"
    assert memory_name(snapshot(feed.planned(device=feed.CPU))) == "RAM"


@pytest.mark.parametrize(("heads", "kv_heads", "expected"), [
    (32, 32, "MHA"), (32, 8, "GQA-8"), (32, 1, "MQA"), (1, 1, "MHA"), (2, 1, "MQA"),
])
def test_sharing(heads: int, kv_heads: int, expected: str) -> None:
    assert sharing(AttentionWorkload(heads=heads, kv_heads=kv_heads), kv_heads) == expected


def test_a_model_is_known_by_its_shape() -> None:
    assert model_of(snapshot(feed.planned(workload=GQA))) == feed.MODEL
    assert model_of(snapshot(feed.planned())) is None
    assert model_of(snapshot()) is None
    assert model_of(Snapshot()) is None


def test_why_a_kernel_has_no_number() -> None:
    def checked(ok: bool) -> Checked:
        return Checked(generation=1, kernel="flash", ok=ok, max_error=0.5, tolerance=0.02, rows=64)

    planned, timed = feed.planned(), feed.sample("flash", 1.0, 2e6)
    assert no_number(snapshot(planned, timed, checked(ok=True)), "flash") == ("", "")
    assert no_number(snapshot(planned), "flash") == (fmt.NA, "There is no sample yet.")
    word, sentence = no_number(snapshot(planned, timed, checked(ok=False)), "flash")
    assert (word, "5.0e-1" in sentence, "2.0e-2" in sentence) == ("check failed", True, True)
    reason = "It needs 300 GiB."
    assert no_number(snapshot(planned, Refused(generation=1, kernel="flash", reason=reason)), "flash") == ("refused", reason)
