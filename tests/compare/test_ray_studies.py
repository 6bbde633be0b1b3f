"""A study on a local Ray cluster, one of whose workers is killed with the run that it trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml

pytestmark = [
    pytest.mark.verl,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (make test-verl installs it)"),
]
STEPS = 10
STUDY = {
    "name": "cluster",
    "baseline": "grpo",
    "base": {
        "steps": STEPS,
        "batch": {"prompts": 4, "updates_per_rollout": 1},
        "rollout": {"samples_per_prompt": 4},
        "evaluation": {"every": 0},
        "checkpoint": {"every": 2},
        "tracker": {"mlflow": False},
    },
    "axes": {"algorithm.name": ["grpo", "dgpo"], "seed": [0, 1, 2]},
    "evaluation": {"benchmarks": ["arithmetic"], "n": 1, "limit": 4, "batch": 8},
}


def steps(run: Path) -> list[int]:
    file = run / "metrics.jsonl"
    return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.exists() else []


def training_of(driver: subprocess.Popen[str]) -> list[tuple[psutil.Process, Path]]:
    """Training processes that Ray's workers have started, with the folders of their runs."""
    trainings = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if "rlx.cli" in line and "train" in line:
            trainings.append((process, Path(line[line.index("train") + 1]).parent))
    return trainings


def killed_worker(driver: subprocess.Popen[str]) -> Path:
    """Kill one worker and its training in the middle, as a machine that is lost; the run's folder."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        assert driver.poll() is None, driver.communicate()
        for process, run in training_of(driver):
            if 4 <= len(steps(run)) < STEPS:
                worker = process.parent()
                assert worker is not None and worker.pid != driver.pid
                for victim in (worker, process):
                    os.kill(victim.pid, signal.SIGKILL)
                return run
        time.sleep(0.02)
    raise AssertionError("no run was caught in the middle")


def test_a_study_whose_worker_is_lost_ends_complete_and_does_no_run_twice(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    command = [sys.executable, "-m", "rlx.cli", "compare", str(file), "--launcher", "ray"]
    folders = ["--runs-dir", str(tmp_path / "runs"), "--out", str(tmp_path / "reports")]
    driver = subprocess.Popen(
        [*command, *folders], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    lost = killed_worker(driver)
    output, errors = driver.communicate(timeout=900)
    assert driver.returncode == 0, errors
    runs = sorted((tmp_path / "runs").glob("*/resolved.json"))
    assert len(runs) == 6
    for run in (path.parent for path in runs):
        assert (run / "summary.json").exists() and not (run / "failure.json").exists()
        assert steps(run) == list(range(1, STEPS + 1)) or steps(run) == list(range(STEPS + 1))
        log = (run / "log.txt").read_text()
        assert log.count("is complete") == 1, "a run was trained twice"
        assert ("continuing from step" in log) == (run == lost)
        assert len(list(run.glob("evaluations/*/*/result.json"))) == 1
    assert (tmp_path / "reports" / "cluster" / "report.json").exists()
