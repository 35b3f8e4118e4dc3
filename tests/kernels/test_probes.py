"""What `calibrate` times compiles without a GPU to the instructions that it is meant to time, and to few beside them."""

from __future__ import annotations

import re

import pytest

from kernels.jit import compile_for
from kernels.probes import LANES, UNROLL, WARPS, compilations

OF = {each.launch: each for each in compilations()}
EACH = LANES // (32 * WARPS) * UNROLL  # steps of a thread in a round of the loop
MEANT = {  # launch -> an instruction, and how often it stands there
    "read": (r"LDG\.E\.128\.STRONG\.GPU", 2), "copy": (r"STG\.E\.128", 2), "write": (r"STG\.E\.128", 2),
    "chase": (r"LDG\.E\.STRONG\.GPU", 1), "exponentials": (r"MUFU\.EX2", EACH), "multiply_adds": (r"FFMA", EACH),
    "nothing": (r"EXIT", 1),
}


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (9, 0)], ids=str)
@pytest.mark.parametrize("launch", OF)
def test_a_probe_compiles_to_what_it_times(launch: str, capability: tuple[int, int]) -> None:
    found, sass = compile_for(OF[launch], capability)
    assert found.spill_bytes == 0
    name, least = MEANT[launch]
    assert len(re.findall(name, sass)) >= least


@pytest.mark.parametrize("launch", ["exponentials", "multiply_adds"])
def test_what_is_computed_takes_the_issue_slots(launch: str) -> None:
    """Of an exponential seven slots are idle, of a multiply-add none: what else is issued would take its time."""
    _, sass = compile_for(OF[launch], (9, 0))
    issued = re.findall(r"^\s+/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9.]+)", sass, re.M)
    meant = [name for name in issued if name.startswith(MEANT[launch][0].replace("\\", ""))]
    beside = [name for name in issued if name not in meant and name != "NOP"]
    assert len(beside) <= (2 * len(meant) if launch == "exponentials" else 0.2 * len(meant))


def test_the_names_are_those_of_the_kernels() -> None:
    for each in compilations():
        assert [*each.signature, *each.constants] == each.kernel.arg_names
