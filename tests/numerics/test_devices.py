"""rlx's numerics, losses and batches on a device other than the CPU, without a GPU (tests/second_device.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlx.registry import names
from tests.second_device_cases import MIXED, cases


@pytest.fixture(scope="module")
def errors():
    """The error of every case, empty if there is none; in a child process, which registers the second device."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.second_device_cases"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout)


def test_no_loss_advantage_statistic_or_batch_mixes_its_inputs_device_with_the_cpu(errors):
    assert set(errors["cases"]) == set(cases())
    failed = {name: error for name, error in errors["cases"].items() if error}
    assert not failed, "\n".join(f"{name}:\n{error}" for name, error in failed.items())


def test_every_registered_loss_is_among_the_cases():
    tried = {tuple(case.split()[:2]) for case in cases()}
    assert tried >= {("policy", name) for name in names("policy")} | {("unlearn", name) for name in names("unlearn")}


@pytest.mark.parametrize("mixture", MIXED)
def test_the_second_device_refuses_what_a_gpu_would_refuse_or_wait_for(errors, mixture):
    assert ("on two devices" in errors["mixed"][mixture]) or ("is on cpu" in errors["mixed"][mixture])
