"""What differs of a simulated GPU, in its id and on its sliders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pytestqt.qtbot import QtBot

from app.choice import first_choice, on_device
from app.store import Snapshot, Store
from app.what_if import WhatIf, device_of, simulated, what_if
from engine.protocol import Configure, Device, DeviceFound
from engine.simulator import spec
from kernels.catalog import catalog
from tests.app import feed
from tests.app.windows import Listener, form, opened

H100 = Device(id="sim:h100-sxm", kind="sim", name="H100 SXM (simulated)", capability=(9, 0), sms=132, memory_bytes=80 << 30)
T4 = Device(id="sim:t4", kind="sim", name="T4 (simulated)", capability=(7, 5), sms=40, memory_bytes=16 << 30)
KERNELS = tuple(kernel.info for kernel in catalog().values())
HELLO = replace(feed.hello(), devices=(*feed.hello().devices, H100, T4), kernels=KERNELS)
CHANGES = st.builds(
    WhatIf, st.just("sim:h100-sxm"), st.integers(25, 400), st.integers(25, 400), st.just(100), st.none() | st.integers(1, 1024))


@given(CHANGES)
def test_an_id_says_all_and_the_engine_reads_it_alike(differs: WhatIf) -> None:
    assert what_if(differs.id) == differs
    own, other = spec.resolve("sim:h100-sxm"), spec.resolve(differs.id)
    assert other.clock_hz == pytest.approx(own.clock_hz * differs.clock / 100)
    assert other.bandwidth_bytes_per_s == pytest.approx(own.bandwidth_bytes_per_s * differs.bandwidth / 100)
    assert other.sms == (own.sms if differs.sms is None else differs.sms)


@given(st.text(max_size=40))
def test_any_text_is_read(text: str) -> None:
    for device in (text, f"sim:t4@{text}"):
        assert isinstance(what_if(device), WhatIf)
        assert what_if(device).base == device.partition("@")[0]
        device_of(device, feed.hello())


def test_as_many_sms_as_it_has_are_no_change() -> None:
    assert WhatIf("sim:h100-sxm", sms=66).changed("sms", 132, H100).id == "sim:h100-sxm"
    assert WhatIf("sim:h100-sxm").changed("sms", 66, H100).id == "sim:h100-sxm@sms=66"


def test_a_device_that_differs_is_known_by_its_base() -> None:
    found = device_of("sim:h100-sxm@clock=2", HELLO)
    assert found is not None
    assert (found.id, found.sms) == ("sim:h100-sxm@clock=2", 132)
    assert device_of("sim:h999", HELLO) is None
    assert not simulated("cuda:0")


def test_sliders_stand_beneath_a_simulated_gpu_alone_and_ask_for_another(qtbot: QtBot) -> None:
    client = Listener(HELLO)
    window = opened(qtbot, client)
    controls = form(window)
    assert not controls.what_if.isVisible()
    controls.devices.setCurrentIndex(controls.devices.findData("sim:h100-sxm"))
    controls.devices.activated.emit(controls.devices.currentIndex())
    assert controls.what_if.isVisible()
    clock, sms = controls.what_if.controls["clock"], controls.what_if.controls["sms"]
    assert (clock.box.value(), sms.box.value()) == (100, 132)
    kept = controls.choice
    clock.box.setValue(150)
    sms.box.setValue(66)
    assert controls.choice is not None
    assert kept is not None
    assert controls.choice.device == "sim:h100-sxm@clock=1.5,sms=66"
    assert (controls.choice.workload, controls.choice.kernels) == (kept.workload, kept.kernels)
    assert controls.devices.currentData() == "sim:h100-sxm"
    qtbot.waitUntil(lambda: client.of(Configure)[-1].device == "sim:h100-sxm@clock=1.5,sms=66")


def test_what_nothing_launches_is_offered_on_a_simulated_gpu_alone(qtbot: QtBot) -> None:
    client = Listener(HELLO)
    window = opened(qtbot, client)
    controls = form(window)
    published = [info.id for info in KERNELS if info.family == "attention" and not info.runs]
    assert published
    assert all(controls.kernels[name].isHidden() for name in published)
    controls.devices.setCurrentIndex(controls.devices.findData("sim:t4"))
    controls.devices.activated.emit(controls.devices.currentIndex())
    assert not any(controls.kernels[name].isHidden() for name in published)
    assert controls.choice is not None
    assert controls.choice.workload.dtype == "float16"  # it has no bfloat16
    assert {"eager", "flash_attn_1"} <= set(controls.choice.kernels)
    controls.devices.setCurrentIndex(controls.devices.findData(feed.hello().devices[0].id))
    controls.devices.activated.emit(controls.devices.currentIndex())
    assert not set(published) & set(controls.choice.kernels)


def test_a_file_is_a_device(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    assert device_of(f"sim:{path}@clock=2", feed.hello()) is None
    path.write_text("")     # what is wrong with it is for the engine to say
    found = device_of(f"sim:{path}@clock=2", feed.hello())
    assert found is not None
    assert found.kind == "sim"


@pytest.mark.parametrize("odd", ["base=3", "id=3", "sms=99999999999", "clock=1e300", "clock=nan", "sms=1.5", "clock"])
def test_what_no_slider_shows_is_left_to_the_engine_to_refuse(qtbot: QtBot, odd: str) -> None:
    assert what_if(f"sim:h100-sxm@{odd}") == WhatIf("sim:h100-sxm")
    controls = form(opened(qtbot, Listener(HELLO)))
    choice = controls.choice
    assert choice is not None
    controls.show_choice(replace(choice, device=f"sim:h100-sxm@{odd}"))
    assert controls.what_if.isVisible()


def test_the_sms_of_a_file_are_shown_once_the_engine_has_told(qtbot: QtBot, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("")
    window = opened(qtbot, Listener(HELLO))
    controls = form(window)
    choice = controls.choice
    assert choice is not None
    mine = replace(H100, id=f"sim:{path}", sms=77)
    controls.show_choice(replace(choice, device=mine.id))
    sms = controls.what_if.controls["sms"]
    assert sms.isHidden()
    controls.update_from(Snapshot(hello=HELLO, device=mine))
    assert (sms.isHidden(), sms.box.value()) == (False, 77)
    for wanted in ("sim:h100-sxm", mine.id):    # there and back
        controls.devices.setCurrentIndex(controls.devices.findData(wanted))
        controls.devices.activated.emit(controls.devices.currentIndex())
        assert controls.choice is not None
        assert controls.choice.device == wanted


def test_of_many_that_differ_the_last_is_kept_and_none_is_offered() -> None:
    store = Store()
    store.reduce(HELLO)
    for percent in range(50, 90):
        store.reduce(DeviceFound(device=replace(H100, id=f"sim:h100-sxm@clock=0.{percent}")))
    store.reduce(DeviceFound(device=replace(T4, sms=41)))
    hello = store.snapshot().hello
    assert hello is not None
    assert [device.id for device in hello.devices[len(HELLO.devices):]] == ["sim:h100-sxm@clock=0.89"]
    assert [device.sms for device in hello.devices if device.id == "sim:t4"] == [41]


def test_from_what_was_published_alone_to_a_real_gpu_there_are_kernels() -> None:
    old = first_choice(T4)
    assert old.kernels == ("eager", "flash_attn_1")
    assert on_device(old, HELLO.devices[0], HELLO).kernels == first_choice(HELLO.devices[0]).kernels
