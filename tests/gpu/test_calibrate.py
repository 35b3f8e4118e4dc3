"""The figures that are measured of a GPU lie near those of its shipped spec, in broad bounds: a wrong one is off by more."""

from __future__ import annotations

import pytest

from engine import devices
from engine.bench import calibrate_command, calibrated
from engine.bench.calibrate import Figure, figures
from engine.simulator import spec as specs
from engine.simulator.figures import DeviceSpec, SpecError
from engine.simulator.reading import read
from engine.simulator.writing import write

BOUNDS = {  # measured over the spec's; where the spec's is an estimate, only the size of it
    "launch_s": (0.3, 10), "graph_launch_s": (0.3, 4), "l2_latency_s": (0.5, 2), "memory_latency_s": (0.5, 2),
    "memory_ramp_s": (0.3, 3),
    "l2_bytes_per_clock": (0.5, 1.6), "achievable_l2": (0.6, 1.5), "achievable_bandwidth": (0.8, 1.1),
    "achievable_copy": (0.8, 1.15), "exps_per_clock": (0.85, 1.02), "vector_flops_per_clock": (0.85, 1.02),
    "achievable_matrix": (0.6, 1.3),
}


@pytest.fixture(scope="module")
def base() -> DeviceSpec:
    """The shipped spec of the GPU that is here."""
    gpu = next((device for device in devices.find() if device.kind == "cuda"), None)
    try:
        return specs.of_device(gpu, measured=False) if gpu else pytest.skip("NVML sees no GPU")
    except SpecError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def found(base: DeviceSpec) -> dict[str, Figure]:
    """Each figure, measured once."""
    gpu = next(device for device in devices.find() if device.kind == "cuda")
    _, bench = calibrate_command.opened(gpu)
    return {figure.name: figure for figure in figures(bench, base)}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_figure_is_near_the_specs(name: str, found: dict[str, Figure]) -> None:
    figure, (low, high) = found[name], BOUNDS[name]
    assert not figure.missing
    assert figure.value is not None
    assert low <= figure.value / figure.spec <= high, (figure.value, figure.spec, figure.source)


def test_nothing_else_is_measured_and_the_clock_is_known(found: dict[str, Figure], base: DeviceSpec) -> None:
    assert found.keys() == BOUNDS.keys()
    for figure in found.values():
        assert figure.clock_hz is not None
        assert 0.3 * base.max_clock_hz <= figure.clock_hz <= 1.01 * base.max_clock_hz


def test_memory_is_farther_than_the_l2_and_slower(found: dict[str, Figure], base: DeviceSpec) -> None:
    values = {name: figure.value or 0.0 for name, figure in found.items()}
    assert values["memory_latency_s"] > 1.3 * values["l2_latency_s"]
    assert values["l2_bytes_per_clock"] * base.max_clock_hz > 1.2 * base.bandwidth_bytes_per_s


def test_what_was_measured_is_a_spec(found: dict[str, Figure], base: DeviceSpec) -> None:
    told = calibrated.Calibration(device="", spec=base.id, date="2000-01-01", driver="", torch="", triton="",
                                  figures=tuple(found.values()))
    kept = calibrated.measured(base, told)
    path = calibrated.path_of(base)
    write(kept, path)
    assert read(path, kept.id) == kept
