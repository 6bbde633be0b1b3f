"""`rlx train --profile` through its real entry point."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlx.runs.folder import RunDir

SMALL = [
    "--set", "batch.prompts=4", "--set", "rollout.samples_per_prompt=4", "--set", "batch.updates_per_rollout=1",
    "--set", "evaluation.every=0", "--set", "tracker.mlflow=false", "--set", "checkpoint.every=2",
]  # fmt: skip


def command(runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "rlx.cli", "train", *SMALL, *more, "--runs-dir", str(runs)]


def rlx(runs: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(runs, *more), capture_output=True, text=True, env={**os.environ, "COLUMNS": "150"})


def only(runs: Path) -> Path:
    (run,) = [path.parent for path in runs.glob("*/resolved.json")]
    return run


MEASURED = ("time/", "perf/", "memory/")
"""Prefixes of metrics that differ between runs of the same spec."""


def records(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(MEASURED)} for line in lines]


def phases(run: Path) -> tuple[str, dict[str, float]]:
    """Title of the table, and seconds per step by phase."""
    title, _, *rows = [line.split("\t") for line in (run / "profile/phases.tsv").read_text().splitlines()]
    return title[0], {row[0]: float(row[1]) for row in rows}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    runs = tmp_path_factory.mktemp("profiled")
    done = rlx(runs, "--steps", "4", "--profile")
    assert done.returncode == 0, done.stderr
    return only(runs), done


def test_the_table_divides_a_step_among_its_phases(profiled):
    run, done = profiled
    title, seconds = phases(run)
    assert title == "2 steps" and {"rollout", "reward", "update", "sync", "checkpoint", "rest"} <= set(seconds)
    parts = sum(spent for phase, spent in seconds.items() if phase != "whole")
    assert parts == pytest.approx(seconds["whole"], abs=1e-3)
    assert seconds["update"] > seconds["reward"] > 0 and seconds["rest"] >= 0
    assert "profile of 2 steps" in done.stdout and "aten::" in done.stdout and "trace.json.gz" in done.stdout


def test_the_trace_holds_the_phases_as_ranges(profiled):
    run, _ = profiled
    with gzip.open(run / "profile/trace.json.gz", "rt") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"rlx.rollout", "rlx.update", "rlx.checkpoint", "aten::mm"} <= names


def test_profiling_changes_no_metric(profiled, tmp_path):
    run, _ = profiled
    done = rlx(tmp_path, "--steps", "4")
    assert done.returncode == 0 and not (only(tmp_path) / "profile").exists()
    assert only(tmp_path).name == run.name and records(only(tmp_path)) == records(run)


def test_the_first_process_of_two_is_profiled(tmp_path):
    done = rlx(tmp_path, "--steps", "3", "--processes", "2", "--profile")
    assert done.returncode == 0, done.stderr
    assert phases(only(tmp_path))[0] == "2 steps"


def test_a_run_that_is_stopped_keeps_what_was_seen_of_it(tmp_path):
    run = subprocess.Popen(command(tmp_path, "--steps", "500", "--profile"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any("\n" in f.read_text() for f in tmp_path.glob("*/profile/*.tsv")):
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130
    assert phases(only(tmp_path))[0] == "2 steps" and not RunDir(only(tmp_path)).profile_request.exists()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--steps", "1", "--profile"], 2, "--profile needs at least 2 steps"),
        (["--backend", "verl", "--profile"], 2, "--profile does not go with backend=verl"),
    ],
)
def test_what_cannot_be_profiled_is_one_sentence(tmp_path, more, code, message):
    done = rlx(tmp_path, *more)
    assert done.returncode == code and message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_complete_run_has_no_step_left_to_profile(profiled):
    run, _ = profiled
    done = rlx(run.parent, "--steps", "4", "--profile")
    assert done.returncode == 2 and f"run {run.name} is complete" in done.stderr and "--fresh" in done.stderr
