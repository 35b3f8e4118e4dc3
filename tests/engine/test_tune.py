"""The search for configurations on a machine whose times are written down: what it tries, chooses, keeps and writes."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from engine.__main__ import main
from engine.bench import grid, tune, tune_command
from engine.bench.candidates import around, worth_trying
from engine.bench.grid import Row
from engine.bench.tuning import Params, Tuning, choose, finalist
from engine.machine import HostMachine, Timing, Unusable
from engine.options import BadInput
from engine.results import TimeUs, time_us
from kernels import tuned
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Device, KernelSpec, Param, Workload
from kernels.tuned.edit import cell_of, path_of
from tests.engine.fakes import CPU, fake
from tests.kernels.shapes import H200

BLOCKS = (Param(name="block_m", title="", choices=(32, 64, 128)), Param(name="block_n", title="", choices=(64, 128)))
FULL = AttentionWorkload(batch=1, heads=2, kv_heads=1, seq=40, head_dim=32, dtype="float32", causal=False)
CAUSAL = replace(FULL, causal=True, seq=33)
ROWS = [Row("forward full", FULL, True), Row("forward causal", CAUSAL, True)]
PRESENT = {"block_m": 128, "block_n": 128}  # of the CPU's table
SHARP = (1.0, 1.0, 1.0)  # one burst's times over their median

Times = Callable[[Config, AttentionWorkload], float]


def right(config: Config) -> float:  # noqa: ARG001
    return 0.0


def flash(launch: Callable[[Config], float | Exception] = right) -> KernelSpec:
    """A kernel under flash's rows. `launch`: the error of its output by configuration, or what it raises."""
    good = fake("flash")

    def bind(workload: AttentionWorkload, config: Config, tensors: dict[str, Any]) -> Any:
        found = launch(config)
        if isinstance(found, Exception):
            raise found
        return fake("flash", error=found).launch(workload, config, tensors)

    def configure(workload: AttentionWorkload, device: Device) -> Config:
        return tuned.nearest("flash", workload, device)

    return dataclasses.replace(good, info=replace(good.info, params=BLOCKS), launch=bind, configure=configure)


class WrittenTimes(HostMachine):
    """A processor whose times, in ns, are given, each with a spread."""

    def __init__(self, times: Times, spread: tuple[float, ...] = SHARP) -> None:
        super().__init__(lambda: None)
        self._times, self._spread, self._bound = times, spread, 0.0
        self.bursts: list[float] = []

    def bind(self, spec: KernelSpec, workload: Workload, config: Config, tensors: Any) -> Any:
        assert isinstance(workload, AttentionWorkload)
        self._bound = self._times(config, workload)
        return spec.launch(workload, config, tensors)

    def timer(self, run: Any, first_ns: int) -> Any:  # noqa: ARG002
        return WrittenTimer(self._bound, self._spread, self.bursts)


class WrittenTimer:
    def __init__(self, time_ns: float, spread: tuple[float, ...], bursts: list[float]) -> None:
        self._time_ns, self._spread, self._bursts = time_ns, spread, bursts

    def burst(self) -> Iterator[Timing]:
        self._bursts.append(self._time_ns)
        yield from (Timing(1, self._time_ns * factor) for factor in self._spread)


def search(
    monkeypatch: pytest.MonkeyPatch, times: Times, spec: KernelSpec | None = None, spread: tuple[float, ...] = SHARP,
    rows: list[Row] = ROWS[:1],
) -> Tuning:
    monkeypatch.setattr(tune, "open_machine", lambda device, look: WrittenTimes(times, spread))  # noqa: ARG005
    spec = spec or flash()
    found, = tune.run(tune.cells_of(rows, [spec], CPU), {"flash": spec}, CPU, 1e-9)
    return found


def by_tiles(fast: Params, ns: float) -> Times:
    """`ns` with those tiles, else 1000."""
    return lambda config, workload: ns if all(config[name] == value for name, value in fast.items()) else 1000.0  # noqa: ARG005


FAR = {"block_m": 32, "block_n": 64}  # three steps from the present row


def test_the_fastest_is_found_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def downhill(config: Config, workload: AttentionWorkload) -> float:  # noqa: ARG001
        return 500.0 + config["block_m"] + config["block_n"]

    found = search(monkeypatch, downhill)
    assert found.chosen == FAR
    assert len(found.trials) == 6
    assert found.finalists[0].params == PRESENT
    best = found.finalist(FAR)
    assert best
    assert best.ratio == pytest.approx(756 / 596)


