"""Stand-ins for NVIDIA's tools: scripts on the PATH that run the child for real and write what the tools would say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPT = """#!{python}
import subprocess, sys
if "--version" in sys.argv:
    print("NVIDIA (R) Fake\\nVersion 1.2.3.0 (build 4)")
    sys.exit(0)
open({asked!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
at = sys.argv.index("--log-file")
done = subprocess.run(sys.argv[at + 2:])
open(sys.argv[at + 1], "w").write({log!r})
sys.exit(done.returncode)
"""


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, log: str) -> Path:
    """A tool that says `log` of whatever it is run on; the file in which its arguments are kept, a line a run."""
    asked = folder / f"{name}.asked"
    tool = folder / name
    tool.write_text(SCRIPT.format(python=sys.executable, asked=str(asked), log=log))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return asked
