"""`engine bench calibrate` on a GPU that is made up: what follows from times, what is kept of it, and what is refused."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import devices, home
from engine.__main__ import main
from engine.bench import calibrate, calibrate_command, calibrated
from engine.bench.calibrate import Figure, Timed, Unmeasured, figures, knee, line
from engine.nvml import Nvml
from engine.results import TimeUs
from engine.simulator import spec as specs
from engine.simulator.figures import LIMITS, DeviceSpec, SpecError
from engine.simulator.forecast import gpu_of
from engine.simulator.reading import read
from engine.simulator.writing import toml, write
from kernels.contract import Device
from tests.engine.fake_nvml import FakeNvml, Gpu

H200 = specs.resolve("sim:h200-sxm")
CLOCK = 1.98e9
HERE = Device(id="cuda:0", kind="cuda", name="NVIDIA H200", uuid="GPU-1", capability=(9, 0), sms=132, l2_bytes=60 << 20,
              memory_bytes=140 << 30, bandwidth_bytes_per_s=4.8e12, driver="580.1")


class MadeUp:
    """A GPU whose figures are known: times follow from them."""

    sms = 132
    l2_rate, full, hbm, start, late = 8.4e12, 43 << 20, 4.5e12, 1.8, 1.5  # bytes/s, bytes, bytes/s, us, us
    clock: float | None = CLOCK
    lacks: tuple[str, ...] = ()

    def timed(self, amount: float, us: float) -> Timed:
        return Timed(amount, TimeUs(p20=0.99 * us, p50=us, p80=1.02 * us, n=15), self.clock)

    def at(self, amount: float, rate: float) -> Timed:
        return self.timed(amount, amount / rate * 1e6)

    def empty(self, programs: int) -> Timed:
        return self.timed(1, 0.69 + 0.0006 * (programs - 1))

    def host_launches(self) -> Timed:
        return self.timed(1, 2.1)

    def read(self, n_bytes: int, readers: int = 1) -> Timed:
        rate = 1.2 * self.l2_rate if readers > 1 else self.l2_rate if n_bytes <= self.full else self.hbm
        late = self.late if n_bytes > self.full else 0.0
        return self.timed(readers * n_bytes, self.start + late + readers * n_bytes / rate * 1e6)

    def read_memory(self) -> Timed:
        return self.at(2 << 30, 4.6e12)

    def copy(self) -> Timed:
        return self.at(2 << 30, 4.2e12)

    def write(self) -> Timed:
        return self.at(1 << 30, 4.1e12)

    def chase(self, n_bytes: int) -> Timed:
        return self.timed(4000, 4000 * (0.150 if n_bytes <= self.full else 0.36))

    def exponentials(self) -> Timed:
        return self.at(1e9, 15.8 * 132 * CLOCK)

    def multiply_adds(self) -> Timed:
        return self.at(1e9, 250 * 132 * CLOCK)

    def product(self, dtype: str) -> Timed:
        if dtype in self.lacks:
            raise Unmeasured("this PyTorch has none")
        return self.at(2 * 8192**3, {"float16": 700e12, "bfloat16": 800e12, "tf32": 400e12}.get(dtype, 1500e12))


def measured(bench: Any = None, spec: DeviceSpec = H200) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(bench or MadeUp(), spec)}


# --- from times to figures ------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_gpu() -> None:
    found = measured()
    wanted = {
        "launch_s": 2.1e-6, "graph_launch_s": 0.69e-6, "l2_latency_s": 150e-9, "memory_latency_s": 360e-9,
        "memory_ramp_s": 1.29e-6,
        "l2_bytes_per_clock": 1.2 * 8.4e12 / CLOCK, "achievable_bandwidth": 4.6 / 4.8, "achievable_copy": 4.2 / 4.8,
        "exps_per_clock": 15.8, "vector_flops_per_clock": 250, "achievable_matrix": 800 / 989.4, "achievable_l2": 43 / 60,
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        each = found[name]
        assert each.low is not None
        assert each.high is not None
        if name == "achievable_l2":  # to a step of the sweep
            assert each.value == each.low <= value < each.high == each.low + 1 / 32
        else:
            assert each.value == pytest.approx(value, rel=1e-3), name
            assert each.low < (each.value or 0) < each.high
        assert each.spec == getattr(H200, name)
        assert each.difference == pytest.approx((each.value or 0) / each.spec - 1)
        assert (each.clock_hz, each.samples, each.missing) == (CLOCK, 15, "")
        assert each.taken == (name not in ("exps_per_clock", "vector_flops_per_clock"))


def test_what_was_measured_on_the_way_stands_beside() -> None:
    found = measured()
    assert found["graph_launch_s"].beside == pytest.approx(
        {f"{n} programs, us": 0.69 + 0.0006 * (n - 1) for n in (1, 132, 1320, 13200)})
    assert found["achievable_copy"].beside == pytest.approx({"written, TB/s": 4.1})
    assert found["achievable_matrix"].beside.keys() == {f"{dtype}, TFLOP/s" for dtype in H200.matrix_flops_per_clock}
    assert len(found["achievable_l2"].beside) == 37


def test_memory_that_is_at_its_pace_at_once_has_no_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MadeUp, "late", 0.0)
    found = measured()["memory_ramp_s"]
    assert (found.value, found.taken) == (0.0, True)
    assert measured(spec=replace(H200, memory_ramp_s=0.0))["memory_ramp_s"].difference is None


def test_without_a_clock_rates_a_clock_are_missing_and_the_others_stay() -> None:
    bench = MadeUp()
    bench.clock = None
    missing = {name for name, each in measured(bench).items() if each.missing}
    assert missing == {"l2_bytes_per_clock", "exps_per_clock", "vector_flops_per_clock"}


def test_a_dtype_that_cannot_be_multiplied_is_said() -> None:
    bench = MadeUp()
    bench.lacks = ("float8",)
    found = measured(bench)["achievable_matrix"]
    assert "(without float8: this PyTorch has none)" in found.source
    bench.lacks = tuple(H200.matrix_flops_per_clock)
    assert measured(bench)["achievable_matrix"].missing == "float16: this PyTorch has none"


def test_reads_that_take_no_longer_tell_nothing_of_the_l2() -> None:
    bench = MadeUp()
    bench.read = lambda n_bytes, readers=1: bench.timed(readers * n_bytes, 9.0)  # type: ignore[method-assign]
    found = measured(bench)
    assert found["l2_bytes_per_clock"].missing == found["achievable_l2"].missing == calibrate.FLAT


def test_what_no_spec_may_say_is_not_taken_over() -> None:
    bench = MadeUp()
    bench.read_memory = lambda: bench.at(1, 5.5e12)  # type: ignore[method-assign]
    found = measured(bench)["achievable_bandwidth"]
    assert found.value == pytest.approx(5.5 / 4.8)
    assert not found.taken


@given(st.floats(0.5, 1.2), st.floats(1e11, 2e13), st.floats(0.3, 0.8), st.floats(0.1, 5),
       st.lists(st.floats(-0.01, 0.01), min_size=37, max_size=37), st.integers(0, 8))
def test_the_knee_is_found_to_a_step_whatever_the_noise(
    full: float, rate: float, slower: float, start: float, noise: list[float], off: int
) -> None:
    l2 = 60 << 20
    sizes = [l2 * step // 32 for step in range(4, 41)]
    points = [(float(size), (1 + each) * (start + size / rate * 1e6 / (1 if size <= full * l2 else slower)))
              for size, each in zip(sizes, noise, strict=True)]
    points[off] = points[off][0], 1.5 * points[off][1]  # someone else had the GPU
    begun, slope = line(points[:9])
    assert 1e6 / slope == pytest.approx(rate, rel=0.12)
    assert knee(points, begun, slope) == max(size for size in sizes if size <= full * l2)


def test_a_straight_line_is_found_exactly_but_for_one_point() -> None:
    assert line([(1, 5), (2, 7), (3, 9), (4, 99), (5, 13)]) == pytest.approx((3, 2))
    assert knee([(1, 9), (2, 9)], 0, 1) == 1


# --- what is kept ---------------------------------------------------------------------------------------------------


def calibration(*told: Figure, date: str = "2027-01-02") -> calibrated.Calibration:
    return calibrated.Calibration(device=HERE.name, spec="h200-sxm", date=date, driver="580.1", torch="2.11", triton="3.6",
                                  figures=told or tuple(measured().values()))


def test_a_measured_spec_says_what_was_measured_and_when() -> None:
    guessed = replace(H200, estimated=("launch_s", "power_w"))
    kept = calibrated.measured(guessed, calibration())
    assert (kept.id, kept.title, kept.names) == ("h200-sxm-measured", "H200 SXM, measured", H200.names)
    changed = {name for name in LIMITS if getattr(kept, name) != getattr(H200, name)}
    assert changed == measured().keys() - {"exps_per_clock", "vector_flops_per_clock"}
    assert kept.sources["memory_latency_s"] == (
        "Measured here, 2027-01-02: a load that says where the next is, in a random ring through 480 MiB, and misses it; "
        "driver 580.1, torch 2.11, triton 3.6, SMs at 1980 MHz")
    assert kept.sources["sms"] == H200.sources["sms"]
    assert kept.sources["exps_per_clock"].startswith(f"{H200.sources['exps_per_clock']}. Measured here, 2027-01-02, and not ")
    assert kept.estimated == ("power_w",)
    assert (kept.l2_bytes_per_clock, kept.achievable_copy) == (round(1.2 * 8.4e12 / CLOCK), 0.875)


def test_it_is_read_back_as_it_was_and_predicted_on() -> None:
    kept = calibrated.measured(H200, calibration())
    path, before = calibrated.store(kept)
    assert (path, before) == (str(home.folder() / "devices" / "h200-sxm-measured.toml"), "")
    assert read(Path(path), kept.id) == kept == specs.resolve("sim:h200-sxm-measured")
    assert kept in specs.found()[0]
    assert [each.name for each in Path(path).parent.iterdir()] == ["h200-sxm-measured.toml"]
    done = CliRunner().invoke(main, ["predict", "--kernel", "flash", "--device", "sim:h200-sxm-measured", "--json"])
    assert json.loads(done.stdout)[0]["time_us"] > 0


def test_a_second_one_takes_the_place_of_the_first() -> None:
    calibrated.store(calibrated.measured(H200, calibration()))
    later = calibrated.measured(H200, calibration(date="2027-03-04"))
    path, before = calibrated.store(later)
    assert (before, calibrated.dated(Path(path))) == ("2027-01-02", "2027-03-04")
    assert specs.resolve("sim:h200-sxm-measured") == later


def test_a_measured_spec_that_is_refused_is_no_other_one_in_silence() -> None:
    """As one that an earlier version wrote, without a figure that there is since."""
    path, _ = calibrated.store(calibrated.measured(H200, calibration()))
    lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if not line.startswith("memory_ramp_s")]
    Path(path).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SpecError, match=r"memory_ramp_s: it is missing: mend the file, or delete it and measure again$"):
        specs.of_device(HERE)
    assert specs.of_device(HERE, measured=False) == gpu_of(HERE) == H200
    assert specs.of_device(replace(HERE, name="Tesla T4")).id == "t4"


def test_what_no_calibration_wrote_is_not_replaced() -> None:
    kept = calibrated.measured(H200, calibration())
    path = calibrated.path_of(H200)
    write(replace(H200, id=kept.id), path)
    with pytest.raises(SpecError, match=r"in the way of what is measured, and no calibration wrote it: rename it$"):
        calibrated.store(kept)
    path.write_text("sms = ")
    with pytest.raises(SpecError, match=r"in the way of what is measured: mend it or rename it$"):
        calibrated.store(kept)
    assert path.read_text() == "sms = "


def test_a_spec_that_is_wrong_is_not_written_and_leaves_nothing() -> None:
    calibrated.store(calibrated.measured(H200, calibration()))
    path = calibrated.path_of(H200)
    before = path.read_text()
    with pytest.raises(SpecError, match=r"achievable_copy: 1\.5 is out of range"):
        write(replace(H200, achievable_copy=1.5), path)
    assert path.read_text() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_one_sentence() -> None:
    home.folder().mkdir(parents=True)
    (home.folder() / "devices").write_text("in the way")
    with pytest.raises(SpecError, match="cannot be written: ") as error:
        calibrated.store(calibrated.measured(H200, calibration()))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("shipped", specs.load(), ids=lambda one: one.id)
def test_every_spec_is_written_as_it_is_read(shipped: DeviceSpec, tmp_path: Path) -> None:
    path = tmp_path / f"{shipped.id}.toml"
    write(shipped, path)
    assert read(path, shipped.id) == shipped


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_any_source_is_read_back(text: str) -> None:
    said = tomllib.loads(toml(replace(H200, sources={"sms": text})))
    assert said["sources"]["sms"] == text


# --- which spec a GPU that is here has ------------------------------------------------------------------------------


def test_a_measured_spec_is_that_of_its_gpu_and_the_shipped_one_stays_what_it_was() -> None:
    assert specs.of_device(HERE) == H200
    kept = calibrated.measured(H200, calibration())
    calibrated.store(kept)
    assert specs.of_device(HERE) == kept
    assert specs.of_device(HERE, measured=False) == specs.resolve("sim:h200-sxm") == H200
    assert specs.of_device(replace(HERE, name="Tesla T4")).id == "t4"


def test_a_copy_of_ones_own_does_not_take_the_place_of_the_shipped_one() -> None:
    sources = {name: source for name, source in H200.sources.items() if name != "published_tflops"}
    copy = replace(H200, id="aaa", title="A copy, twice as large", sms=264, published_tflops={}, sources=sources)
    write(copy, home.folder() / "devices" / "aaa.toml")
    assert len(specs.found()[0]) == len(specs.load(specs.folders()[0])) + 1
    assert specs.of_device(HERE) == H200


def test_the_simulators_bench_knows_the_shipped_ones_alone() -> None:
    from engine.bench import published, simulator

    tables = [replace(table, rows=table.rows[:1]) for table in published.load() if table.id == "h200-forward"]
    before = simulator.run(tables)
    assert before[0].entries[0].predicted
    calibrated.store(calibrated.measured(H200, calibration()))
    assert simulator.run(tables) == before


def nvml(**options: Any) -> Nvml:
    return Nvml(FakeNvml(Gpu("GPU-1", **options)))


def test_a_gpu_without_a_spec_begins_from_one_of_its_capability() -> None:
    unknown = replace(HERE, name="NVIDIA H30 Mini", sms=60, l2_bytes=30 << 20, memory_bytes=40 << 30,
                      bandwidth_bytes_per_s=2e12)
    base = calibrated.base_of(unknown, nvml())
    assert (base.id, base.title, base.names) == ("h30-mini", "H30 Mini", ("NVIDIA H30 Mini",))
    assert (base.sms, base.l2_bytes, base.memory_bytes, base.bandwidth_bytes_per_s) == (60, 30 << 20, 40 << 30, 2e12)
    assert base.max_clock_hz == base.clock_hz == 1.98e9
    assert {"matrix_flops_per_clock", "clock_hz", "achievable_l2", "l2_latency_s"} <= set(base.estimated)
    assert not {"sms", "max_clock_hz", "exps_per_clock", "registers_per_sm", "power_w"} & set(base.estimated)
    assert base.sources["sms"] == "The driver and PyTorch, of the GPU that is here"
    assert base.sources["exps_per_clock"].startswith("As of the H100 PCIe, of the same compute capability: CUDA C++ ")
    assert {name for name in LIMITS if base.sources[name].startswith("Estimated")} == set(base.estimated)
    kept = calibrated.measured(base, calibration(*measured(MadeUp(), base).values()))
    calibrated.store(kept)
    assert specs.of_device(unknown) == kept
    assert kept.id == "h30-mini-measured"
    assert set(kept.estimated) == set(base.estimated) - {name for name, each in measured(MadeUp(), base).items() if each.taken}
    assert calibrated.base_of(unknown, nvml()) == base


@pytest.mark.parametrize(("changes", "says"), [
    ({"capability": (8, 7)}, "of which there is no spec, and none of its compute capability to begin from: write one"),
    ({"bandwidth_bytes_per_s": None}, "of which there is no spec, and its driver does not say its bandwidth_bytes_per_s:"),
    ({"uuid": ""}, "of which there is no spec, and its driver does not say its max_clock_hz: write"),
    ({"uuid": "MIG-1"}, "cuda:0 is a part of a GPU, which shares its memory with others"),
    ({"name": "NVIDIA H200", "sms": 16}, "cuda:0 has 16 SMs, and h200-sxm, the spec of its name, 132"),
])
def test_what_is_too_little_to_begin_from_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    device = replace(replace(HERE, name="NVIDIA X1"), **changes)
    with pytest.raises(SpecError) as error:
        calibrated.base_of(device, nvml())
    assert says in str(error.value)
    assert str(error.value).isprintable()


def test_the_clock_is_the_sms() -> None:
    assert calibrated.clock_of(HERE, nvml())() == 1.98e9
    assert calibrated.clock_of(HERE, nvml(errors={("nvmlDeviceGetClockInfo", 1): 3}))() is None
    assert calibrated.clock_of(replace(HERE, uuid=""), nvml())() is None


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command on a machine with the GPU that is made up."""
    monkeypatch.setattr(devices, "find", lambda: (HERE, Device(id="cpu", kind="cpu", name="a processor")))
    monkeypatch.setattr(calibrate_command, "opened", lambda device: (device, MadeUp()))
    return lambda *arguments: CliRunner().invoke(main, ["bench", "calibrate", *arguments])