def test_one_that_is_within_a_percent_or_within_the_spreads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    near = {"block_m": 64, "block_n": 128}
    assert search(monkeypatch, by_tiles(near, 995.0)).chosen == PRESENT
    assert search(monkeypatch, by_tiles(near, 980.0)).chosen == near
    wide = search(monkeypatch, by_tiles(near, 980.0), spread=(0.9, 1.0, 1.1))
    assert wide.chosen == PRESENT
    best = wide.finalist(near)
    assert best
    assert best.ratio == pytest.approx(1000 / 980)
    assert not best.beyond_spread


def test_a_wrong_candidate_is_never_chosen_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = flash(lambda config: 0.5 if config["block_m"] == 64 else 0.0)
    found = search(monkeypatch, by_tiles({"block_m": 64}, 10.0), spec)
    assert found.chosen == PRESENT
    wrong = [trial for trial in found.trials if trial.skipped]
    assert {trial.params["block_m"] for trial in wrong} == {64}
    assert all(trial.skipped.startswith("WRONG: error ") and trial.time_us is None for trial in wrong)


def test_one_that_is_wrong_at_one_workload_alone_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def third(config: Config) -> float:
        calls.append(config["block_m"])
        return 0.5 if config["block_m"] == 64 and calls.count(64) > 2 else 0.0

    rows = [Row("a", FULL, True), Row("b", replace(FULL, seq=50), True)]
    found = search(monkeypatch, by_tiles({"block_m": 64}, 10.0), flash(third), rows=rows)
    assert found.chosen == PRESENT
    assert set(found.finalists[0].time_us) == {"a", "b"}


def test_what_does_not_compile_is_skipped_with_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(config: Config) -> float | Exception:
        return RuntimeError("out of resource: shared memory\nRequired: 262144") if config["block_n"] == 64 else 0.0

    found = search(monkeypatch, by_tiles({"block_n": 64}, 10.0), flash(launch))
    skipped = {trial.skipped for trial in found.trials if trial.params["block_n"] == 64}
    assert skipped == {"RuntimeError: out of resource: shared memory"}
    assert found.chosen == PRESENT


def test_a_device_that_no_longer_answers_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostMachine, "alive", lambda self: False)  # noqa: ARG005
    with pytest.raises(Unusable, match=r"flash D32 .* with block_m=128 block_n=128 broke cpu \(RuntimeError: illegal\)"):
        search(monkeypatch, by_tiles({}, 1.0), flash(lambda config: RuntimeError("illegal")))  # noqa: ARG005


def test_a_present_row_that_does_not_run_is_replaced_and_none_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = flash(lambda config: 0.5 if config["block_m"] == 128 else 0.0)
    found = search(monkeypatch, by_tiles({}, 1000.0), spec)
    assert found.chosen["block_m"] != 128
    assert found.finalist(found.chosen)
    refused = search(monkeypatch, by_tiles({}, 1000.0), flash(lambda config: 0.5))  # noqa: ARG005
    assert refused.refused.startswith("none runs: WRONG")
    assert not refused.changed


def test_slow_ones_are_dropped_after_one_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(monkeypatch, by_tiles({"block_m": 64, "block_n": 128}, 700.0))
    assert {str(one.params) for one in found.finalists} == {str(PRESENT), str({"block_m": 64, "block_n": 128})}


def test_the_geometric_mean_over_the_workloads_decides() -> None:
    def at(*medians: float) -> dict[str, TimeUs]:
        return {str(i): time_us([1e3 * value] * 3) for i, value in enumerate(medians)}

    base, mixed, worse = at(100, 100), at(60, 110), at(60, 190)
    one = finalist({"block_m": 64}, mixed, base)
    assert one.ratio == pytest.approx((100 / 60 * 100 / 110) ** 0.5)
    assert one.least == pytest.approx(100 / 110)
    found = [finalist({"block_m": 128}, base, base), one, finalist({"block_m": 32}, worse, base)]
    assert choose(found, {"block_m": 128}) == {"block_m": 64}


def test_candidates_are_near_their_centre_and_compile_once() -> None:
    near = around(BLOCKS, {"block_m": 64, "block_n": 64})
    assert near[0] == {"block_m": 64, "block_n": 64}
    assert len(near) == 6
    spec, workload = catalog()["flash"], AttentionWorkload(seq=4096)
    near = around(spec.info.params, {"block_m": 128, "block_n": 128, "warps": 4, "stages": 4})
    tried = [params for params, _ in worth_trying(spec, workload, H200, near)]
    assert {"block_m": 128, "block_n": 128, "warps": 4, "stages": 4} not in tried, "its accumulator and S do not fit"
    assert {"block_m": 64, "block_n": 64, "warps": 4, "stages": 4} in tried


