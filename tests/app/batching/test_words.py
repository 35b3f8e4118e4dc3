"""What is said of batchings: the verdict, the table, the caption, the inspector; all from the numbers on screen."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from app import format as fmt
from app.batching.configuration import BatchConfiguration, configuration
from app.batching.kind import BATCHINGS
from app.batching.state import LIBRARY
from app.batching.verdict import verdict
from app.caption import caption
from app.configuration import decode, encode
from app.panels.log import line
from app.store import Snapshot, Store
from app.tables import as_csv
from engine.protocol import BatchSample, Checked, Event, Refused
from tests.app import batch_feed, feed
from tests.app.batch_feed import batching, planned, run

OURS = "batched_linear"


def snapshot(*events: Event) -> Snapshot:
    store = Store()
    for event in events:
        store.reduce(event)
    return store.snapshot()


def plain(said: str) -> str:
    return said.replace(fmt.SPACE, " ").replace(fmt.THIN, " ")


def text(*events: Event) -> str:
    return plain(verdict(snapshot(*events)).text)


def at(batch: int, time_ns: float) -> BatchSample:
    return BatchSample(generation=1, kernel=OURS, batch=batch, launches=1, time_ns=time_ns)


def shown(*events: Event) -> BatchConfiguration:
    made = configuration(snapshot(*events), lab="batching")
    assert made is not None
    return made


def test_the_sentence_says_what_a_batch_costs_and_where_arithmetic_takes_over() -> None:
    said = text(*run())
    assert said.startswith("A batch of 128 takes 1.0")
    assert "× the time of one row and does 12" in said
    assert "× the work a second; from batch 18" in said
    assert said.endswith("on this layer is bound by arithmetic (predicted 195)")


def test_every_number_of_the_sentence_is_made_of_the_medians() -> None:
    events: list[Event] = [batch_feed.hello(), planned(batching(width=1024, batches=(1, 4, 16))), batch_feed.ceilings()]
    assert text(*events, at(1, 1e3), at(4, 2e3)) == (
        "A batch of 4 takes 2.00× the time of one row and does 2.00× the work a second; "
        "up to batch 4 this layer is bound by memory, as predicted up to 292")
    bent = text(*events, at(1, 1e3), at(4, 1e3), at(16, 4e3))
    assert bent == ("A batch of 4 takes 1.00× the time of one row and does 4.00× the work a second; from batch 4 on its "
                    "throughput bends; that arithmetic takes over was predicted at 292")


def test_a_bend_far_below_the_ceiling_is_not_called_arithmetic() -> None:
    slow = [replace(event, time_ns=10 * event.time_ns) if isinstance(event, BatchSample) else event for event in run()]
    said = text(*slow)
    assert "bound by arithmetic" not in said
    assert said.endswith("its throughput bends (predicted 195), though at 8.5 % of what a plain product does")


def test_before_there_are_times_the_bytes_foretell() -> None:
    assert text() == "Waiting for the engine."
    assert text(batch_feed.hello()).startswith("Choose what is batched")
    said = text(batch_feed.hello(), planned(batching()))
    assert said == ("A batch of 256 reads the same W, 128 MiB, as one row does: it moves 1.06× the bytes and does 256× the "
                    "arithmetic")
    model = text(batch_feed.hello(), planned(batching("model")))
    assert "reads the same weights, 14.0 GiB, as one sequence does" in model


def test_of_a_model_the_caches_may_bend_first_or_for_good() -> None:
    assert "the growing caches bend its throughput, long before arithmetic (predicted" in text(*run(batching("model")))
    assert text(*run(batching("model", model="llama-2-7b", cached=3000))).endswith(
        "the growing caches bend its throughput, and arithmetic never takes over")
    few = text(*run(batching("model", model="llama-2-7b", cached=3000, batches=(1, 2))))
    assert few.endswith("up to batch 2 it is bound by memory, for the cache grows with the batch")


def test_further_facts_tell_the_ceilings_the_library_and_the_l2() -> None:
    more = [plain(fact) for fact in verdict(snapshot(*run())).more]
    assert more == ["batch 1 moves 85 % of 4.20 TB/s, batch 256 does 85 % of 780 TFLOP/s"]
    near = [plain(fact) for fact in verdict(snapshot(*run(batching(width=4096)))).more]
    assert near[-1] == "W fits the L2 of 60.0 MiB and is read from there: choose a larger width to read it from HBM"
    faster = BatchSample(generation=1, kernel="torch_linear", batch=1, launches=1, time_ns=1.0)
    more = [plain(fact) for fact in verdict(snapshot(*run(turns=1), *[faster] * 40)).more]
    assert any(fact.startswith("torch linear is up to") and fact.endswith("faster, at batch 1") for fact in more)


def test_a_wrong_output_and_what_does_not_fit_are_said_first() -> None:
    wrong = Checked(generation=1, kernel=OURS, batch=64, ok=False, max_error=0.5, tolerance=0.02, rows=64)
    assert text(*run(), wrong) == ("batched_linear does not agree with the reference at batch 64: error 5.0e-1, allowed "
                                   "2.0e-2; its speed is not shown")
    assert BATCHINGS.failed(snapshot(*run(), wrong))
    small = (batch_feed.hello(), planned(batching(), memory_bytes=1 << 20))
    assert text(*small) == "Not even batch 1 fits: 230 MiB are needed and 1.00 MiB of HBM are free"
    assert BATCHINGS.failed(snapshot(*small))
    broke = [Refused(generation=1, kernel=OURS, batch=batch, reason="it broke: no.") for batch in batching().batches]
    assert text(batch_feed.hello(), planned(batching()), *broke) == "batched_linear cannot run at batch 1: it broke: no"


def test_a_configuration_travels_and_states_each_batch() -> None:
    made = shown(*run())
    assert decode(encode(made)) == made
    assert [(row.kernel, row.batch) for row in made.points[:2]] == [(OURS, 1), (OURS, 2)]
    first = made.points[0]
    assert first.per_s == pytest.approx(1e9 / (first.time_p50_ns or 0))
    assert first.bytes_fraction == pytest.approx(0.85, abs=0.02)
    assert made.knee_predicted == pytest.approx(195)
    assert (made.ceiling_flops_per_s, made.ceiling_bytes_per_s) == (780e12, 4.2e12)
    assert configuration(snapshot(batch_feed.hello()), lab="batching") is None


def test_what_has_no_sample_says_why_and_has_no_number() -> None:
    refused = Refused(generation=1, kernel=OURS, batch=4, reason="it broke")
    made = shown(batch_feed.hello(), planned(batching()), refused)
    notes = {row.batch: row.note for row in made.points if row.kernel == OURS}
    assert (notes[1], notes[4]) == ("no sample yet", "it broke")
    assert {row.time_p50_ns for row in made.points} == {None}
    assert made.numbers() == "no time was measured · bytes by formula"


def test_what_is_refused_everywhere_is_said_once_and_else_where_it_is() -> None:
    plan = planned(batching())
    never = [Refused(generation=1, kernel=LIBRARY, batch=one.batch, reason="it is not published") for one in plan.plans]
    broken = Refused(generation=1, kernel=OURS, batch=4, reason="it broke")
    sections = BATCHINGS.inspected(snapshot(batch_feed.hello(), plan, *never, broken))
    assert sections[0][1][-1] == (LIBRARY, "refused: it is not published")
    rest = dict(sections[1:])
    assert [title for title, rows in rest.items() if "refused" in dict(rows)] == ["batch 4"]
    assert dict(rest["batch 4"])["refused"] == "it broke"


def test_the_table_and_the_caption_say_what_was_batched() -> None:
    made = shown(*run(batching("rnn", width=4096, steps=16)))
    lines = as_csv(made).decode("utf-8-sig").splitlines()
    assert plain(lines[0]).startswith("# Tilescope · batching lab · 16 RNN steps of 4 096 × 4 096 · batch 1 to 256 · bfloat16")
    assert {"batch", "time_p50_ns", "moved_bytes", "intensity", "work", "steps"} <= set(lines[1].split(","))
    assert len(lines) == 2 + 18
    rows = dict(caption(shown(*run(batching("model")))).rows)
    assert plain(rows["Batching"]) == "Llama-3-8B at 512 cached tokens · batch 1 to 256 · bfloat16"
    assert rows["Numbers"] == "times measured (CUDA events) · bytes by formula"


def test_the_report_has_a_row_a_batch_and_kernel() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(BATCHINGS.report(shown(*run())))
    lines = [plain(one).split() for one in console.export_text().splitlines()]
    assert lines[0][:4] == ["batch", "kernel", "median", "rows/s"]
    assert lines[1][:2] == ["1", "batched_linear"]
    assert lines[2][:3] == ["1", "torch", "linear"]
    assert len(lines) == 19


def test_a_run_is_settled_when_every_batch_has_a_time() -> None:
    assert not BATCHINGS.settled(snapshot(batch_feed.hello(), planned(batching())))
    assert not BATCHINGS.settled(snapshot(*run(turns=1)[:-2]))
    assert BATCHINGS.settled(snapshot(*run()))
    gone = Refused(generation=1, kernel="torch_linear", batch=256, reason="no")
    assert BATCHINGS.settled(snapshot(*run(turns=1)[:-2], gone))


def test_the_inspector_knows_the_work_and_each_batch() -> None:
    sections = BATCHINGS.inspected(snapshot(*run()))
    assert [title for title, _ in sections][:3] == ["the work", "batch 1", "batch 2"]
    assert plain(dict(sections[0][1])["W"]) == "128 MiB"
    assert plain(dict(sections[1][1])["programs"]) == "128 of 16 rows"
    assert BATCHINGS.inspected(snapshot(batch_feed.hello())) == []


def test_the_status_line_reads_checks_and_samples() -> None:
    assert [plain(one) for one in BATCHINGS.readings(snapshot(*run()))] == [
        "check passed (4.0e-3)", "bfloat16", "median of 8", "measured"]
    wrong = Checked(generation=1, kernel=OURS, batch=64, ok=False, max_error=0.5, tolerance=0.02, rows=64)
    assert BATCHINGS.readings(snapshot(*run(), wrong))[0] == "check FAILED: batched_linear at batch 64"


def test_the_log_names_the_batch() -> None:
    ceilings, refused = batch_feed.ceilings(), Refused(generation=1, kernel=OURS, batch=4, reason="it broke")
    assert line(planned(batching())).endswith("planned linear at 9 batch sizes on cuda:0")
    assert plain(line(ceilings)).endswith("ceilings: 780 TFLOP/s, 4.20 TB/s")
    assert line(refused).endswith("refused batched_linear at batch 4: it broke")
    assert line(replace(refused, kernel="", batch=None)).endswith("refused: it broke")
    assert line(feed.sample("flash", 1.0, 1e6)) == ""
