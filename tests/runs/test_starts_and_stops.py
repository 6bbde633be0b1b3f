"""A start that fails leaves nothing; a second signal ends a process at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import rlx
from conftest import TRAIN

EMBEDDED = Path(__file__).parents[2] / "rlx" / "assets" / "arithmetic"
SLOW = "import time\n\ndef slow(response, answer):\n    time.sleep(600)\n    return 1.0\n"
FAILING = "def failing(response, answer):\n    raise ValueError('no')\n"


def damaged_model(folder: Path) -> Path:
    """A copy of the embedded model whose weights are cut off."""
    (source,) = {file.parent for file in EMBEDDED.rglob("config.json")}
    shutil.copytree(source, folder / "model")
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return folder / "model"


def failing_start(step: str, folder: Path) -> list[str]:
    """Arguments of a run whose start fails at this step."""
    rows = folder / "rows.jsonl"
    rows.write_text('{"question": "1+1=", "answer": "2"}\n' * 4)
    if step == "model":
        return ["--model", str(damaged_model(folder))]
    if step == "data":
        rows.write_text('{"question": "1+1="}\n')
        return ["--data", str(rows)]
    if step == "reward":
        (folder / "reward.py").write_text("raise ImportError('no such library')\n")
        return ["--reward", f"{folder / 'reward.py'}:reward"]
    if step == "sampler":
        return ["--set", "rollout.engine=vllm", "--set", "cluster.tensor_parallel=7"]
    (folder / "reward.py").write_text(FAILING)
    every = 2 if step == "first evaluation" else 0
    reward = ["--reward", f"{folder / 'reward.py'}:failing", "--set", "reward.on_error=stop"]
    return [*reward, "--set", f"evaluation.every={every}"]


@pytest.mark.parametrize("step", ["model", "data", "reward", "first evaluation", "first step", "sampler"])
def test_a_start_that_fails_leaves_no_run_folder(step, tmp_path):
    runs = tmp_path / "runs"
    code, output = rlx(*TRAIN, *failing_start(step, tmp_path), "--runs-dir", str(runs))
    assert code in (1, 2), output
    assert "Traceback" not in output
    assert not runs.exists() or list(runs.iterdir()) == [], output


def test_an_unlearning_start_that_fails_leaves_no_run_folder(tmp_path):
    runs = tmp_path / "runs"
    (tmp_path / "forget.jsonl").write_text('{"question": "12+3=", "answer": "15"}\n')
    (tmp_path / "retain.jsonl").write_text('{"question": "12+4=", "answer": "16"}\n')
    files = ["--forget", str(tmp_path / "forget.jsonl"), "--retain", str(tmp_path / "retain.jsonl")]
    arguments = ["--method", "grad_diff", "--model", str(damaged_model(tmp_path)), *files, "--show-secrets"]
    code, output = rlx("unlearn", *arguments, "--runs-dir", str(runs))
    assert code in (1, 2) and "Traceback" not in output, output
    assert not list(runs.glob("*/resolved.json")), output


def test_a_start_that_fails_on_a_port_leaves_no_run_folder(tmp_path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        master = f"127.0.0.1:{busy.getsockname()[1]}"
        code, output = rlx(*TRAIN, "--nodes", "2", "--master", master, "--runs-dir", str(tmp_path / "runs"))
    assert code == 1 and "cannot connect" in output, output
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_failed_start_removes_no_file_that_it_did_not_write(tmp_path, reference):
    run = tmp_path / reference.run.name
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    arguments = [*TRAIN, "--runs-dir", str(tmp_path)]
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    (run / "metrics.jsonl").mkdir()  # the start fails here
    with pytest.raises(IsADirectoryError):
        rlx(*arguments)
    assert (run / "notes.txt").read_text() == "mine"


def test_a_failed_evaluation_leaves_no_folder_and_keeps_the_run(tmp_path, reference):
    run = reference.interrupted(tmp_path)
    (run / "model" / "model.safetensors").write_bytes(b"short")
    before = sorted(tmp_path.rglob("*"))
    code, output = rlx("eval", run.name, "--bench", "arithmetic", "--limit", "2", "--runs-dir", str(tmp_path))
    assert code == 1 and "model.safetensors has 5 bytes instead of" in output, output
    assert sorted(tmp_path.rglob("*")) == before
    arguments = ["eval", str(damaged_model(tmp_path)), "--bench", "arithmetic", "--limit", "2"]
    code, output = rlx(*arguments, "--runs-dir", str(tmp_path / "runs"))
    assert code in (1, 2) and not list((tmp_path / "runs").glob("*")), output


def test_no_mlflow_run_stays_in_state_running_after_a_failed_start(tmp_path):
    runs = tmp_path / "runs"
    arguments = [*TRAIN, *failing_start("first evaluation", tmp_path), "--set", "tracker.mlflow=true"]
    code, output = rlx(*arguments, "--runs-dir", str(runs))
    assert code == 1, output
    assert not list(runs.glob("*/resolved.json"))
    with sqlite3.connect(runs / "mlflow.db") as database:
        assert "RUNNING" not in {status for (status,) in database.execute("select status from runs")}


def test_a_second_signal_ends_a_run_within_two_seconds(tmp_path):
    number = signal.SIGINT
    (tmp_path / "reward.py").write_text(SLOW)
    command = [
        sys.executable, "-m", "rlx.cli", *TRAIN, "--reward", f"{tmp_path / 'reward.py'}:slow", "--set",
        "reward.timeout=900", "--set", "evaluation.every=0", "--runs-dir", str(tmp_path / "runs"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    end = time.monotonic() + 60
    while not any(file.stat().st_size for file in tmp_path.glob("runs/*/metrics.jsonl")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - start < 2
    assert process.returncode in (130, -number), output  # the system's own handler ends it while Python shuts down
    assert "Traceback" not in output, output


BUSY = """
import threading, time
from rlx.runs.stop import Stop, end_at_second_signal
end_at_second_signal()
with Stop().handling():
    print("busy", flush=True)
    import torch
    x = torch.randn(3000, 3000)
    print("ready", flush=True)
    for _ in range(400):
        torch.linalg.svd(x)
"""


def test_a_second_signal_ends_a_process_that_computes_in_one_long_operation(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n" and process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - start < 2 and process.returncode == 130
    assert "stopped at once by a second signal" in errors
