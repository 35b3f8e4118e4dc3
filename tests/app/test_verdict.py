"""The verdict line: what it says in each case, and that every number in it is one on screen."""

from __future__ import annotations

import pytest

from app import format as fmt
from app.store import Snapshot, Store
from app.verdict import Verdict, verdict
from engine.protocol import Checked, Event
from kernels.contract import AttentionWorkload
from tests.app import feed

FULL = AttentionWorkload(batch=4, seq=4096, heads=16, kv_heads=16, head_dim=128, causal=False)
GROUPED = AttentionWorkload(batch=4, seq=4096, heads=32, kv_heads=8, head_dim=128, causal=False)


def judged(*events: Event) -> Verdict:
    store = Store()
    for event in events:
        store.reduce(event)
    said = verdict(store.snapshot())
    return Verdict(_plain(said.text), _plain(said.provenance), tuple(map(_plain, said.more)))


def _plain(text: str) -> str:
    return text.replace(fmt.SPACE, " ")


def timed(naive_ns: float, flash_ns: float, workload: AttentionWorkload = FULL) -> Verdict:
    return judged(feed.hello(), feed.planned(workload=workload), *samples(naive_ns, flash_ns))


def samples(naive_ns: float, flash_ns: float, scatter: float = 0.001) -> list[Event]:
    """Five of each kernel, `scatter` of their time apart."""
    return [feed.sample(kernel, 1 + i, time_ns * (1 + scatter * (i - 2)))
            for kernel, time_ns in (("naive", naive_ns), ("flash", flash_ns)) for i in range(5)]


def test_before_anything_it_says_what_it_waits_for() -> None:
    assert verdict(Snapshot()).text == "Waiting for the engine."
    assert judged(feed.hello()).text == "Tick a kernel to see what it moves."


def test_before_the_first_sample_the_bytes_alone_speak() -> None:
    said = judged(feed.hello(), feed.planned(workload=FULL))
    plans = {plan.kernel: plan.cost.hbm_bytes for plan in feed.planned(workload=FULL).plans}
    assert said.provenance == "scheduled"
    assert fmt.ratio(plans["naive"] / plans["flash"]) == "33.0×"  # 4 N² + 4 N D over 4 N D, N = 4096, D = 128
    assert said.text.startswith("flash moves 33.0× fewer bytes than naive; naive spends 8.00 GiB on S and P; at 4.80 TB/s")
    assert "faster" not in said.text


def test_a_measured_run_says_bytes_and_speed() -> None:
    said = timed(14.1e6, 2.31e6)
    assert said.text == (
        "flash moves 33.0× fewer bytes than naive and runs 6.10× faster; naive spends 8.00 GiB on S and P"
    )
    assert said.provenance == "bytes scheduled, speed measured"


def test_equal_speeds_are_called_equal() -> None:
    assert "and runs at the same speed" in timed(2.00e6, 2.01e6).text


def test_speeds_whose_spreads_overlap_are_not_told_apart() -> None:
    said = judged(feed.hello(), feed.planned(workload=FULL), *samples(3e6, 2e6, scatter=0.3))
    assert "and runs at the same speed" in said.text
    assert "faster" not in said.text


def test_two_samples_are_too_few_to_compare() -> None:
    events = samples(14e6, 2e6)
    said = judged(feed.hello(), feed.planned(workload=FULL), *events[:2], *events[5:7])
    assert "faster" not in said.text
    assert said.provenance == "scheduled"


def test_a_slower_flash_is_called_slower_and_the_numbers_say_why() -> None:
    said = timed(14e6, 18e6)
    assert "flash moves 33.0× fewer bytes than naive but runs 1.29× slower" in said.text
    assert "moving bytes is only 13 % of naive's time here" in said.text  # 8.25 GiB at 4.8 TB/s of 14 ms


def test_no_reason_is_given_that_the_numbers_do_not_show() -> None:
    said = timed(2.5e6, 3.0e6)  # bytes are most of naive's time: why flash is slower is not known
    assert "slower; naive spends" in said.text
    assert "only" not in said.text


