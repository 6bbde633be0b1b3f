"""``pytest --device``: which device tests get, and that those of losses keep to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN_AND_BY_HAND = [
    f"tests/methods/{kind}/test_{name}.py"
    for kind, names in {
        "policy": ("golden_policy", "by_hand", "gradient_weights"),
        "unlearning": ("golden_unlearning", "by_hand"),
    }.items()
    for name in names
]


def run_pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_golden_and_hand_worked_cases_pass_on_a_device_that_is_not_the_cpu():
    result = run_pytest("--device", "second", *GOLDEN_AND_BY_HAND)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "passed" in result.stdout and "failed" not in result.stdout


def test_tests_on_the_cpu_hide_the_gpus_from_torch_and_from_child_processes():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    result = run_pytest("tests/numerics/test_terms.py", CUDA_VISIBLE_DEVICES="0")
    assert result.returncode == 0, result.stdout[-3000:]
    program = "import os, tests.devices as d; print(repr(os.environ['CUDA_VISIBLE_DEVICES']), d.DEVICE)"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert child.stdout.split() == ["''", "cpu"]


def test_only_tests_that_run_on_the_device_are_selected():
    result = run_pytest("--device", "second", "--collect-only", "tests/numerics", "tests/engine/cpu")
    assert "tests/numerics/test_terms.py" in result.stdout
    assert "tests/engine" not in result.stdout


def test_cuda_without_a_gpu_is_refused_in_one_sentence():
    result = run_pytest("--device", "cuda", "tests/numerics/test_terms.py", CUDA_VISIBLE_DEVICES="")
    assert result.returncode != 0
    assert "--device cuda: torch sees no GPU here" in result.stderr
