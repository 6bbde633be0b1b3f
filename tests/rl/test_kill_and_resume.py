"""Kill -9 at any moment, run the same command: the same bits as an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = [
    "--steps", "8", "--set", "batch.prompts=8", "--set", "batch.updates_per_rollout=2",
    "--set", "rollout.samples_per_prompt=4", "--set", "evaluation.limit=10", "--set", "evaluation.every=4",
    "--set", "checkpoint.every=2", "--set", "tracker.mlflow=false",
]  # fmt: skip


def command(runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "rlx.cli", "train", *SMALL, "--runs-dir", str(runs), *more]


def start(runs: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(runs, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def folder(runs: Path) -> Path:
    (found,) = [path.parent for path in runs.glob("*/resolved.json")]
    return found


MEASURED = ("time/", "perf/", "memory/")
"""Prefixes of metrics that differ between runs of the same spec."""


def lines(run: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if not key.startswith(MEASURED)} for record in records]


def bits(run: Path) -> dict[str, bytes]:
    files = {"model": run / "model" / "model.safetensors"}
    for name in ("model", "optimizer"):
        files[f"checkpoint {name}"] = run / "checkpoints" / "step_000008" / f"{name}.safetensors"
    return {name: file.read_bytes() for name, file in files.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    runs = tmp_path_factory.mktemp("uninterrupted")
    done = subprocess.run(command(runs), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder(runs)


def assert_same(run: Path, uninterrupted: Path) -> None:
    assert lines(run) == lines(uninterrupted)
    assert [record["step"] for record in lines(run)] == list(range(9))
    for name, content in bits(run).items():
        assert content == bits(uninterrupted)[name], name
    assert not list((run / "checkpoints").glob(".*"))


def test_a_run_killed_at_random_moments_ends_in_the_same_bits(tmp_path, uninterrupted):
    chance = random.Random(0)
    kills = 0
    for _ in range(40):
        process = start(tmp_path)
        # Moments are counted in lines of metrics, so that they fall inside the run on a slow machine as on a fast one.
        target = _written(tmp_path) + chance.choice([0, 1, 1, 2])
        while process.poll() is None and _written(tmp_path) < target:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.15 if target else chance.random() * 4)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        if kills >= 6:
            break
    assert kills >= 3
    finished = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert_same(folder(tmp_path), uninterrupted)


def test_a_run_killed_inside_a_checkpoint_write_ends_in_the_same_bits(tmp_path, uninterrupted):
    caught = 0
    for _ in range(3):
        process = start(tmp_path)
        while process.poll() is None:
            if any(name.startswith(".tmp-") for path in tmp_path.glob("*/checkpoints") for name in os.listdir(path)):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                caught += any(tmp_path.glob("*/checkpoints/.tmp-*"))
                break
    assert caught >= 1, "no kill fell inside a checkpoint write"
    finished = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert_same(folder(tmp_path), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_writes_a_checkpoint_and_says_how_to_go_on(tmp_path, uninterrupted, number):
    process = start(tmp_path)
    while _written(tmp_path) < 4 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "same command" in output
    newest = max((folder(tmp_path) / "checkpoints").glob("step_*"))
    assert json.loads((newest / "state.json").read_text())["position"]["step"] == _written(tmp_path) - 1
    finished = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert_same(folder(tmp_path), uninterrupted)


def test_a_finished_run_does_nothing_the_second_time_and_says_so(uninterrupted):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*") if path.name != "lock"}
    again = subprocess.run(command(uninterrupted.parent), capture_output=True, text=True)
    assert again.returncode == 0
    assert "already complete" in again.stdout + again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*") if path.name != "lock"}


def test_a_second_process_on_the_same_run_is_refused(tmp_path):
    first = start(tmp_path)
    while _written(tmp_path) < 1 and first.poll() is None:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGSTOP)  # a fast machine would finish it before the second looks
    second = subprocess.run(command(tmp_path), capture_output=True, text=True)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert second.returncode == 1
    assert f"is being written by process {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def _written(runs: Path) -> int:
    return sum(file.read_text().count("\n") for file in runs.glob("*/metrics.jsonl"))