def test_on_a_cpu_it_says_what_the_speeds_are_worth() -> None:
    slow = judged(feed.hello(), feed.planned(workload=FULL, device=feed.CPU), *samples(14e6, 18e6))
    assert "on a CPU each tile is a call into PyTorch" in slow.text
    fast = judged(*feed.run(device=feed.CPU, workload=FULL, seconds=1))
    assert any("speeds do not" in fact for fact in (fast.text, *fast.more))


def test_a_kernel_that_does_not_fit_is_said_with_its_need_while_the_other_runs() -> None:
    long = AttentionWorkload(batch=4, seq=65536, heads=16, kv_heads=16, head_dim=128)
    planned = feed.planned(refused={"naive": "it needs too much"}, workload=long)
    said = judged(feed.hello(), planned, feed.sample("flash", 1, 300e6))
    assert said.text.startswith("naive does not fit: it needs 1.00 TiB and 140 GiB of HBM are free; flash needs 4.00 GiB and")
    assert said.provenance == "memory modelled, speed measured"


def test_a_kernel_refused_for_another_reason_gives_that_reason() -> None:
    said = judged(feed.hello(), feed.planned(refused={"naive": "it has no backward pass."}))
    assert said.text.startswith("naive cannot run: it has no backward pass; flash needs")
    assert "speed" not in said.provenance


def test_all_refused() -> None:
    said = judged(feed.hello(), feed.planned(("flash",), refused={"flash": "head dim 24 is not supported"}))
    assert said.text == "flash cannot run: head dim 24 is not supported"


def test_a_failed_check_comes_before_any_speed() -> None:
    said = judged(*feed.run(seconds=1), Checked(generation=1, kernel="flash", ok=False, max_error=0.5, tolerance=0.02, rows=64))
    assert said.text == (
        "flash does not agree with the reference: error 5.0e-1, allowed 2.0e-2; its speed is not shown"
    )


def test_causal_says_how_much_work_the_mask_saves() -> None:
    said = timed(14.1e6, 2.31e6, feed.WORKLOAD)
    assert "causal: flash does 5" in said.text + " ".join(said.more)


def test_shared_heads_say_what_the_cache_saves() -> None:
    said = timed(14.1e6, 2.31e6, GROUPED)
    assert "GQA-8 keeps the KV cache at 2.00 GiB where MHA needs 8.00 GiB" in (said.text + " ".join(said.more))


def test_a_faster_library_is_named() -> None:
    said = judged(*feed.run(("naive", "flash", "sdpa_cudnn"), seconds=1, workload=FULL))
    assert said.more[0].startswith("SDPA cuDNN runs 1.1")
    assert said.more[0].endswith("faster than flash")


def test_two_libraries_are_compared_by_speed_alone() -> None:
    said = judged(*feed.run(("sdpa_cudnn", "sdpa_flash"), seconds=1, workload=FULL))
    assert said.text.startswith("SDPA cuDNN runs 1.4")
    assert said.text.endswith("faster than SDPA flash; each must move at least 256 MiB")
    waiting = judged(feed.hello(), feed.planned(("sdpa_cudnn", "sdpa_flash"), workload=FULL))
    assert waiting.text == "SDPA cuDNN and SDPA flash must move at least 256 MiB"


def test_one_kernel_alone_speaks_for_itself() -> None:
    waiting = judged(feed.hello(), feed.planned(("naive",), workload=FULL))
    assert waiting.text == "naive moves 8.25 GiB, 8.00 GiB of it S and P; tick a second kernel to compare"
    assert "flash moves 256 MiB and runs at" in judged(*feed.run(("flash",), seconds=1, workload=FULL)).text


@pytest.mark.parametrize("kernels", [("naive",), ("flash", "naive"), ("naive", "flash", "sdpa_math", "sdpa_cudnn")])
@pytest.mark.parametrize("workload", [FULL, GROUPED, feed.WORKLOAD])
def test_the_line_stays_a_line(kernels: tuple[str, ...], workload: AttentionWorkload) -> None:
    said = judged(*feed.run(kernels, seconds=1, workload=workload))
    assert len(said.text) <= 118  # one line of a window 1440 wide
    assert said.provenance
