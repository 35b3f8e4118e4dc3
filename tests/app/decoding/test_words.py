"""What is said of decodings: the verdict, counts, pages, the table and the caption; all from the numbers on screen."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app import format as fmt
from app.caption import caption
from app.configuration import decode, encode
from app.decoding.configuration import configuration
from app.decoding.facts import computed, longest, pages, power_of, read
from app.decoding.kind import DECODINGS
from app.decoding.verdict import verdict
from app.store import Snapshot, Store
from app.tables import as_csv, as_tabs
from engine.protocol import DecodeSample, Device, Event, Lane, LaneDone
from tests.app import decode_feed, feed
from tests.app.decode_feed import decoding, planned, run


def snapshot(*events: Event) -> Snapshot:
    store = Store()
    for event in events:
        store.reduce(event)
    return store.snapshot()


def text(*events: Event) -> str:
    return plain(verdict(snapshot(*events)).text)


def plain(said: str) -> str:
    return said.replace(fmt.SPACE, " ").replace(fmt.THIN, " ")


def test_with_both_lanes_the_sentence_compares_them_at_one_token() -> None:
    said = text(*run(until=1.0))
    assert said.startswith("With its cache GPT-2 small makes 3 9")
    assert "tokens/s at token 640, 11" in said
    assert said.endswith("× as many as without; the cache holds 22.5 MiB, 36.0 KiB a token")


def test_a_lane_that_lags_is_compared_where_it_stands() -> None:
    events = [event for event in run() if getattr(event, "lane", "") != "none-12" or getattr(event, "position", 999) <= 300]
    said = text(*events)
    assert "at token 300," in said
    held = decoding().kv_bytes(Lane(cache="dense", kv_heads=12), 299)
    assert said.endswith(plain(f"the cache holds {fmt.bytes_iec(held)}, 36.0 KiB a token"))    # not of token 640


def test_one_lane_alone_and_none_yet() -> None:
    alone = text(*run(decoding(caches=("dense",))))
    assert "as many" not in alone
    assert "at token 640; the cache holds" in alone
    bare = text(*run(decoding(caches=("none",))))
    assert bare.startswith("Without a cache GPT-2 small makes")
    assert "holds" not in bare
    before = text(decode_feed.hello(), planned(decoding()))
    assert before == ("Without a cache the step to token 640 computes k and v of all 639 tokens before it; "
                      "the cache holds them in 22.5 MiB, 36.0 KiB a token")
    assert text() == "Waiting for the engine."
    assert text(decode_feed.hello()).startswith("Tick a cache")


def test_what_does_not_fit_says_what_would() -> None:
    too_long = decoding("llama-2-7b", ("dense",), prompt=1000, new=3000, batch=128)
    said = text(decode_feed.hello(), planned(too_long))
    assert said == "Llama-2-7B does not fit: dense needs 271 GiB and 140 GiB of HBM are free; 2 037 tokens fit"


def test_more_facts_are_what_the_lanes_show() -> None:
    more = [plain(fact) for fact in verdict(snapshot(*run(decoding(
        "llama-3-8b", ("none", "dense", "paged"), (32, 8), dtype="bfloat16", prompt=500), until=0.4))).more]
    assert more[0].startswith("time per token ~ n^")
    assert "of the peak" in more[1]
    assert more[2] == "GQA-8 keeps 128 KiB a token where MHA needs 512 KiB"
    assert "of their slots empty" in more[3]


def flat(device: Device = feed.H200, time_ns: float = 22.2e6, caches: tuple[str, ...] = ("none", "dense")) -> str:
    """What is said first behind the sentence where each step without a cache takes as long."""
    events = [replace(event, time_ns=time_ns) if isinstance(event, DecodeSample) and event.lane == "none-12" else event
              for event in run(decoding(caches=caches), device=device)]
    return plain(next(iter(verdict(snapshot(*events)).more), ""))


@pytest.mark.parametrize("kind", ["cuda", "sim"])
@pytest.mark.parametrize("caches", [("none", "dense"), ("none",)])
def test_where_the_host_binds_the_uncached_run_no_growth_is_claimed(
    caches: tuple[str, ...], kind: Literal["cuda", "sim"],
) -> None:
    assert flat(replace(feed.H200, kind=kind), caches=caches) == (
        "without a cache a step takes 22.2 ms at almost any length: so few tokens leave the GPU idle")


def test_what_reads_its_weights_near_the_peak_is_not_bound_by_the_host() -> None:
    at_the_peak = decoding().step_bytes(Lane(cache="none", kv_heads=12), 640) / 4.8e12 * 1e9
    assert flat(time_ns=1.25 * at_the_peak).startswith("without a cache a step is bound by the reading of weights here, ")


def test_growth_is_said_on_a_cpu_and_where_it_is_there() -> None:
    assert flat(feed.CPU).startswith("time per token ~ n^")
    assert plain(verdict(snapshot(*run())).more[0]).startswith("time per token ~ n^")


@given(st.integers(1, 60), st.integers(1, 60))
def test_counts_are_those_of_the_steps(prompt: int, new: int) -> None:
    position, each = prompt + new, range(prompt, prompt + new)    # a step computes what is there, and chooses one more
    assert computed(prompt, position, cached=True) == prompt + len(each[1:])
    assert computed(prompt, position, cached=False) == sum(each)
    assert read(prompt, position, cached=True) == sum(each[:-1])
    assert read(prompt, position, cached=False) == 0


def test_the_last_token_is_chosen_and_never_computed() -> None:
    assert (computed(16, 208, cached=True), computed(16, 208, cached=False)) == (207, 21_408)
    assert read(16, 208, cached=True) == 21_201


@given(st.integers(1, 100_000))
def test_pages_hold_all_and_waste_less_than_one(tokens: int) -> None:
    held = pages(tokens)
    assert 0 <= held.slots - held.used < 16
    assert held.waste == pytest.approx(1 - tokens / (16 * held.pages))


def test_the_longest_that_fits_just_fits() -> None:
    one = decoding("llama-3-8b", ("dense",), (32,), batch=8)
    lane, memory = Lane(cache="dense", kv_heads=32), 80 << 30
    most = longest(one, lane, memory)
    assert one.weights_bytes(lane) + one.kv_bytes(lane, most) <= memory
    assert one.weights_bytes(lane) + one.kv_bytes(lane, most + 1) > memory
    assert longest(one, lane, 1 << 20) == 0
    assert longest(one, Lane(cache="none", kv_heads=32), memory) == 0


def test_powers_are_said_short() -> None:
    assert plain(power_of(0.9712)) == "~ n^0.97"
    assert plain(power_of(-0.001)) == "~ n^0.00"
    assert plain(power_of(-0.25)) == f"~ n^{fmt.MINUS}0.25"
    assert power_of(None) == power_of(float("nan")) == ""


def test_a_configuration_travels_and_states_the_lanes() -> None:
    shown = configuration(snapshot(*run()), lab="decode")
    assert shown is not None
    assert decode(encode(shown)) == shown
    none, dense = shown.lanes
    assert (dense.position, dense.steps, dense.note) == (640, 512, "")
    assert dense.kv_bytes == decoding().kv_bytes(Lane(cache="dense", kv_heads=12), 639)
    assert dense.tokens_per_s is not None
    assert none.tokens_per_s is not None
    assert dense.tokens_per_s > 5 * none.tokens_per_s
    assert none.kv_nvml_bytes is None
    assert dense.kv_nvml_bytes is not None
    assert configuration(snapshot(decode_feed.hello()), lab="decode") is None


def test_what_has_no_sample_says_so_and_has_no_number() -> None:
    shown = configuration(snapshot(decode_feed.hello(), planned(decoding())), lab="decode")
    assert shown is not None
    assert {lane.note for lane in shown.lanes} == {"no sample yet"}
    assert {lane.step_p50_ns for lane in shown.lanes} == {None}


def test_the_table_has_a_row_a_lane_with_units_in_its_names() -> None:
    shown = configuration(snapshot(*run()), lab="decode")
    assert shown is not None
    lines = as_csv(shown).decode("utf-8-sig").splitlines()
    assert lines[0].startswith("# Tilescope · decode lab · GPT-2 small · batch 1 · 128 tokens of prompt and 512 new")
    columns = lines[1].split(",")
    assert columns[:2] == ["lane", "title"]
    assert {"step_p50_ns", "bytes_per_s", "model", "new_tokens"} <= set(columns)
    assert [line.split(",")[0] for line in lines[2:]] == ["none-12", "dense-12"]
    assert as_tabs(shown).splitlines()[1].split("\t")[0] == "none-12"


def test_the_caption_says_what_was_decoded() -> None:
    shown = configuration(snapshot(*run(decoding(caches=("none", "paged"), kv_heads=(12, 1)))), lab="decode")
    assert shown is not None
    rows = dict(caption(shown).rows)
    assert plain(rows["Decoding"]).endswith("128 tokens of prompt and 512 new · no cache, paged · MHA, MQA · float16")
    assert rows["Numbers"] == "times measured (CUDA events) · bytes by formula"


def test_a_run_is_settled_when_every_lane_has_a_step() -> None:
    assert not DECODINGS.settled(snapshot(decode_feed.hello(), planned(decoding())))
    assert DECODINGS.settled(snapshot(*run(until=0.1)))
    too_long = decoding("llama-2-7b", ("dense",), prompt=1000, new=3000, batch=128)
    assert DECODINGS.failed(snapshot(decode_feed.hello(), planned(too_long)))


def test_the_inspector_knows_each_lane() -> None:
    sections = DECODINGS.inspected(snapshot(*run(device=feed.CPU)))
    assert [title for title, _ in sections] == ["no cache", "dense"]
    facts = {label: plain(value) for label, value in sections[1][1]}
    assert facts["KV cache a token"] == "36.0 KiB"
    assert facts["KV cache at the end"] == "22.5 MiB"


@pytest.mark.parametrize(("peak", "kind"), [(None, "modelled"), (1 << 30, "measured")])
def test_a_peak_is_called_measured_only_where_the_lane_was_measured(peak: int | None, kind: str) -> None:
    events = [replace(event, peak_memory_bytes=peak) if isinstance(event, LaneDone) else event for event in run()]
    shown = configuration(snapshot(*events), lab="decode")
    assert shown is not None
    assert {lane.peak_memory_provenance for lane in shown.lanes} == {kind}
    printed = [list(column.cells) for column in DECODINGS.report(shown).columns if column.header == "peak memory"]
    word = "predicted" if peak is None else "measured"
    assert [str(cell).endswith(f" {word}") for cell in printed[0]] == [True, True]
    inspected = DECODINGS.inspected(snapshot(*events))
    for lane, plan, (_, facts) in zip(shown.lanes, planned(decoding()).plans, inspected, strict=True):
        assert lane.peak_memory_bytes == (peak or plan.peak_memory_bytes)
        assert dict(facts)["predicted peak"] == fmt.bytes_iec(plan.peak_memory_bytes)
        assert [label for label, _ in facts if "measured" in label] == (["peak, measured"] if peak else [])
