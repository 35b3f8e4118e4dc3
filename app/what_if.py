"""What differs of a simulated GPU, which is part of its id: `sim:h100-sxm@bandwidth=1.5,sms=66`. Plain data."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from engine.protocol import Device, Hello

PREFIX, AT = "sim:", "@"
LEAST_PERCENT, MOST_PERCENT, MOST_SMS = 25, 400, 1024
RANGES = dict.fromkeys(("clock", "bandwidth", "sram"), (LEAST_PERCENT, MOST_PERCENT)) | {"sms": (1, MOST_SMS)}


class WhatIf(Struct, frozen=True):
    """A simulated GPU, by the id of its spec. Factors in percent of the spec's; `sms`: how many, None for as many as it has."""

    base: str
    clock: int = 100
    bandwidth: int = 100
    sram: int = 100
    sms: int | None = None

    @property
    def id(self) -> str:
        """As the engine takes it: the base's own where nothing differs."""
        percents = {"clock": self.clock, "bandwidth": self.bandwidth, "sram": self.sram}
        told = [f"{name}={value / 100:g}" for name, value in percents.items() if value != 100]
        told += [] if self.sms is None else [f"sms={self.sms}"]
        return f"{self.base}{AT}{','.join(told)}" if told else self.base

    def changed(self, name: str, value: int, device: Device | None) -> WhatIf:
        """With another value. `device`: the base, whose number of SMs is no change."""
        same = name == "sms" and device is not None and device.sms == value
        return replace(self, **{name: None if same else value})


def what_if(device: str) -> WhatIf:
    """What an id says; of one that cannot be read, its base."""
    base, _, changes = device.partition(AT)
    found = WhatIf(base)
    try:
        for change in filter(None, changes.split(",")):
            name, _, value = change.partition("=")
            number = int(value) if name == "sms" else round(100 * float(value))
            low, high = RANGES[name]
            if not low <= number <= high:
                return WhatIf(base)
            found = replace(found, **{name: number})
    except (KeyError, ValueError, OverflowError):
        return WhatIf(base)
    return found


def simulated(device: str) -> bool:
    """Whether an id is that of a simulated GPU."""
    return device.startswith(PREFIX)


def device_of(wanted: str, hello: Hello) -> Device | None:
    """What is known of a device: of a simulated one that differs, of its base, of one in a file nothing yet; None of none."""
    base = what_if(wanted).base if simulated(wanted) else wanted
    known = next((device for device in hello.devices if device.id == base), None)
    if known is not None:
        return known if base == wanted else replace(known, id=wanted)
    there = simulated(wanted) and base.endswith(".toml") and Path(base.removeprefix(PREFIX)).is_file()
    return Device(id=wanted, kind="sim", name=base) if there else None
