"""Every test runs offline, with few threads, with its runs in a temporary folder, and on the device of ``--device``.

rlx takes a GPU if it sees one, so on a machine with GPUs they are hidden from tests on the CPU and from the processes
that these start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("NO_COLOR", "1")

TESTS = Path(__file__).parent
ON_DEVICE = {
    "cuda": ("numerics", "methods", "engine", "rollout", "rl/test_kill_and_resume.py"),
    "second": ("numerics", "methods"),
}
"""Folders and files with tests that run on a device other than the CPU."""
CPU_ONLY = ("engine/cpu", "engine/test_memory.py", "engine/test_sharding.py", "rollout/test_decoding_on_a_cpu.py")
"""Tests of the CPU's own optimisations, and of processes that talk through gloo."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--device``."""
    parser.addoption(
        "--device",
        default="cpu",
        choices=("cpu", *ON_DEVICE),
        help="device of the tests (default: cpu); others run a part of them (tests/conftest.py: ON_DEVICE); "
        "'second' needs no GPU, and refuses what mixes its tensors with the CPU's (tests/second_device.py)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the device before torch is imported.

    Raises:
        pytest.UsageError: for ``--device cuda`` without a GPU.
    """
    device = config.getoption("--device")
    if device != "cuda":
        if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
            raise pytest.UsageError("torch has opened the GPU before --device could hide it")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["RLX_TEST_DEVICE"] = device  # tests/devices.py
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise pytest.UsageError("--device cuda: torch sees no GPU here")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that do not run on the device."""
    device = config.getoption("--device")
    if device == "cpu":
        return
    skipped = [item for item in items if not _runs_on(device, item.path.relative_to(TESTS).as_posix())]
    config.hook.pytest_deselected(items=skipped)
    items[:] = [item for item in items if item not in skipped]


def _runs_on(device: str, path: str) -> bool:
    """Whether the tests of a file run on a device other than the CPU."""
    return path.startswith(ON_DEVICE[device]) and not path.startswith(CPU_ONLY)
