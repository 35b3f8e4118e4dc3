"""Specs of simulated GPUs: each shipped one agrees with what is published, and a wrong file is one sentence with its field."""

from __future__ import annotations

import datetime
import math
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import home
from engine.simulator import spec
from engine.simulator.figures import LIMITS
from engine.simulator.spec import DeviceSpec, SpecError

SHIPPED = spec.load()
BASE = tomllib.loads((files("assets") / "devices" / "h100-pcie.toml").read_text())
FIELDS = [name for name in DeviceSpec.__struct_fields__ if name != "id"]
TABLES = ("matrix_flops_per_clock", "published_tflops", "sources")
BUS = {  # bits, and Gbit/s a pin: memory clocks of NVML, and what GDDR6 and GDDR6X are sold as
    "h200-sxm": (6144, 6.402), "h100-sxm": (5120, 5.238), "h100-pcie": (5120, 3.186), "a100-sxm-80gb": (5120, 3.186),
    "a100-sxm-40gb": (5120, 2.43), "a100-pcie": (5120, 3.024), "l40s": (384, 18.0), "rtx-4090": (384, 21.0), "t4": (256, 10.0),
    "b200": (8192, 7.992),
}
CUDA_LIMITS = {  # warps, blocks and KiB of an SM. Source: CUDA C++ programming guide, technical specifications
    (7, 0): (64, 32, 96), (7, 5): (32, 16, 64), (8, 0): (64, 32, 164), (8, 6): (48, 16, 100), (8, 9): (48, 24, 100),
    (9, 0): (64, 32, 228), (10, 0): (64, 32, 228), (10, 3): (64, 32, 228), (12, 0): (48, 24, 100),
}
of_shipped = pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.id)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() or c == " " else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def write(folder: Path, changes: dict[str, Any], name: str = "mine", without: str = "") -> Path:
    """A file like the shipped one but for some fields."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    values = {key: value for key, value in (BASE | changes).items() if key != without}
    path.write_text("".join(f"{toml(key)} = {toml(value)}\n" for key, value in values.items()), encoding="utf-8")
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(SpecError) as error:
        spec.load(folder)
    said = str(error.value)
    assert said.isprintable()
    return said


# --- what is shipped ------------------------------------------------------------------------------------------------


def test_every_file_is_a_spec_and_is_found_by_its_id() -> None:
    there = [path.name for path in (files("assets") / "devices").iterdir()]
    assert sorted(f"{shipped.id}.toml" for shipped in SHIPPED) == sorted(there)
    assert {"h200-sxm", "h100-sxm", "a100-sxm-80gb", "a100-sxm-40gb", "t4"} <= {shipped.id for shipped in SHIPPED}
    assert spec.found() == (SHIPPED, ())
    assert [shipped.title for shipped in SHIPPED] == sorted((shipped.title for shipped in SHIPPED), key=str.lower)
    for shipped in SHIPPED:
        assert spec.resolve(f"sim:{shipped.id}") == shipped


@of_shipped
def test_peaks_are_the_published_ones(shipped: DeviceSpec) -> None:
    assert shipped.published_tflops.keys() == {*shipped.matrix_flops_per_clock, "float32"}
    for dtype, published in shipped.published_tflops.items():
        assert shipped.peak_tflops(dtype) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("id", BUS)
def test_bandwidth_is_that_of_the_bus(id: str) -> None:
    bits, rate = BUS[id]
    assert spec.resolve(f"sim:{id}").bandwidth_bytes_per_s == pytest.approx(bits / 8 * rate * 1e9, rel=0.025)


@of_shipped
def test_every_figure_has_a_source_and_estimates_say_so(shipped: DeviceSpec) -> None:
    assert shipped.sources.keys() == {*LIMITS, "published_tflops"}
    said = {name for name, source in shipped.sources.items() if source.startswith("Estimated")}
    assert said == set(shipped.estimated)


@of_shipped
def test_capability_and_limits_go_together(shipped: DeviceSpec) -> None:
    warps, blocks, kib = CUDA_LIMITS[shipped.capability]
    assert (shipped.warps_per_sm, shipped.blocks_per_sm, shipped.sram_bytes_per_sm) == (warps, blocks, kib << 10)
    assert shipped.threads_per_sm == 32 * warps
    assert shipped.sram_bytes_per_block + shipped.sram_reserved_bytes == shipped.sram_bytes_per_sm
    assert (shipped.tma, shipped.products_from_sram) == (shipped.capability >= (9, 0), shipped.capability >= (9, 0))
    assert ("bfloat16" in shipped.matrix_flops_per_clock) == (shipped.capability >= (8, 0))
    assert ("float8" in shipped.matrix_flops_per_clock) == (shipped.capability >= (8, 9))
    assert shipped.flops_per_clock("float32") == shipped.vector_flops_per_clock


def test_every_figure_is_named_in_the_document_and_has_a_range() -> None:
    text = (Path(__file__).parents[3] / "docs" / "devices.md").read_text(encoding="utf-8")
    assert [name for name in FIELDS if f"`{name}`" not in text] == []
    assert LIMITS.keys() == set(FIELDS) - {"title", "capability", "sources", "estimated", "names", "published_tflops"}


# --- a user's own ---------------------------------------------------------------------------------------------------


def own() -> Path:
    """The folder of the user that the tests stand for."""
    return home.folder() / "devices"


def test_a_file_of_ones_own_is_found_beside_the_shipped_ones() -> None:
    write(own(), {"title": "My GPU", "l2_bytes": 1 << 20})
    (own() / "README.md").write_text("not a spec")
    assert len(spec.load()) == len(SHIPPED) + 1
    assert (spec.resolve("sim:mine").title, spec.resolve("sim:mine").l2_bytes) == ("My GPU", 1 << 20)


def test_a_broken_one_takes_no_other_down() -> None:
    path = write(own(), {"sms": "many"})
    write(own(), {"title": "Fine"}, name="fine")
    sentence = f"{path}: sms: expected `int`, got `str`"
    specs, refused = spec.found()
    assert refused == (sentence,)
    assert {one.id for one in specs} == {*(shipped.id for shipped in SHIPPED), "fine"}
    for wrong in (lambda: spec.resolve("sim:mine"), spec.load):
        with pytest.raises(SpecError) as error:
            wrong()
        assert str(error.value) == sentence


def test_an_id_that_stands_twice_is_refused_by_both_files() -> None:
    path = write(own(), {}, name="t4")
    specs, refused = spec.found()
    assert specs == SHIPPED
    assert refused == (f"{path}: id: {files('assets') / 'devices' / 't4.toml'} has it too: rename one",)


def test_a_name_that_nobody_could_type_is_refused() -> None:
    write(own(), {}, name="my gpu")
    assert spec.found()[1] == (f"{own() / 'my gpu.toml'}: id: it is the file's name: use letters, digits, dots and dashes",)


def test_a_folder_that_cannot_be_read_is_one_sentence() -> None:
    own().parent.mkdir(parents=True)
    own().write_text("in the way")
    assert spec.found() == (SHIPPED, (f"{own()}: cannot be read: Not a directory",))


def test_a_file_anywhere_is_named_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path / "elsewhere", {"title": "Mine"})
    resolved = spec.resolve(f"sim:{path}")
    assert (resolved.id, resolved.title) == (str(path), "Mine")
    assert spec.resolve(spec.device_of(resolved).id) == resolved


@pytest.mark.parametrize(("wanted", "says"), [
    ("sim:t5", "there is no simulated GPU 't5': choose from a100-pcie, "),
    ("sim:nowhere/t5.toml", "nowhere/t5.toml: cannot be read: No such file or directory"),
    ("sim:\0.toml", "\\x00.toml: embedded null byte"),
])
def test_what_is_not_there_is_said(wanted: str, says: str) -> None:
    with pytest.raises(SpecError) as error:
        spec.resolve(wanted)
    assert str(error.value).startswith(says)


def test_a_device_says_that_it_is_simulated() -> None:
    device = spec.device_of(spec.resolve("sim:h200-sxm"))
    assert (device.id, device.kind, device.name) == ("sim:h200-sxm", "sim", "H200 SXM (simulated)")
    assert (device.sms, device.capability, device.bandwidth_bytes_per_s) == (132, (9, 0), 4.8e12)
    assert (device.bandwidth_provenance, device.memory_name, device.uuid) == ("spec", "HBM", "")


# --- wrong files ----------------------------------------------------------------------------------------------------

NEVER_A_NUMBER: tuple[Any, ...] = (
    "text", True, [], [1], {}, {"float16": 1}, datetime.date(2026, 1, 1), math.nan, math.inf, -math.inf, 0, -1, 10**400, 1e300)
NEVER_A_TABLE: tuple[Any, ...] = (
    "text", True, [], 7, 0.5, {"float16": "many"}, {"float16": math.nan}, {"float16": -1}, {"float4": 1}, {"a\nb": 1},
    {"float16": []})
WRONG: list[tuple[str, Any]] = [(name, value) for name, (least, _) in LIMITS.items() if name not in TABLES
                                for value in NEVER_A_NUMBER if value is True or value != 0 or least > 0]
WRONG += [("matrix_flops_per_clock", value) for value in (*NEVER_A_TABLE, {}, {"float32": 256}, {"float16": 0.5})]
WRONG += [("published_tflops", value) for value in (*NEVER_A_TABLE, {"float16": 1512.0}, {"float16": math.inf})]
WRONG += [("sources", value) for value in (*NEVER_A_TABLE, {}, BASE["sources"] | {"sms": "twice"},
                                           BASE["sources"] | {"price": "high"}, BASE["sources"] | {"power_w": " "})]
WRONG += [("title", ""), ("title", " "), ("title", "two\nlines"), ("title", 7), ("title", []), ("title", "\x1b[31m")]
WRONG += [("capability", [9]), ("capability", [9, 0, 0]), ("capability", [9.0, 0]), ("capability", [-1, 0]),
          ("capability", [9, 10]), ("capability", [10**400, 0]), ("capability", "9.0"), ("capability", 9)]
WRONG += [("estimated", value) for value in ("sms", ["price"], [7], {"sms": 1}, ["title"])]
WRONG += [("max_clock_hz", 1.5e9), ("sram_bytes_per_block", 228 << 10), ("sms", 114.0), ("sms", 1025), ("achievable_l2", 1.01)]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: ascii(value)[:40])
def test_a_wrong_value_is_one_sentence_with_file_and_field(tmp_path: Path, name: str, value: Any) -> None:
    path = write(tmp_path, {name: value})
    assert refusal(tmp_path).startswith(f"{path}: {name}: ")


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("estimated", "names", "published_tflops")])
def test_a_field_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, {}, without=name)
    assert refusal(tmp_path) == f"{path}: {name}: it is missing"


def test_what_may_be_left_out(tmp_path: Path) -> None:
    sources = {name: source for name, source in BASE["sources"].items() if name != "published_tflops"}
    write(tmp_path, {"sources": sources}, without="published_tflops")
    write(tmp_path, {}, name="other", without="estimated")
    write(tmp_path, {}, name="nameless", without="names")
    mine, nameless, other = sorted(spec.load(tmp_path), key=lambda one: one.id)
    assert nameless.names == ()
    assert (other.estimated, mine.published_tflops) == ((), {})


@pytest.mark.parametrize(("changes", "says"), [
    ({"sms": 2048}, "sms: 2,048 is out of range: choose from 1 to 1,024"),
    ({"l2_latency_s": 2.0}, "l2_latency_s: 2 is out of range: choose from 1e-09 to 0.0001"),
    ({"clok_hz": 1.62e9}, "clok_hz: there is no such field"),
    ({"id": "t4"}, "id: there is no such field"),
    ({"a\nb": 1}, "a\\nb: there is no such field"),
    ({"matrix_flops_per_clock": {"float32": 256}},
     "matrix_flops_per_clock: there is no dtype 'float32' here: choose from float16, bfloat16, tf32, float8, int8"),
    ({"clock_hz": 1.5e9},
     "published_tflops: float16 is 756, and SMs, clock and rate give 700.416: correct them, or leave the table out"),
    ({"sources": {"sms": "a data sheet"}}, "sources: achievable_bandwidth has none: say where it comes from"),
])
def test_what_is_wrong_is_said_plainly(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = write(tmp_path, changes)
    assert refusal(tmp_path) == f"{path}: {says}"


@pytest.mark.parametrize("content", [b"sms = ", b"\xff\xfe", b"sms = 8\nsms = 9\n", b"\x00", b"a = " + b"[" * 5000, b""])
def test_a_file_that_is_no_toml_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.toml").write_bytes(content)
    assert refusal(tmp_path).startswith(f"{tmp_path / 'wrong.toml'}: ")


def test_a_folder_named_as_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert refusal(tmp_path) == f"{tmp_path / 'folder.toml'}: cannot be read: Is a directory"


scalars = st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=8), st.dates(), st.sampled_from(FIELDS))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3))


def loaded_or_one_sentence(folder: Path, path: Path) -> None:
    """Either outcome is right, each has its own law."""
    specs, refused = spec._scan((folder,))
    assert len(specs) + len(refused) == 1
    for error in refused.values():
        assert str(error).startswith(f"{path}: ")
        assert str(error).isprintable()
    for one in specs:
        for name in LIMITS.keys() - set(TABLES):
            assert LIMITS[name][0] <= getattr(one, name) <= LIMITS[name][1]


@in_one_folder
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), values, min_size=1, max_size=3))
def test_any_change_is_a_spec_or_one_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    loaded_or_one_sentence(tmp_path, write(tmp_path, changes))


@in_one_folder
@given(st.data())
def test_any_damage_is_a_spec_or_one_sentence(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path, {})
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:at] + data.draw(st.binary(max_size=12)) + whole[at + data.draw(st.integers(0, 40)):])
    loaded_or_one_sentence(tmp_path, path)


# --- what if --------------------------------------------------------------------------------------------------------

factors = st.floats(0.25, 4)


@given(st.sampled_from(SHIPPED), factors, factors, factors, st.integers(1, 1024))
def test_what_if_scales_exactly_what_it_is_told_to(
    shipped: DeviceSpec, clock: float, bandwidth: float, sram: float, sms: int
) -> None:
    other = spec.what_if(shipped, clock=clock, bandwidth=bandwidth, sram=sram, sms=sms)
    assert other.clock_hz == clock * shipped.clock_hz
    assert other.max_clock_hz == clock * shipped.max_clock_hz
    assert other.bandwidth_bytes_per_s == bandwidth * shipped.bandwidth_bytes_per_s
    assert other.sram_bytes_per_sm == round(sram * shipped.sram_bytes_per_sm)
    assert other.sram_bytes_per_block + other.sram_reserved_bytes == other.sram_bytes_per_sm
    assert other.sms == sms
    changed = {name for name in FIELDS if getattr(other, name) != getattr(shipped, name)}
    assert changed <= {"title", "sms", "clock_hz", "max_clock_hz", "bandwidth_bytes_per_s", "sram_bytes_per_sm",
                       "sram_bytes_per_block", "sources", "published_tflops"}
    assert all(other.sources[name].startswith("What if: ") for name in changed & LIMITS.keys())
    assert (other.id == shipped.id) == (other == shipped) == (not changed)


def test_what_if_says_so() -> None:
    other = spec.what_if(spec.resolve("sim:t4"), clock=1.2, sms=80)
    assert (other.id, other.title) == ("t4@clock=1.2,sms=80", "T4, clock ×1.2, 80 SMs")
    assert other.sources["sms"].startswith("What if: clock ×1.2, 80 SMs; without, NVIDIA Turing GPU architecture whitepaper")
    assert spec.device_of(other).name == "T4, clock ×1.2, 80 SMs (simulated)"
    t4 = spec.resolve("sim:t4")
    assert spec.what_if(t4) is t4
    assert spec.what_if(t4, sms=40) is t4


@pytest.mark.parametrize(("asked", "says"), [
    ({"clock": 0.0}, "t4: clock: a factor of 0 is out of range: choose from 0.25 to 4"),
    ({"sram": math.nan}, "t4: sram: a factor of nan is out of range: choose from 0.25 to 4"),
    ({"bandwidth": -1.0}, "t4: bandwidth: a factor of -1 is out of range: choose from 0.25 to 4"),
    ({"sms": 0}, "t4: sms: 0 is out of range: choose from 1 to 1,024"),
])
def test_what_cannot_be_is_said(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as error:
        spec.what_if(spec.resolve("sim:t4"), **asked)
    assert str(error.value) == says


def test_what_ifs_of_what_ifs_end_at_the_ranges() -> None:
    faster = spec.what_if(spec.resolve("sim:t4"), clock=4.0)
    with pytest.raises(SpecError, match=r"^t4@clock=4: clock_hz: 2.544e\+10 is out of range: choose from 1e\+08 to 2e\+10$"):
        spec.what_if(faster, clock=4.0)


@settings(max_examples=50)
@given(st.sampled_from(SHIPPED), st.floats(0.25, 4), st.floats(0.25, 4), st.integers(1, 1024))
def test_a_what_if_is_found_again_by_its_id(shipped: spec.DeviceSpec, clock: float, bandwidth: float, sms: int) -> None:
    clock, bandwidth = round(clock, 2), round(bandwidth, 2)
    try:
        other = spec.what_if(shipped, clock=clock, bandwidth=bandwidth, sms=sms)
    except SpecError:
        return
    assert spec.resolve(f"sim:{other.id}") == other


@settings(max_examples=100)
@given(st.text(max_size=30))
def test_any_id_is_a_spec_or_one_sentence(text: str) -> None:
    for wanted in (text, f"sim:{text}", f"sim:t4@{text}"):
        try:
            spec.resolve(wanted)
        except SpecError as error:
            said = str(error)
        else:
            continue
        assert said.isprintable()  # and so on one line
