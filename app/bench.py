"""What the window itself costs: how soon it is painted and answers, what it draws, how it closes, what it takes. `--bench`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

REPEATS = 5
FRAMES_S = 10.0
CYCLES = 100
LOOK_S = 0.005          # between two looks for a sample: what is told is not much coarser
ROUNDS = 10             # of a second with the window drawn and a second without
CLOSE_AT_S = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0, 3.0)   # after connecting: in the import of torch, in a compile, in a run
Figures = dict[str, Any]

BARE = """
import sys, time
from PySide6.QtWidgets import QApplication, QMainWindow
import pyqtgraph
application = QApplication([])
window = QMainWindow()
window.setCentralWidget(pyqtgraph.PlotWidget())
window.resize(1440, 900)
window.show()
application.processEvents()
print(time.time() - float(sys.argv[1]))
"""

STARTED = """
import json, sys, time
from app.start import application
from app.theme import Theme
from app.window import Window
running = application()
window = Window(Theme.load("dark"))
window.resize(1440, 900)
window.show()
running.processEvents()
shell, early = time.time() - float(sys.argv[1]), "pyqtgraph" in sys.modules
window.furnish()
running.processEvents()
print(json.dumps({"shell": shell, "plots": time.time() - float(sys.argv[1]), "early": early}))
"""


def report(which: str, *, as_json: bool) -> int:
    """Measures, and prints; the exit code is 0, whatever was measured."""
    figures = BENCHES[which]()
    if as_json:
        print(json.dumps({"bench": which, **figures}))
    else:
        print("\n".join(f"{name:<32} {value}" for name, value in figures.items()))
    return 0


def start() -> Figures:
    """Seconds from the start of the process, medians: the shell painted, the plots painted, and a bare window with a plot.

    The three take turns; one round is thrown away, so that the disk is warm.
    """
    bare, shell, plots, early = [], [], [], False
    for turn in range(REPEATS + 1):
        plain = float(_child(BARE))
        ours = json.loads(_child(STARTED))
        if turn:
            bare.append(plain)
            shell.append(ours["shell"])
            plots.append(ours["plots"])
        early = early or ours["early"]
    return {
        "shell_s": _middle(shell), "plots_s": _middle(plots), "bare_window_s": _middle(bare),
        "plots_to_bare": round(statistics.median(plots) / statistics.median(bare), 2), "repeats": REPEATS,
        "pyqtgraph_before_the_shell": early,
    }


def frames() -> Figures:
    """Frames a second over some seconds of a run on the CPU at 1440x900, four plots and the animation going."""
    from app.unattended import spend

    window = _running("cpu")
    visible = sum(panel.isVisible() for panel in window.desk.panels().values())
    gaps = window.frames.watch()
    spend(FRAMES_S)
    seconds = sorted(gaps)
    window.close()
    return {
        "frames_per_s": round(len(seconds) / sum(seconds), 1), "gap_p50_ms": round(1e3 * statistics.median(seconds), 1),
        "gap_p99_ms": round(1e3 * seconds[int(0.99 * (len(seconds) - 1))], 1), "gap_max_ms": round(1e3 * seconds[-1], 1),
        "draw_p50_ms": round(1e3 * statistics.median(window.frames.draws_s), 1), "frames": len(seconds),
        "panels_visible": visible, "cores": os.cpu_count(),
    }


def slider() -> Figures:
    """Milliseconds from a control's change to the first sample of the new shape, where nothing need be compiled."""
    window = _running(None)
    took: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for field in ("batch", "heads", "seq"):
            first = getattr(window.run.choice.workload, field)
            for value in (2 * first, first):
                took.setdefault(f"{field} to {value}", []).append(1e3 * _answer_s(window, field, value))
    window.close()
    return {
        "device": window.snapshot.device.name, "first_sample_max_ms": round(max(max(times) for times in took.values())),
        **{f"{what} ms": _middle(times, 0) for what, times in took.items()}, "repeats": REPEATS,
    }


def _answer_s(window: Any, field: str, value: int) -> float:
    """Seconds from a number typed into a field to the first sample with it."""
    from app.unattended import wait

    generation = window.snapshot.generation
    began = time.perf_counter()
    window.form.fields[field].box.setValue(value)
    wait(60.0, lambda: window.snapshot.generation > generation and _sampled(window), LOOK_S)
    return time.perf_counter() - began


