"""Which simulated GPUs there are: assets/devices/*.toml, a user's own in the same form, and copies with other figures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from msgspec.structs import replace

from engine import home
from engine.simulator.figures import DeviceSpec, SpecError, out_of_range, shown
from engine.simulator.reading import plain, read
from kernels.contract import Device

__all__ = [
    "MEASURED", "PREFIX", "DeviceSpec", "SpecError", "device_of", "folders", "found", "load", "of_device", "resolve", "what_if",
]

PREFIX = "sim:"         # of the ids of simulated devices
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MEASURED = "-measured"  # ends the ids of those that `engine bench calibrate` writes
AT = "@"                # between an id and what differs
WHAT_IF = ("clock", "bandwidth", "sram", "sms")
FACTORS = (0.25, 4.0)   # of a what-if


def folders() -> tuple[Traversable, ...]:
    """Those that are looked into: the program's, and the user's, which need not be there."""
    return files("assets") / "devices", home.folder() / "devices"


def load(folder: Traversable | None = None) -> tuple[DeviceSpec, ...]:
    """Every spec of a folder, or of `folders()`, by title. Raises: SpecError, of the first file that is wrong."""
    specs, refused = _scan(folders() if folder is None else (folder,))
    if refused:
        raise next(iter(refused.values()))
    return specs


def found() -> tuple[tuple[DeviceSpec, ...], tuple[str, ...]]:
    """Every spec of `folders()` that is right, by title, and a sentence for each that is not."""
    specs, refused = _scan(folders())
    return specs, tuple(map(str, refused.values()))


def resolve(wanted: str) -> DeviceSpec:
    """The spec that `sim:ID` names, or `sim:PATH` of a TOML file anywhere, whose id is then that path.

    Either may be followed by what differs of it, as `what_if` names its copies: `sim:h100-sxm@bandwidth=1.5,sms=66`.

    Raises: SpecError.
    """
    name, _, changes = wanted.removeprefix(PREFIX).partition(AT)
    if changes:
        return _changed(_named(name), changes)
    return _named(name)


def _changed(spec: DeviceSpec, changes: str) -> DeviceSpec:
    """The copy that an id asks for. Raises: SpecError."""
    told: dict[str, float] = {}
    for change in changes.split(","):
        name, _, value = change.partition("=")
        if name not in WHAT_IF or name in told:
            known = ", ".join(WHAT_IF)
            raise SpecError(f"{spec.id}: there is no changing {plain(change)!r}: write each of {known} once, as clock=1.2")
        try:
            told[name] = int(value) if name == "sms" else float(value)
        except ValueError as error:
            raise SpecError(f"{spec.id}: {name} cannot be {plain(value)!r}: give a number, of SMs a whole one") from error
    return what_if(spec, **told)  # type: ignore[arg-type]  # sms is whole


def _named(name: str) -> DeviceSpec:
    if name.endswith(".toml"):
        return read(Path(name), name)
    specs, refused = _scan(folders())
    for spec in specs:
        if spec.id == name:
            return spec
    for path, error in refused.items():
        if path.name == f"{name}.toml":
            raise error
    known = ", ".join(spec.id for spec in specs)
    raise SpecError(f"there is no simulated GPU {name!r}: choose from {known}, or give a file, as {PREFIX}mine.toml")


def of_device(device: Device, measured: bool = True) -> DeviceSpec:
    """The spec of a GPU that is here, by the name that its driver gives it: what was measured of such a GPU, else what is
    shipped, else the user's.

    Args:
        measured: whether it may be one that `engine bench calibrate` wrote.

    Raises:
        SpecError: there is none, or what was measured of it is refused.
    """
    specs, refused = _scan(folders())
    told = [spec for spec in specs if device.name in spec.names and (measured or not spec.id.endswith(MEASURED))]
    for path, error in refused.items() if measured else ():
        if path.name in {f"{spec.id}{MEASURED}.toml" for spec in told}:
            raise SpecError(f"{error}: mend the file, or delete it and measure again")
    if told:
        shipped = folders()[0]
        return min(told, key=lambda spec: (not spec.id.endswith(MEASURED), not (shipped / f"{spec.id}.toml").is_file()))
    raise SpecError(f"{device.id} is a {device.name}, of which there is no spec: choose sim:ID of engine devices, or write one")


def device_of(spec: DeviceSpec) -> Device:
    """As the rest of the program knows a device. Its name says that it is simulated."""
    return Device(
        id=f"{PREFIX}{spec.id}", kind="sim", name=f"{spec.title} (simulated)", capability=spec.capability, sms=spec.sms,
        sram_bytes_per_block=spec.sram_bytes_per_block, l2_bytes=spec.l2_bytes, memory_bytes=spec.memory_bytes,
        bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s, bandwidth_provenance="spec",
    )


def what_if(
    spec: DeviceSpec, *, clock: float = 1.0, bandwidth: float = 1.0, sram: float = 1.0, sms: int | None = None
) -> DeviceSpec:
    """A copy with other figures, which its id, title and sources say; the spec itself where nothing differs.

    Args:
        clock: factor of both clocks, and so of all rates that are a clock's. bandwidth: factor of the memory's.
        sram: factor of the shared memory of an SM; a block may have what the system leaves of it. sms: how many, not a factor.

    Raises:
        SpecError: a factor is not between 0.25 and 4, or a figure out of its range.
    """
    factors, (lo, hi) = {"clock": clock, "bandwidth": bandwidth, "sram": sram}, FACTORS
    for name, factor in factors.items():
        if not lo <= factor <= hi:  # not so of NaN either
            raise SpecError(f"{spec.id}: {name}: a factor of {shown(factor)} is out of range: choose from {lo:g} to {hi:g}")
    sram_bytes = round(sram * spec.sram_bytes_per_sm)
    changed: dict[str, float] = {
        "clock_hz": clock * spec.clock_hz, "max_clock_hz": clock * spec.max_clock_hz,
        "bandwidth_bytes_per_s": bandwidth * spec.bandwidth_bytes_per_s, "sram_bytes_per_sm": sram_bytes,
        "sram_bytes_per_block": sram_bytes - spec.sram_bytes_per_sm + spec.sram_bytes_per_block,
        "sms": spec.sms if sms is None else sms,
    }
    changed = {name: value for name, value in changed.items() if value != getattr(spec, name)}
    for name, value in changed.items():
        if reason := out_of_range(name, value):
            raise SpecError(f"{spec.id}: {name}: {reason}")
    if not changed:
        return spec
    told = {name: f"{factor:g}" for name, factor in factors.items() if factor != 1}
    said = ", ".join([f"{name} ×{factor}" for name, factor in told.items()] + ([f"{sms} SMs"] if "sms" in changed else []))
    told |= {"sms": str(sms)} if "sms" in changed else {}
    sources = {name: source for name, source in spec.sources.items() if name != "published_tflops"}
    return replace(
        spec, **changed, id=f"{spec.id}{AT}{','.join(f'{name}={value}' for name, value in told.items())}",
        title=f"{spec.title}, {said}", published_tflops={},
        sources=sources | {name: f"What if: {said}; without, {sources[name]}" for name in changed},
    )


def _scan(looked: Iterable[Traversable]) -> tuple[tuple[DeviceSpec, ...], dict[Traversable, SpecError]]:
    """What is right in these folders, by title, and of each file, or folder, that is not, the error."""
    at: dict[str, tuple[DeviceSpec, Traversable]] = {}
    refused: dict[Traversable, SpecError] = {}
    for folder in looked:
        try:
            paths = sorted((path for path in folder.iterdir() if path.name.endswith(".toml")), key=lambda path: path.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            refused[folder] = SpecError(f"{plain(str(folder))}: cannot be read: {error.strerror}")
            continue
        for path in paths:
            name = path.name.removesuffix(".toml")
            try:
                if not ID.fullmatch(name):
                    raise SpecError(f"{plain(str(path))}: id: it is the file's name: use letters, digits, dots and dashes")
                if name in at:
                    raise SpecError(f"{plain(str(path))}: id: {plain(str(at[name][1]))} has it too: rename one")
                at[name] = read(path, name), path
            except SpecError as error:
                refused[path] = error
    return tuple(sorted((spec for spec, _ in at.values()), key=lambda spec: spec.title.lower())), refused
