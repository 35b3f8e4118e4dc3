"""A timeline of programs: what is asked of it, what it refuses to be, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.timeline import Span, Steps, Timeline, coarser
from engine.timeline_file import TimelineError, load, save


def measured(programs: list[tuple[int, int, list[float]]], sms: int = 2) -> Timeline:
    """Of programs, each with its SM, its slot, and its start followed by its step ends: every piece has one step."""
    starts, ends = (np.array([stamps[place] for *_, stamps in programs]) for place in (0, -1))
    counts = np.array([len(stamps) - 1 for *_, stamps in programs])
    shares = [(at - stamps[0]) / ((stamps[-1] - stamps[0]) or 1) for *_, stamps in programs for at in stamps[1:]]
    ones = np.ones(len(shares), dtype=np.int64)
    return Timeline(
        kernel="flash", device="a GPU", sms=sms, provenance="measured", source="%globaltimer", clock_hz=None, resolution_ns=0.0,
        launches=(Span("only", float(starts.min()), float(ends.max()), len(programs)),),
        sm=np.array([sm for sm, *_ in programs], dtype=np.int32),
        slot=np.array([slot for _, slot, _ in programs], dtype=np.int32),
        start_ns=starts, end_ns=ends, pattern=np.arange(len(programs), dtype=np.int32),
        steps=Steps(np.concatenate(([0], np.cumsum(counts))), -ones,
                    np.concatenate([np.arange(count) for count in counts]), 0 * ones, ones, np.array(shares),
                    np.zeros(len(shares))),
    )


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Programs one after the other in every slot, with steps of any length."""
    programs = []
    for sm in range(2):
        for slot in range(2):
            at = 0.0
            for _ in range(draw(st.integers(1, 5))):
                at += draw(st.integers(0, 30))
                stamps = [at, *(at := at + draw(st.integers(0, 20)) for _ in range(draw(st.integers(1, 4))))]
                programs.append((sm, slot, stamps))
    return measured(draw(st.permutations(programs)))


THREE = [(0, 0, [0.0, 10.0, 40.0]), (0, 1, [20.0, 60.0]), (1, 0, [0.0, 30.0])]


@given(timelines(), st.integers(0, 200))
def test_who_runs_at_a_time_are_those_that_have_begun_and_not_ended(line: Timeline, at: int) -> None:
    assert line.validate() == []
    assert line.running(at).tolist() == [n for n in range(line.programs) if line.start_ns[n] <= at < line.end_ns[n]]
    lanes = [lane for sm in range(line.sms) for lane in line.lanes(sm)]
    assert sorted(np.concatenate(lanes).tolist()) == list(range(line.programs))
    for lane in lanes:
        assert len({(line.sm[n], line.slot[n]) for n in lane}) == 1
        assert (np.diff(line.start_ns[lane]) >= 0).all()


@given(timelines(), st.integers(0, 100), st.integers(0, 100))
def test_steps_of_a_window_are_those_of_all_programs_that_end_in_it(line: Timeline, begin: int, long: int) -> None:
    program, number, _, ends = line.steps_in(begin, begin + long)
    wanted = [(n, place, at) for n in range(line.programs) for place, at in enumerate(line.step_ends_ns(n))
              if begin <= at < begin + long]
    sure = [(n, place) for n, place, at in wanted if min(abs(at - begin), abs(at - begin - long)) > 1e-6]
    found = list(zip(program.tolist(), number.tolist(), strict=True))
    assert set(sure) <= set(found)
    assert found == sorted(set(found))
    assert ((ends >= begin) & (ends < begin + long)).all()


@given(timelines(), st.integers(0, 4))
def test_busy_is_the_share_in_which_any_program_runs(line: Timeline, level: int) -> None:
    found, width = line.busy(level), 2**level
    fine = np.zeros((line.sms, found.shape[1] * width))
    for sm, start, end in zip(line.sm, line.start_ns, line.end_ns, strict=True):
        fine[sm, int(start) : int(end)] = 1
    assert found == pytest.approx(fine.reshape(line.sms, -1, width).mean(axis=2))
    assert line.busy_share * line.duration_ns * line.sms == pytest.approx(fine.sum())
    assert line.busy(level + 1) == pytest.approx(coarser(found)[:, : line.busy(level + 1).shape[1]])


def test_what_cannot_have_been_is_said() -> None:
    line = measured(THREE)
    assert line.validate() == []

    def said(**changed: object) -> str:
        return " ".join(replace(line, **changed).validate())  # type: ignore[arg-type]

    assert "programs 0 and 1 run in slot 0 of SM 0 at once" in said(slot=np.zeros(3, dtype=np.int32))
    assert "program 1 ends before it starts" in said(end_ns=np.array([40.0, 10.0, 30.0]))
    assert "outside of it" in said(start_ns=np.array([-9.0, 20.0, 0.0]))
    assert "an SM of which there are 2" in said(sm=np.array([0, 0, 2], dtype=np.int32))
    assert "differ in length" in said(sm=np.zeros(2, dtype=np.int32), launches=(Span("only", 0, 60, 2),))
    assert "another number" in said(launches=())
    assert "no number" in said(end_ns=np.array([40.0, np.nan, 30.0]))
    steps = line.steps
    assert "another order" in said(steps=replace(steps, first=np.array([0.8, 0.7, 1.0, 1.0])))
    assert "outside of its program" in said(steps=replace(steps, first=np.array([0.2, 1.7, 1.0, 1.0])))
    assert "missing, or there twice" in said(steps=replace(steps, step=np.array([0, 2, 0, 0])))
    assert "more than" in said(steps=replace(steps, count=np.array([1, 1 << 40, 1, 1])))
    assert "follow a pattern" in said(pattern=np.array([0, 1, 3], dtype=np.int32))


def same(one: Timeline, two: Timeline) -> bool:
    arrays = [(getattr(one, name), getattr(two, name)) for name in ("sm", "slot", "start_ns", "end_ns", "pattern")]
    arrays += [(getattr(one.steps, name), getattr(two.steps, name)) for name in vars(one.steps)]
    heads = [(line.launches, line.provenance, line.clock_hz, line.device, line.source) for line in (one, two)]
    return heads[0] == heads[1] and all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in arrays)


def test_a_file_gives_back_what_was_written_and_is_not_written_over(tmp_path: Path) -> None:
    line, path = measured(THREE), tmp_path / "line.npz"
    save(line, path)
    assert same(load(path), line)
    assert [each.name for each in tmp_path.iterdir()] == ["line.npz"]
    with pytest.raises(TimelineError, match="exists: give a new name"):
        save(line, path)
    with pytest.raises(TimelineError, match="cannot be written: No such file"):
        save(line, tmp_path / "nowhere" / "line.npz")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_in_one_sentence(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "line.npz"
    save(measured(THREE), path)
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for _ in range(data.draw(st.integers(1, 4))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    said = ""
    try:
        assert load(path).validate() == []
    except TimelineError as error:
        said = str(error)
    assert not said or (said.startswith(str(path)) and "\n" not in said)


@pytest.mark.parametrize("content", [b"", b"not a timeline", b"PK\x03\x04"])
def test_what_is_no_timeline_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "line.npz"
    path.write_bytes(content)
    with pytest.raises(TimelineError, match=r"is no timeline|cannot be read"):
        load(path)


def test_a_file_that_would_have_to_be_executed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.npz"
    np.savez(path, head=np.array([{}], dtype=object))
    with pytest.raises(TimelineError, match="is no timeline"):
        load(path)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TimelineError, match="cannot be read: No such file"):
        load(tmp_path / "none.npz")