def effect() -> Figures:
    """Each kernel's median time with the window drawn over that without, in turns of a second of one run."""
    from app.unattended import spend

    window = _running(None)
    spans = []
    for _ in range(ROUNDS):
        for drawn in (True, False):
            window.live.bridge.blockSignals(not drawn)
            (window.frames.wake if drawn else window.frames.stop)()
            window.live.take_in()
            begin = window.snapshot.now_s
            spend(1.0)
            window.live.take_in()
            spans.append((begin, window.snapshot.now_s, drawn))
    window.live.bridge.blockSignals(False)
    figures: Figures = {"device": window.snapshot.device.name}
    for kernel, series in window.snapshot.series.items():
        times: dict[bool, list[float]] = {True: [], False: []}
        for begin, end, drawn in spans:
            times[drawn] += series.time_ns[(series.t_s > begin) & (series.t_s <= end)].tolist()
        drawn_ns, bare_ns = (statistics.median(times[drawn]) for drawn in (True, False))
        figures[kernel] = f"{drawn_ns / bare_ns:.4f} ({len(times[True])} and {len(times[False])} samples)"
    window.close()
    return figures


def cycles() -> Figures:
    """Opens and closes the window; what is left behind, and how long closing took at various moments of a run."""
    import gc
    import threading

    import psutil
    from PySide6.QtCore import QThread, QTimer
    from PySide6.QtWidgets import QApplication

    closing = [_close_after(delay) for delay in CLOSE_AT_S]
    process, sizes = psutil.Process(), []
    for cycle in range(CYCLES):
        window = _window(1440, 900)
        window.close()
        window.deleteLater()
        del window
        QApplication.sendPostedEvents(None, 52)  # QEvent.DeferredDelete
        QApplication.processEvents()
        gc.collect()
        if cycle in (CYCLES // 5, CYCLES - 1):
            sizes.append(process.memory_info().rss)
    live = [item for item in gc.get_objects() if isinstance(item, QThread) and item.isRunning()]
    timers = [item for item in gc.get_objects() if isinstance(item, QTimer) and item.isActive()]
    return {
        "cycles": CYCLES, "threads": threading.active_count(), "qthreads": len(live), "timers": len(timers),
        "growth_kib_a_cycle": round((sizes[1] - sizes[0]) / 1024 / (CYCLES - 1 - CYCLES // 5), 1),
        "close_max_s": round(max(closing), 2), "close_s": [round(seconds, 2) for seconds in closing],
    }


def _close_after(delay_s: float) -> float:
    """Seconds that a process of its own takes to end, from the close of its window."""
    code = (
        "import sys, time\nfrom PySide6.QtCore import QTimer\nfrom app.bench import _window\nfrom app import start\n"
        "window = _window(1440, 900)\nwindow.connect_engine()\n"
        "def close():\n    print(time.time(), flush=True)\n    window.close()\n"
        f"QTimer.singleShot({round(delay_s * 1000)}, close)\n"
        "start.until_closed(start.application(), window)\nstart.leave(0)\n"
    )
    asked = float(_child(code).strip())
    return time.time() - asked


def _running(device: str | None) -> Any:
    """A window with a run of every kernel ticked at first, measured for a second already."""
    from app.unattended import spend, wait

    window = _window(1440, 900, device)
    window.connect_engine()
    wait(120.0, lambda: _sampled(window, all), LOOK_S)
    spend(1.0)
    return window


def _sampled(window: Any, how: Callable[..., bool] = any) -> bool:
    """Whether any (or all) of the kernels that run have a sample of the configuration on screen."""
    snapshot = window.snapshot
    running = [kernel for kernel in snapshot.plans if kernel not in snapshot.refusals]
    return bool(running) and how(bool(snapshot.shown(kernel)) for kernel in running)


def _window(width: int, height: int, device: str | None = "cpu") -> Any:
    from app.start import application
    from app.theme import Theme
    from app.window import Window

    application()
    window = Window(Theme.load("dark"), asked={"device": device} if device else {})
    window.resize(width, height)
    window.show()
    window.furnish()
    application().processEvents()
    return window


def _child(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, str(time.time())], capture_output=True, text=True, check=True)
    return done.stdout


def _middle(values: list[float], digits: int = 3) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


BENCHES: dict[str, Callable[[], Figures]] = {
    "frames": frames, "start": start, "cycles": cycles, "slider": slider, "effect": effect,
}
