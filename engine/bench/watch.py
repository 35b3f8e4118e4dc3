"""Runs a tool of NVIDIA's around a child process that launches kernels, and brings back what both have said."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.bench.cases import Done, Order
from engine.options import BadInput

# Where their installers put them, if not on PATH.
PLACES = {
    "ncu": ("/usr/local/cuda/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu"),
    "compute-sanitizer": ("/usr/local/cuda/bin/compute-sanitizer", "/usr/local/cuda/compute-sanitizer/compute-sanitizer"),
}
TITLES = {"ncu": "Nsight Compute", "compute-sanitizer": "Compute Sanitizer"}
LATE = "it had not ended after {:.0f} s"


class Watched(Struct, frozen=True, kw_only=True):
    """`log`: the tool's own. `complaints`: what it and the child have complained of. `late`: a sentence where it was ended by
    force."""

    done: tuple[Done, ...]
    log: str
    complaints: str = ""
    code: int
    late: str = ""

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.log}\n{self.complaints}"

    @property
    def last_line(self) -> str:
        """What the child ended with."""
        return (self.complaints.strip().splitlines() or [""])[-1]


def tool(name: str) -> str:
    """Where a tool is. Raises: BadInput, with the remedy, where it is missing."""
    if found := shutil.which(name):
        return found
    for place in PLACES[name]:
        if here := sorted(glob.glob(place)):  # noqa: PTH207  # the pattern is absolute
            return here[-1]
    raise BadInput(f"{name} is not here: install {TITLES[name]}, a part of NVIDIA's CUDA toolkit, and put it on the PATH")


def version(path: str) -> str:
    """What a tool says of itself, its last line."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or ["unknown"])[-1]


def watch(command: Sequence[str], order: Order, seconds: float, env: Mapping[str, str] | None = None) -> Watched:
    """Runs the child under `command`, which must take `--log-file`; whatever is still there after `seconds`, or at Ctrl-C, is
    ended with all that it started.
    """
    with tempfile.TemporaryDirectory(prefix="tilescope-") as folder:
        asked, log, said, error = (Path(folder) / name for name in ("order.json", "log", "out", "error"))
        asked.write_bytes(msgspec.json.encode(order))
        full = [*command, "--log-file", str(log), sys.executable, "-m", "engine.bench.child", str(asked)]
        with said.open("wb") as out, error.open("wb") as complaints, subprocess.Popen(
            full, stdout=out, stderr=complaints, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})},
            start_new_session=True,
        ) as child:
            late = ""
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                late = LATE.format(seconds)
            finally:
                _end(child)
        return Watched(
            done=_answers(said.read_bytes()), log=log.read_text(errors="replace") if log.exists() else "", late=late,
            code=child.returncode, complaints=error.read_text(errors="replace"))


def _end(child: subprocess.Popen[bytes]) -> None:
    """With its whole group, which outlives a tool that was killed."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def _answers(said: bytes) -> tuple[Done, ...]:
    """Those lines of the child that are answers: libraries print, too."""
    found = []
    for line in said.splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Done))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return tuple(found)

