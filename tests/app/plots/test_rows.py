"""The plots of rows: latency, memory, traffic and the KV cache, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPointF
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.plots import PlotView
from app.plots.kv_cache import choices
from app.plots.rows import Row, RowChart
from engine.protocol import MemorySample
from kernels.contract import AttentionWorkload
from tests.app import feed
from tests.app.plots.views import GQA, LIGHT, MQA, SIX, TINY, fed, said, settle, show, snapshot, view, written

GIB = 2**30


def rows(made: PlotView) -> tuple[Row, ...]:
    assert isinstance(made.canvas, RowChart)
    return made.canvas.rows


def tip(made: PlotView, at: float) -> str:
    """The tooltip so far down the canvas, 0 to 1."""
    assert isinstance(made.canvas, RowChart)
    return said(made.canvas.tip_at(QPointF(10, at * made.canvas.height())))


# --- latency ---


def test_latency_has_the_median_and_the_spread_fastest_first(qtbot: QtBot) -> None:
    made = view(qtbot, "latency", (480, 200))
    times = (2.0e6, 2.2e6, 2.4e6, 2.6e6, 2.8e6, 3.0e6)
    samples = [feed.sample("flash", 1 + i, time) for i, time in enumerate(times)]
    show(made, snapshot(feed.hello(), feed.planned(), feed.sample("naive", 1.0, 1.4e7), *samples))
    flash, naive = rows(made)
    assert (flash.name, naive.name) == ("flash", "naive")
    assert said(flash.value) == "2.50 ms ± 12 %"
    assert flash.spread == (2.2e6, 2.5e6, 2.8e6)
    assert naive.spread == (1.4e7, 1.4e7, 1.4e7)
    assert "6 samples, CUDA events" in tip(made, 0.05)
    assert "p50 2 500 000 ns" in tip(made, 0.05)
    assert said(made.summary()) == "Median time of one execution: flash 2.50 ms, naive 14.0 ms."
    assert [said(cell) for cell in made.table().rows[0]] == [
        "flash", "2.20 ms", "2.50 ms", "2.80 ms", "n/a", "n/a", "6", "measured"]


def test_a_kernel_without_a_time_has_a_row_that_says_why(qtbot: QtBot) -> None:
    made = view(qtbot, "latency", (480, 300))
    show(made, fed("refused"))
    assert [(row.name, row.value) for row in rows(made)][:3] == [
        ("flash", f"2.30{fmt.SPACE}ms · 1 sample"), ("naive", "refused"), ("SDPA cuDNN", "refused")]
    assert rows(made)[1].tip == "naive needs 300 GiB and 140 GiB are there."
    assert rows(made)[2].tip == "cuDNN is not here."
    show(made, fed("check failed"))
    assert rows(made)[-1].value == "check failed"
    assert rows(made)[-1].spread is None
    assert "off by 5.0e-1 of the largest value" in rows(made)[-1].tip


@pytest.mark.parametrize(("count", "said_of_it"), [(1, "· 1 sample"), (2, "· 2 samples"), (3, "± 0 %")])
def test_few_samples_have_no_spread(qtbot: QtBot, count: int, said_of_it: str) -> None:
    made = view(qtbot, "latency", (480, 200))
    samples = [feed.sample("flash", 1.0 + i, 2e6) for i in range(count)]
    show(made, snapshot(feed.hello(), feed.planned(("flash",)), *samples))
    assert said(rows(made)[0].value) == f"2.00 ms {said_of_it}"


def test_latency_says_how_it_was_taken(qtbot: QtBot) -> None:
    made = view(qtbot, "latency")
    show(made, fed("two kernels"))
    assert made.header.notes == ("warm L2 · measured", "measured")


# --- memory ---


def test_memory_stands_by_owner_with_the_predicted_peak_marked(qtbot: QtBot) -> None:
    made = view(qtbot, "hbm", (700, 300))
    show(made, fed("two kernels"))
    allocated, naive, flash = rows(made)
    assert [part.value for part in allocated.parts] == [GIB // 2, 4 * GIB, GIB // 4]
    assert allocated.tick == fed("two kernels").peak_memory_bytes == naive.parts[0].value + GIB // 2
    assert all(part.hollow for row in (naive, flash) for part in row.parts)
    assert not any(part.hollow for part in allocated.parts)
    assert said(made.summary()) == (
        "HBM: Q K V O 512 MiB · S and P 4.00 GiB · other 256 MiB · predicted peak 4.75 GiB.")
    assert [said(" ".join(row)) for row in made.table().rows] == [
        "Q K V O 512 MiB measured", "S and P 4.00 GiB measured", "other 256 MiB measured",
        "naive, peak 4.25 GiB modelled", "flash, peak 256 MiB modelled", "run, peak 4.75 GiB modelled"]


def test_memory_is_named_as_the_device_names_it(qtbot: QtBot) -> None:
    made = view(qtbot, "hbm")
    for name, title in (("two kernels", "HBM"), ("cpu", "RAM")):
        show(made, fed(name))
        assert written(made)[0].text == title
        assert made.summary().startswith(title)


def test_what_does_not_fit_says_so_in_words_and_stays_on_the_scale(qtbot: QtBot) -> None:
    made = view(qtbot, "hbm", (700, 300))
    show(made, fed("too large"))
    texts = [word.text for word in written(made)]
    assert texts.count("does not fit") == 2  # naive and SDPA math
    made.resize(264, 132)
    settle()
    assert "too large" in [word.text for word in written(made)]


def test_an_owner_that_the_contract_does_not_know_is_shown(qtbot: QtBot) -> None:
    made = view(qtbot, "hbm", (700, 300))
    show(made, snapshot(feed.hello(), feed.planned(), MemorySample(generation=1, owners={"workspace": GIB, "Q K V O": GIB})))
    assert [part.letters for part in rows(made)[0].parts] == [("Q K V O",), ("workspace",)]


def test_the_line_beneath_says_less_where_there_is_less_room_and_all_in_the_tooltip(qtbot: QtBot) -> None:
    made = view(qtbot, "hbm", (700, 132))
    show(made, fed("two kernels"))
    found = []
    for width in (700, 450, 264, 190):
        made.resize(width, 132)
        settle()
        found.append(said(written(made)[-1].text))
    assert found == [
        "Q K V O 512 MiB · S and P 4.00 GiB · other 256 MiB · predicted peak 4.75 GiB",
        "Q K V O 512 MiB · S and P 4.00 GiB · predicted peak 4.75 GiB",
        "Q K V O 512 MiB · S and P 4.00 GiB", "S and P 4.00 GiB"]
    assert "predicted peak 4.75 GiB" in tip(made, 0.99)
    assert "predicted peak 4.75 GiB" in said(made.header.toolTip())


# --- traffic ---


def test_traffic_is_that_of_the_cost_by_operand(qtbot: QtBot) -> None:
    made = view(qtbot, "traffic", (700, 300))
    show(made, fed("two kernels"))
    naive, flash = rows(made)
    elements = 4 * 16 * 4096 * 128 * 2  # bytes of Q, and of each of K, V and O
    assert [part.value for part in flash.parts] == [elements] * 4
    plan = fed("two kernels").plans["naive"]
    assert sum(part.value for part in naive.parts) == plan.cost.hbm_bytes
    assert [part.letters[0] for part in naive.parts] == ["Q", "K", "V", "S", "P", "O"]
    assert "S and P: 12.0 GiB of naive's 12.2 GiB" in [said(word.text) for word in written(made)]
    assert [said(cell) for cell in made.table().rows[1]] == [
        "flash", "64.0 MiB", "64.0 MiB", "64.0 MiB", "0 B", "0 B", "64.0 MiB", "256 MiB", "scheduled"]


def test_an_opaque_kernel_is_a_lower_bound_in_outline(qtbot: QtBot) -> None:
    made = view(qtbot, "traffic", (900, 300))
    show(made, fed("six kernels"))
    by_name = {row.name: row for row in rows(made)}
    assert by_name["SDPA math"].value.startswith("≥ ")
    assert all(part.hollow for part in by_name["SDPA math"].parts)
    assert not any(part.hollow for part in by_name["naive"].parts)
    assert "outlined: a library's kernel, its operands alone" in written(made)[-1].text
    assert "≥ 256" in made.summary()


def test_a_refused_kernel_is_named_so(qtbot: QtBot) -> None:
    made = view(qtbot, "traffic", (900, 300))
    show(made, fed("refused"))
    assert rows(made)[0].name == "naive (refused)"


def test_nothing_is_wasted_without_s_and_p(qtbot: QtBot) -> None:
    made = view(qtbot, "traffic", (900, 300))
    show(made, snapshot(feed.hello(), feed.planned(("flash",))))
    assert not [word.text for word in written(made) if "S and P" in word.text]


def test_waste_is_red_and_operands_have_their_own_hue(qtbot: QtBot) -> None:
    made = view(qtbot, "traffic", theme=LIGHT)
    show(made, fed("two kernels"))
    colours = {part.letters[0]: part.colour for part in rows(made)[0].parts}
    assert colours["S"] == colours["P"] == LIGHT["waste"]
    assert colours["Q"] == LIGHT.operand("Q")


# --- KV cache ---


@pytest.mark.parametrize(("workload", "layers", "expected"), [
    (feed.WORKLOAD, 1, {"MHA": 2 * 4 * 4096 * 16 * 128 * 2, "GQA-4": 2 * 4 * 4096 * 4 * 128 * 2,
                        "GQA-2": 2 * 4 * 4096 * 2 * 128 * 2, "MQA": 2 * 4 * 4096 * 1 * 128 * 2}),
    (GQA, 32, {"MHA": 2 * 8192 * 32 * 128 * 32 * 2, "GQA-8": 2 * 8192 * 8 * 128 * 32 * 2,
               "GQA-4": 2 * 8192 * 4 * 128 * 32 * 2, "MQA": 2 * 8192 * 1 * 128 * 32 * 2}),
    (MQA, 1, {"MHA": 2 * 128 * 65536 * 64 * 256 * 2, "GQA-16": 2 * 128 * 65536 * 16 * 256 * 2,
              "GQA-8": 2 * 128 * 65536 * 8 * 256 * 2, "MQA": 2 * 128 * 65536 * 256 * 2}),
    (TINY, 1, {"MHA": 2 * 8 * 4}),
    (AttentionWorkload(batch=1, seq=1, seq_kv=1000, heads=12, kv_heads=6, head_dim=64), 1,
     {"MHA": 2 * 1000 * 12 * 64 * 2, "GQA-6": 2 * 1000 * 6 * 64 * 2, "GQA-3": 2 * 1000 * 3 * 64 * 2, "MQA": 2 * 1000 * 64 * 2}),
], ids=["mha", "gqa of a model", "mqa", "tiny", "decode"])
def test_the_kv_cache_is_that_of_the_formula(
    qtbot: QtBot, workload: AttentionWorkload, layers: int, expected: dict[str, int]
) -> None:
    made = view(qtbot, "kv_cache", (700, 300))
    show(made, snapshot(feed.hello(), feed.planned(workload=workload)))
    assert {row.name: row.parts[0].value for row in rows(made)} == expected
    assert all(said(f"{fmt.exact(size)} B") in said(row.tip)
               for row, size in zip(rows(made), expected.values(), strict=True))
    strong, = (row.name for row in rows(made) if row.strong)
    assert made.table().rows[[row.name for row in rows(made)].index(strong)][1] == str(workload.kv_heads)
    assert written(made)[-1].text.endswith(
        f"= 2·{workload.batch}·{workload.keys}·{workload.kv_heads}·{workload.head_dim}·{layers}·{workload.itemsize}")


@pytest.mark.parametrize(("name", "sentence"), [
    ("two kernels", "KV cache with MHA, 1 layer: 128 MiB."),
    ("gqa", "KV cache with GQA-8, 32 layers: 1.00 GiB, 1/4 of MHA's."),
    ("mqa", "KV cache with MQA, 1 layer: 8.00 GiB, 1/64 of MHA's."),
])
def test_the_kv_cache_in_a_sentence(qtbot: QtBot, name: str, sentence: str) -> None:
    made = view(qtbot, "kv_cache")
    show(made, fed(name))
    assert said(made.summary()) == sentence


def test_the_layers_are_those_of_the_model(qtbot: QtBot) -> None:
    made = view(qtbot, "kv_cache", (480, 200))
    show(made, fed("gqa"))
    assert "32 layers of Llama-3-8B" in [word.text for word in written(made)]
    made.resize(264, 132)
    settle()
    assert "32 layers" in [word.text for word in written(made)]
    assert [row[-1] for row in made.table().rows] == ["1", "1/4", "1/8", "1/32"]


def test_the_chosen_number_of_kv_heads_is_always_among_the_bars() -> None:
    for kv_heads in (1, 2, 3, 4, 6, 8, 12, 24):
        found = choices(AttentionWorkload(heads=24, kv_heads=kv_heads))
        assert kv_heads in found
        assert found == sorted(found, reverse=True)
        assert (found[0], found[-1]) == (24, 1)


def test_all_six_kernels_have_rows(qtbot: QtBot) -> None:
    for plot in ("latency", "traffic", "hbm"):
        made = view(qtbot, plot)
        show(made, fed("six kernels"))
        assert len([row for row in rows(made) if row.mark is not None]) == len(SIX)