def test_a_cell_is_of_one_bracket_of_keys_and_one_mask() -> None:
    rows = grid.rows(("forward D128",))
    cells = tune.cells_of(rows, [catalog()["flash"], catalog()["sdpa_flash"]], H200)
    assert [cell.name for cell in cells] == [
        "flash D128 16-bit full N <= 2048", "flash D128 16-bit full any N",
        "flash D128 16-bit causal N <= 2048", "flash D128 16-bit causal any N",
    ]
    assert sum(map(len, cells.values())) == len(rows)
    assert cell_of("sm_90", "flash", replace(AttentionWorkload(), pass_="backward")).rows == "flash_backward"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny rows, the one kernel, and a machine where block_m 64 is twice as fast."""
    monkeypatch.setattr(grid, "_all", lambda: ROWS)
    monkeypatch.setattr("kernels.catalog.catalog", lambda: {"flash": flash()})
    monkeypatch.setattr(tune, "open_machine", lambda device, look: WrittenTimes(  # noqa: ARG005
        by_tiles({"block_m": 64, "block_n": 128}, 500.0)))


def bench(*arguments: str) -> Result:
    command = ["bench", "attention", "--tune", "--seconds", "0.01", "--device", "cpu", *arguments]
    return CliRunner().invoke(main, command, standalone_mode=False)


@pytest.mark.usefixtures("small")
def test_the_command_ends_with_the_rows_to_write(tmp_path: Path) -> None:
    target = tmp_path / "cpu.toml"
    done = bench("--write", str(target))
    assert done.exception is None, done.exception
    assert done.return_value == 0
    told, rows = done.stdout.split("\n\n", 1)
    assert told.splitlines()[2].startswith("| flash D32 32-bit full N <= 2048 | 1 | block_m=128 block_n=128 | block_m=64")
    added, = tomllib.loads(rows)["kernels"]["flash"]
    assert (added["head_dim"], added["keys"], added["block_m"], added["block_n"]) == (32, 2048, 64, 128)
    assert "causal" not in added, "both masks agree"
    assert rows in target.read_text()
    assert "python -m kernels.tuned" in done.stderr
    assert path_of("cpu").read_text() == target.read_text().replace(rows + "\n", "")


@pytest.mark.usefixtures("small")
def test_write_alone_means_the_devices_own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "cpu.toml"
    own.write_text(path_of("cpu").read_text())
    monkeypatch.setattr(tune_command, "path_of", lambda table: tmp_path / f"{table}.toml")
    assert bench("--only", "causal", "--write").exception is None
    assert own.read_text().count("causal = true") == 1
    assert list(tmp_path.iterdir()) == [own]


@pytest.mark.usefixtures("small")
def test_a_search_that_was_cut_goes_on(tmp_path: Path) -> None:
    record = tmp_path / "tune.jsonl"
    bench("--only", "causal", "--record", str(record))
    done = bench("--record", str(record), "--json")
    found = json.loads(done.stdout)
    assert {one["cell"]["causal"] for one in found} == {True, False}
    assert done.stderr.count("tried") == 1


@pytest.mark.usefixtures("small")
def test_a_record_of_another_table_is_searched_anew_and_not_written(tmp_path: Path) -> None:
    record, table = tmp_path / "tune.jsonl", tmp_path / "cpu.toml"
    bench("--only", "causal", "--record", str(record))
    stale = json.loads(record.read_text())
    stale["present"] |= {"block_m": 16}
    stale["chosen"] = stale["present"] | {"block_n": 16}
    record.write_text(json.dumps(stale) + "\n")
    done = bench("--only", "causal", "--record", str(record), "--write", str(table), "--json")
    (found,) = json.loads(done.stdout)
    assert found["present"] != stale["present"]
    assert done.stderr.count("tried") == 1


@pytest.mark.usefixtures("small")
def test_another_devices_record_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "tune.jsonl"
    bench("--record", str(record))
    record.write_text(record.read_text().replace(json.loads(record.read_text().splitlines()[0])["device"], "another"))
    assert "was measured on another, and this is" in str(bench("--record", str(record)).exception)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("arguments", "said"), [
    (("--peers",), "leave out --peers and --set"), (("--set", "block_m=64"), "leave out --peers and --set"),
    (("--kernel", "flush"), "there is no kernel 'flush'"), (("--only", "D127"), "no row holds 'D127'"),
    (("--write", "/nowhere/at/all.toml"), "/nowhere/at/all.toml is no file that can be written"),
    (("--write", "."), ". is no file that can be written"),
])
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    error = bench(*arguments).exception
    assert isinstance(error, BadInput)
    assert said in str(error)
    assert "\n" not in str(error)


def test_write_needs_tune() -> None:
    done = CliRunner().invoke(main, ["bench", "attention", "--write", "x.toml"], standalone_mode=False)
    assert str(done.exception) == "--write is for what a search has found: give --tune too"


def test_kernels_without_rows_for_a_device_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "_all", lambda: ROWS)
    assert "none of these kernels has tuned rows" in str(bench("--kernel", "flash_hopper").exception)