def test_it_prints_each_figure_beside_the_specs(gpu: Callable[..., Result]) -> None:
    done = gpu()
    assert done.exit_code == 0, done.output
    row = next(text for text in done.stdout.splitlines() if text.startswith("achievable_copy"))
    assert row.split()[:6] == ["achievable_copy", "0.875", "0.8578", "to", "0.8838", "0.885"]
    assert "-1.1 %" in row
    assert not home.folder().exists()


def test_json_has_all_of_it(gpu: Callable[..., Result]) -> None:
    found = json.loads(gpu("--json").stdout)
    assert (found["device"], found["spec"], found["driver"]) == ("NVIDIA H200", "h200-sxm", "580.1")
    assert [each["name"] for each in found["figures"]] == list(measured())


def test_write_keeps_it_and_says_where(gpu: Callable[..., Result]) -> None:
    done = gpu("--write", "--json")
    path = home.folder() / "devices" / "h200-sxm-measured.toml"
    assert f"{path} is written: sim:h200-sxm-measured" in done.stderr
    date = json.loads(done.stdout)["date"]
    assert f"{path} is written in place of that of {date}: " in gpu("--write").stderr
    listed = CliRunner().invoke(main, ["devices", "--json"])
    assert "sim:h200-sxm-measured" in {each["id"] for each in json.loads(listed.stdout)}


def test_what_is_in_the_way_is_said_before_anything_is_measured(
    gpu: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = calibrated.path_of(H200)
    path.parent.mkdir(parents=True)
    path.write_text("sms = ")
    monkeypatch.setattr(calibrate, "figures", lambda bench, base: pytest.fail("it was measured"))  # noqa: ARG005
    done = gpu("--write")
    assert done.exit_code == 2
    assert "mend it or rename it" in done.stderr


@pytest.mark.parametrize(("arguments", "says"), [
    (("--device", "cpu"), "bench calibrate measures an NVIDIA GPU and cpu is none: run it where there is one"),
    (("--device", "sim:t4"), "sim:t4 is a simulated T4, on which nothing runs: choose cuda:0 or cpu"),
    (("--device", "cuda:7"), "cuda:7"),
])
def test_bad_input_is_one_sentence(gpu: Callable[..., Result], arguments: tuple[str, ...], says: str) -> None:
    done = gpu(*arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.output


def test_without_triton_it_says_so(gpu: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels import jit

    monkeypatch.setattr(jit, "MISSING", "Triton cannot be imported (gone): install triton")
    done = gpu()
    assert (done.exit_code, "Triton cannot be imported" in done.stderr) == (2, True)
