"""GPU tests need an NVIDIA GPU and are skipped without one."""

from __future__ import annotations

import pytest
import torch

from kernels.contract import Device


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gpu" in str(item.path):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(scope="session")
def device() -> Device:
    found = torch.cuda.get_device_properties(0)
    return Device(
        id="cuda:0", kind="cuda", name=found.name, capability=(found.major, found.minor), sms=found.multi_processor_count,
        sram_bytes_per_block=getattr(found, "shared_memory_per_block_optin", None), memory_bytes=found.total_memory,
    )
