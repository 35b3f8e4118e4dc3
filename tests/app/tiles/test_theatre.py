"""The theatre as it is operated: bar, keys, pointer, motion, and what it says."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.theme import Theme
from app.tiles.scene import Scene
from app.tiles.step_info import StepInfo
from app.tiles.theatre import EMPTY, Theatre
from app.tiles.transport import STEPS
from app.tiles.view import View
from kernels.contract import AttentionWorkload, Device
from tests.app.feed import CPU, H200, WORKLOAD, planned

ON_CPU = AttentionWorkload(batch=1, seq=512, heads=4, kv_heads=4, head_dim=64, dtype="float32")
DARK, LIGHT = Theme.load("dark"), Theme.load("light")
LEFT = Qt.MouseButton.LeftButton


def theatre(
    qtbot: QtBot, kernels: tuple[str, ...] = ("naive", "flash"), workload: AttentionWorkload = WORKLOAD, device: Device = H200,
) -> Theatre:
    """On screen, with those kernels planned."""
    made = Theatre(DARK)
    qtbot.addWidget(made)
    made.resize(1150, 420)
    if kernels:
        made.show_plans(list(planned(kernels, workload, device).plans), device, workload)
    made.show()
    return made


def view(scene: Scene) -> View:
    assert scene.view is not None
    return scene.view


def done(made: Theatre) -> list[tuple[int, int]]:
    """Wave and steps done of each scene."""
    return [(view(scene).place.wave, view(scene).place.done) for scene in made.scenes if not scene.isHidden()]


def middle(scene: Scene, name: str, down: float = 0.5) -> QPoint:
    """A point of a matrix."""
    area = scene.scene_layout().matrices[name]
    return QPointF(area.center().x(), area.top() + down * area.height()).toPoint()


def test_before_a_plan_it_says_what_will_appear(qtbot: QtBot) -> None:
    made = theatre(qtbot, kernels=())
    assert made.summary() == EMPTY
    assert made.accessibleDescription() == EMPTY
    assert not made.transport.isEnabled()
    made.toggle_play()
    made.step(1)
    made.seek(0.5)
    made.choose_program(3)
    assert made.advance(0.1) is False


def test_a_click_on_step_takes_one_and_back_undoes_it(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    with qtbot.waitSignal(made.woke):
        QTest.mouseClick(made.transport.on, LEFT)
    QTest.mouseClick(made.transport.on, LEFT)
    assert done(made) == [(0, 2), (0, 2)]
    QTest.mouseClick(made.transport.back, LEFT)
    assert done(made) == [(0, 1), (0, 1)]


def test_keys_step_and_go_to_the_ends(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.setFocus()
    QTest.keyClick(made, Qt.Key.Key_Period)
    QTest.keyClick(made, Qt.Key.Key_Period)
    QTest.keyClick(made, Qt.Key.Key_Comma)
    assert done(made) == [(0, 1), (0, 1)]
    QTest.keyClick(made, Qt.Key.Key_End)
    assert all(view(scene).done for scene in made.scenes)
    QTest.keyClick(made, Qt.Key.Key_Home)
    assert done(made) == [(0, 0), (0, 0)]


def test_a_backward_pass_is_stepped_through_launch_by_launch(qtbot: QtBot) -> None:
    """O is there before it begins, S and P are never written, and each gradient fills at the outer side of its operand."""
    workload = AttentionWorkload(batch=1, seq=300, heads=2, kv_heads=1, head_dim=64, pass_="backward")
    made = theatre(qtbot, ("flash",), workload)
    scene, seen = made.scenes[0], set()
    for part in range(101):
        made.seek(part / 100)
        seen.add(view(scene).launch.launch.name)
        for _ in range(3):
            made.step(1)
            made.grab()
        assert view(scene).fills["O"].whole
        assert "S" not in view(scene).fills
    assert seen == {"delta", "flash_backward", "dQ"}
    assert {name for name in ("dQ", "dK", "dV") if view(scene).fills[name].whole} == {"dK", "dV"}, "dQ is the last launch's"
    matrices = scene.scene_layout().matrices
    assert matrices["dQ"].right() < matrices["Q"].left() < matrices["S"].left()
    assert matrices["dK"].bottom() < matrices["K"].top() < matrices["S"].top()
    assert matrices["dV"].bottom() < matrices["V"].top() < matrices["P"].top()
    assert matrices["P"].right() < matrices["O"].right() < matrices["dO"].left()
    assert view(scene).counters.hbm_written["dQ sum"] == 2 * 2 * 300 * 64 * 4


def test_warps_with_roles_are_named_and_programs_share_a_kv_head(qtbot: QtBot) -> None:
    """Every tile op of flash_hopper says whose it is; with one KV head for four, dK and dV have sums of their own."""
    workload = AttentionWorkload(batch=1, seq=300, heads=4, kv_heads=1, head_dim=64, dtype="float16", pass_="backward")
    made = theatre(qtbot, ("flash_hopper",), workload)
    seen, said = set(), list[Any]()
    made.picked.connect(said.append)
    for part in range(101):
        made.seek(part / 100)
        seen.add(view(made.scenes[0]).launch.launch.name)
        made.step(1)
    assert seen == {"delta", "dK = 0", "dV = 0", "flash_hopper_backward", "dQ", "dK", "dV"}
    walked = [line for info in said if info.launch == "flash_hopper_backward" for line in info.lines]
    assert "load Q, by the producer warp." in walked
    assert any(line.endswith(", by the consumer warpgroups.") for line in walked)


def test_play_takes_steps_as_time_passes_and_stops_at_the_end(qtbot: QtBot) -> None:
    made = theatre(qtbot, workload=AttentionWorkload(batch=1, seq=128, heads=1, kv_heads=1, head_dim=64))
    QTest.mouseClick(made.transport.play, LEFT)
    assert made.transport.play.accessibleName() == "Pause"
    assert made.advance(0.5)
    assert done(made)[1] == (0, 4)
    for _ in range(100):
        made.advance(0.5)
    assert all(view(scene).done for scene in made.scenes)
    assert made.advance(0.5) is False
    assert made.transport.play.accessibleName() == "Play"
    QTest.mouseClick(made.transport.play, LEFT)
    assert done(made) == [(0, 0), (0, 0)]


def test_paused_nothing_moves(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.toggle_play()
    made.toggle_play()
    assert made.advance(10) is False
    assert done(made) == [(0, 0), (0, 0)]


def test_the_scrubber_seeks_and_says_the_scheduled_time(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.transport.slider.setValue(STEPS // 2)
    assert [view(scene).done for scene in made.scenes] == [False, True]
    text = made.transport.time.text().replace(fmt.SPACE, " ")
    assert text == "1.37 ms of 2.74 ms · scheduled"
    made.seek(1.0)
    assert made.transport.slider.value() == STEPS


def test_the_scrubber_is_dragged_and_nothing_beside_it_moves(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    slider = made.transport.slider
    places = {slider.geometry().getRect()}
    QTest.mousePress(slider, LEFT, pos=QPoint(6, slider.height() // 2))
    for x in range(10, slider.width(), slider.width() // 6):
        QTest.mouseMove(slider, QPoint(x, slider.height() // 2))
        places.add(slider.geometry().getRect())
    QTest.mouseRelease(slider, LEFT, pos=QPoint(slider.width() - 6, slider.height() // 2))
    assert view(made.scenes[0]).place.launch > 0
    assert len(places) == 1


def test_where_the_bar_is_tight_it_keeps_what_has_no_key(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.resize(600, 320)
    bar = made.transport
    assert [button.isVisible() for button in bar.buttons] == [False, True, True, True, False]
    assert bar.program.text() == "1"
    assert bar.program.geometry().right() <= bar.width()
    made.resize(1150, 320)
    assert all(button.isVisible() for button in bar.buttons)


def test_the_chosen_scene_shows_that_keys_go_to_it(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.activateWindow()
    QTest.mouseClick(made.scenes[1], LEFT, pos=QPoint(5, 5))
    qtbot.waitUntil(made.hasFocus)
    edges = [scene.grab().toImage().pixelColor(100, 0) for scene in made.scenes]
    assert edges == [DARK["border"], DARK["accent"]]


def test_the_speed_is_in_steps_a_second(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.transport.speed.setCurrentText("2 steps/s")
    made.toggle_play()
    made.advance(1.0)
    assert done(made) == [(0, 2), (0, 2)]
    made.set_speed(1024)
    assert made.transport.speed.currentData() == 1024


def test_a_speed_chosen_before_a_plan_is_kept(qtbot: QtBot) -> None:
    made = theatre(qtbot, kernels=())
    made.set_speed(4)
    made.show_plans(list(planned().plans), H200, WORKLOAD)
    made.toggle_play()
    made.advance(1.0)
    assert done(made) == [(0, 4), (0, 4)]


def test_the_program_box_follows_a_program_of_the_chosen_kernel(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    box = made.transport.program
    assert box.text().replace(fmt.THIN, " ") == "program 1 of 4 096"
    box.setValue(1700)
    assert view(made.scenes[0]).place.program == 1699
    assert view(made.scenes[1]).place.program == 0
    QTest.mouseClick(made.scenes[1], LEFT, pos=QPoint(5, 5))
    assert box.maximum() == 2048
    box.setValue(17)
    assert view(made.scenes[1]).place.program == 16
    assert "flash" in box.accessibleName()


def test_a_click_on_a_written_cell_follows_its_program(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.seek(0.005)
    scene = made.scenes[0]
    QTest.mouseClick(scene, LEFT, pos=middle(scene, "S", down=0.999))
    place = view(scene).place
    assert view(scene).track.launches[0].program_steps(place.program)[-1].box[2] == (3968, 4096)


def test_a_tile_travels_and_arrives(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.step(1)
    assert all(scene.travelling for scene in made.scenes)
    assert made.advance(0.05)
    for _ in range(20):
        made.advance(0.05)
    assert not any(scene.travelling for scene in made.scenes)
    assert made.advance(0.05) is False


def test_a_compute_step_moves_no_tile(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    for _ in range(5):
        made.step(1)
    assert [view(scene).focus.step.op.kind for scene in made.scenes] == ["compute", "load"]  # type: ignore[union-attr]
    assert [scene.travelling for scene in made.scenes] == [False, True]


def test_a_kernel_that_waits_moves_nothing(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.seek(0.5)
    made.step(1)
    assert not made.scenes[1].travelling


@pytest.mark.parametrize("speed", [32.0, 1024.0])
def test_fast_no_tile_travels(qtbot: QtBot, speed: float) -> None:
    made = theatre(qtbot)
    made.set_speed(speed)
    made.toggle_play()
    made.advance(1 / speed)
    assert not any(scene.travelling for scene in made.scenes)


def test_reduced_motion_is_steps_alone(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.step(1)
    made.set_reduced_motion(True)
    assert not any(scene.travelling for scene in made.scenes)
    made.step(1)
    assert not any(scene.travelling for scene in made.scenes)
    assert done(made) == [(0, 2), (0, 2)]


def test_an_opaque_kernel_is_named_and_not_drawn(qtbot: QtBot) -> None:
    made = theatre(qtbot, kernels=("flash", "sdpa_cudnn"))
    assert [scene.isVisible() for scene in made.scenes] == [True, False]
    assert "sdpa_cudnn: opaque" in made.note.text()
    assert made.note.isVisible()


def test_nothing_but_opaque_kernels_says_so_in_the_middle(qtbot: QtBot) -> None:
    made = theatre(qtbot, kernels=("sdpa_cudnn",))
    assert not any(scene.isVisible() for scene in made.scenes)
    assert made.summary().startswith("sdpa_cudnn: opaque")


def test_a_new_plan_keeps_the_place_on_the_clock(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.seek(0.5)
    longer = AttentionWorkload(seq=8192)
    made.show_plans(list(planned(workload=longer).plans), H200, longer)
    assert made.transport.slider.value() == pytest.approx(STEPS / 2, abs=STEPS / 50)
    made.show_plans([], H200, longer)
    assert not made.transport.isEnabled()


def test_the_same_plans_again_change_nothing(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    plans = list(planned().plans)
    made.show_plans(plans, H200, WORKLOAD)
    made.step(3)
    made.show_plans(list(plans), H200, WORKLOAD)
    assert done(made) == [(0, 3), (0, 3)]


def test_picked_tells_the_step_in_sentences(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    seen: list[Any] = []
    made.picked.connect(seen.append)
    made.step(2)
    info = seen[-1]
    assert isinstance(info, StepInfo)
    assert (info.kernel, info.launch, info.step, info.steps) == ("naive", "scores", 2, 97)
    assert info.title == "Program 1 · step 2 of 97"
    assert all(line.endswith(".") for line in info.lines)
    said = " ".join(info.lines).replace(fmt.SPACE, " ")
    assert "load K. Reads K[0], 16.0 KiB, from HBM or L2: rows 0 to 63, all columns of K." in said
    assert "Writes K0 (K[0], 16.0 KiB in SRAM)." in said
    made.step(3)
    assert "2.10 MFLOP on matrices" in " ".join(seen[-1].lines).replace(fmt.SPACE, " ")


def test_on_a_cpu_it_speaks_of_ram_and_cache(qtbot: QtBot) -> None:
    made = theatre(qtbot, workload=ON_CPU, device=CPU)
    made.seek(0.5)
    said = made.summary() + " ".join(scene.tip_at(QPointF(middle(scene, "Q"))) for scene in made.scenes)
    assert "RAM" in said
    assert "cache" in said
    assert "HBM" not in said
    assert "MiB · scheduled" in made.transport.time.text().replace(fmt.SPACE, " ")


def test_the_summary_tells_both_kernels(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.seek(0.05)
    said = made.summary().replace(fmt.SPACE, " ")
    assert said.startswith("naive: S = Q Kᵗ / √D, wave ")
    assert "flash: done; 256 MiB of 256 MiB to and from HBM" in said
    assert made.accessibleDescription() == made.summary()
    assert all(scene.accessibleName() for scene in made.scenes)


def test_what_is_under_the_pointer_is_named_with_its_size(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.step(1)
    tips = [scene.tip_at(QPointF(middle(scene, "S"))) for scene in made.scenes]
    assert "never written" not in tips[0]
    assert tips[1].endswith("never written")
    assert made.scenes[0].tip_at(QPointF(1, 1)) == ""
    assert "distinct elements" in made.scenes[0].tip_at(made.scenes[0].scene_layout().counters.center())


def test_another_theme_repaints_everything(qtbot: QtBot) -> None:
    made = theatre(qtbot)
    made.seek(0.05)
    dark = made.scenes[0].grab().toImage()
    made.set_theme(LIGHT)
    light = made.scenes[0].grab().toImage()
    assert dark.pixelColor(200, 8) != light.pixelColor(200, 8)
    assert light.pixelColor(2, 200) == LIGHT["panel"]


def test_a_kernel_whose_programs_take_forever_is_named_and_another_is_played(qtbot: QtBot) -> None:
    long = AttentionWorkload(seq=16384)
    made = theatre(qtbot, ("naive", "flash_v1", "flash"), long)
    assert [view(scene).track.plan.kernel for scene in made.scenes] == ["naive", "flash"]
    assert made.note.text().startswith("flash_v1: a program takes ")
    assert made.note.text().endswith(" can be played: a shorter row can.")


def test_rows_of_a_million_keys_are_refused_without_listing_their_programs(qtbot: QtBot) -> None:
    """naive's mask alone has 134 million programs a head, its products a square of tiles."""
    endless = AttentionWorkload(batch=1, seq=(1 << 20) - 1, heads=1, kv_heads=1, head_dim=128)
    tracemalloc.start()
    made = theatre(qtbot, ("naive",), endless)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.note.text().replace(fmt.THIN, " ") == (
        "naive: a program takes 49 154 steps and 20 000 can be played: a shorter row can.")
    assert peak < 1 << 27


@pytest.mark.parametrize("kernel", ["fused_softmax", "flash_v1", "flash_hopper"])
def test_every_kernel_of_ours_can_be_played_to_its_end(qtbot: QtBot, kernel: str) -> None:
    made = theatre(qtbot, ("naive", kernel), AttentionWorkload(batch=1, seq=1024, heads=4, kv_heads=2, head_dim=64))
    for fraction in (0.0, 0.1, 0.5, 0.9, 1.0):
        made.seek(fraction)
        made.step(1)
        made.grab()
    assert kernel in made.summary()
