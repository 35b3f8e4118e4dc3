"""A spec with what was measured here: from which spec it begins, what it takes, and where it is kept. Without torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine import devices, home
from engine.bench.calibrate import Figure
from engine.nvml import Nvml
from engine.simulator import spec as specs
from engine.simulator.figures import LIMITS, DeviceSpec, SpecError
from engine.simulator.reading import read
from engine.simulator.writing import write
from kernels.contract import Device

SAID = "Measured here, "  # begins the source of each figure that was
DATE = re.compile(SAID + r"(\d{4}-\d\d-\d\d)")
OF_SM = (  # what the CUDA C++ programming guide has by compute capability
    "vector_flops_per_clock", "exps_per_clock", "registers_per_sm", "warps_per_sm", "blocks_per_sm", "sram_bytes_per_sm",
    "sram_bytes_per_block", "sram_bytes_per_clock",
)
MHZ = 1e6
FIRST_DIGITS = 4


class Calibration(Struct, frozen=True, kw_only=True):
    """What was measured of a GPU, and under what. `spec`: the id of that which it is compared with."""

    device: str
    spec: str
    date: str
    driver: str
    torch: str
    triton: str
    figures: tuple[Figure, ...]


def base_of(device: Device, nvml: Nvml) -> DeviceSpec:
    """The spec that a calibration begins from: the GPU's own as data sheets have it, else one made of what is known of it.

    Args:
        device: with what PyTorch knows of it.

    Raises:
        SpecError: too little is known of it, or it is a part of a GPU.
    """
    if device.uuid.startswith("MIG-"):
        raise SpecError(f"{device.id} is a part of a GPU, which shares its memory with others: calibrate a whole one")
    try:
        base = specs.of_device(device, measured=False)
    except SpecError:
        return _made(device, nvml)
    if base.sms != device.sms:
        raise SpecError(f"{device.id} has {device.sms} SMs, and {base.id}, the spec of its name, {base.sms}: write its own")
    return base


def _made(device: Device, nvml: Nvml) -> DeviceSpec:
    """A spec of a GPU that has none: its sizes from its driver, its SMs as of the nearest part of the same compute capability,
    the rest of it estimated. Raises: SpecError."""
    same = [spec for spec in specs.load(specs.folders()[0]) if spec.capability == device.capability]
    handle = devices.handle(device, nvml)
    clock = nvml.query("nvmlDeviceGetMaxClockInfo", handle, 1, key=(device.uuid, 1)) if handle is not None else None
    power = nvml.query("nvmlDeviceGetPowerManagementDefaultLimit", handle, key=device.uuid) if handle is not None else None
    told = {"sms": device.sms, "l2_bytes": device.l2_bytes, "memory_bytes": device.memory_bytes,
            "bandwidth_bytes_per_s": device.bandwidth_bytes_per_s, "max_clock_hz": clock and clock * MHZ}
    lacking = [name for name, value in told.items() if not value]
    if lacking or not same:
        why = f"its driver does not say its {lacking[0]}" if lacking else "none of its compute capability to begin from"
        raise SpecError(f"{device.id} is a {device.name}, of which there is no spec, and {why}: write one (docs/devices.md)")
    near = min(same, key=lambda spec: abs(spec.sms - (device.sms or 0)))
    told |= {"clock_hz": told["max_clock_hz"], "power_w": power / 1e3 if power else None}
    told = {name: value for name, value in told.items() if value}
    known = {*told, *OF_SM} - {"clock_hz"}
    guessed = tuple(name for name in LIMITS if name not in known or (name in OF_SM and name in near.estimated))
    name = device.name.removeprefix("NVIDIA ").strip()
    return replace(
        near, **told, id=re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "gpu", title=name, names=(device.name,),
        published_tflops={}, estimated=guessed, sources={field: _origin(field, near, told, guessed) for field in LIMITS})


def _origin(field: str, near: DeviceSpec, told: dict[str, Any], guessed: Sequence[str]) -> str:
    """The source of a figure of a spec that was made."""
    if field == "clock_hz":
        return "Estimated: the highest clock that the SMs reach, as the driver says"
    if field in told:
        return "The driver and PyTorch, of the GPU that is here"
    origin = near.sources[field].removeprefix("Estimated: ")
    return f"{'Estimated: as' if field in guessed else 'As'} of the {near.title}, of the same compute capability: {origin}"


def measured(base: DeviceSpec, found: Calibration) -> DeviceSpec:
    """The spec with the figures that were measured, each of which says so in its source."""
    taken = {figure.name: _rounded(base, figure) for figure in found.figures if figure.taken}
    sources = base.sources | {figure.name: _source(base, figure, found) for figure in found.figures if not figure.missing}
    return replace(
        base, **taken, id=f"{base.id}{specs.MEASURED}", title=f"{base.title}, measured", sources=sources,
        estimated=tuple(name for name in base.estimated if name not in taken))


def _rounded(base: DeviceSpec, figure: Figure) -> float:
    assert figure.value is not None
    whole = isinstance(getattr(base, figure.name), int)
    return round(figure.value) if whole else float(f"{figure.value:.{FIRST_DIGITS}g}")


def _source(base: DeviceSpec, figure: Figure, found: Calibration) -> str:
    clock = f", SMs at {figure.clock_hz / MHZ:.0f} MHz" if figure.clock_hz else ""
    said = f"{figure.source}; driver {found.driver}, torch {found.torch}, triton {found.triton}{clock}"
    if figure.taken:
        return f"{SAID}{found.date}: {said}"
    return f"{base.sources[figure.name]}. {SAID}{found.date}, and not taken over: {figure.value:.{FIRST_DIGITS}g}, {said}"


def store(spec: DeviceSpec) -> tuple[str, str]:
    """Writes it into the user's folder; the path, and the date of what was there before, empty where nothing was.

    Raises:
        SpecError: it cannot be written, or what is there is not a calibration's.
    """
    path = path_of(spec)
    before = dated(path)
    write(spec, path)
    return str(path), before


def path_of(spec: DeviceSpec) -> Path:
    """Where what is measured of a GPU is kept. `spec`: its own, or the measured one."""
    return home.folder() / "devices" / f"{spec.id.removesuffix(specs.MEASURED)}{specs.MEASURED}.toml"


def dated(path: Path) -> str:
    """When the spec of a file was measured; empty where there is none.

    Raises:
        SpecError: what is there is not a calibration's.
    """
    if not path.exists():
        return ""
    try:
        sources = read(path, path.stem).sources
    except SpecError as error:
        raise SpecError(f"{error}; it is in the way of what is measured: mend it or rename it") from error
    dates = [found[1] for source in sources.values() if (found := DATE.search(source))]
    if not dates:
        raise SpecError(f"{path}: it is in the way of what is measured, and no calibration wrote it: rename it")
    return max(dates)


def clock_of(device: Device, nvml: Nvml) -> Callable[[], float | None]:
    """Reads the clock of a GPU's SMs, in Hz; None where NVML does not tell it."""
    handle = devices.handle(device, nvml)

    def clock() -> float | None:
        told = nvml.query("nvmlDeviceGetClockInfo", handle, 1, key=(device.uuid, "sm")) if handle is not None else None
        return told * MHZ if told else None

    return clock
