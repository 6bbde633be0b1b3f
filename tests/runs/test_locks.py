"""The lock of a run folder: one writer, on one machine or several, and a dead one is no obstacle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from command import rlx
from conftest import TRAIN

from rlx.errors import UserError
from rlx.runs.folder import RunDir

HOLD = """
import sys, time
from pathlib import Path
from rlx.runs.folder import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path/run``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def foreign(run: RunDir) -> None:
    """Leave the lock of another machine's process."""
    run.root.mkdir(parents=True, exist_ok=True)
    run.lock.write_text(json.dumps({"host": "node7", "pid": 4711, "since": "2026-03-01 12:00:05", "start": "b:1"}))


def test_a_live_process_keeps_its_lock_and_is_named_with_host_and_time(holder, tmp_path):
    sentence = rf"written by process {holder.pid} on {socket.gethostname()} since 20"
    with pytest.raises(UserError, match=sentence) as e, RunDir(tmp_path / "run").locked():
        pass
    assert "wait for it" in str(e.value)
    with pytest.raises(UserError, match="is being written"):
        RunDir(tmp_path / "run").take_over()


def test_the_lock_of_a_killed_process_of_this_host_is_taken_over_with_a_sentence(holder, tmp_path, capsys):
    run = RunDir(tmp_path / "run")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run.locked():
        assert f"the lock of process {holder.pid} on {socket.gethostname()}" in " ".join(
            capsys.readouterr().err.split()
        )
        assert json.loads(run.lock.read_text())["pid"] == os.getpid()
        with pytest.raises(UserError, match="is being written"), run.locked():
            pass
    assert not run.lock.exists()
    assert list(run.root.iterdir()) == []


def test_a_process_id_that_is_used_again_is_not_taken_for_the_holder(tmp_path):
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    record = {"host": socket.gethostname(), "pid": os.getpid(), "since": "", "start": "earlier boot:77"}
    run.lock.write_text(json.dumps(record))
    with run.locked():
        assert json.loads(run.lock.read_text())["start"] != "earlier boot:77"


def test_a_lock_of_another_host_is_taken_over_on_request_only(tmp_path, capsys):
    run = RunDir(tmp_path / "run")
    foreign(run)
    with (
        pytest.raises(UserError, match=r"process 4711 on node7 since 2026-03-01 12:00:05; .*--take-over"),
        run.locked(),
    ):
        pass
    run.take_over()
    assert "as --take-over says" in " ".join(capsys.readouterr().err.split())
    with run.locked():
        pass


@pytest.mark.parametrize("content", ["", "4711", "{", '{"host": 3}'])
def test_a_torn_lock_or_one_of_an_earlier_version_that_nobody_holds_is_no_obstacle(content, tmp_path):
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    run.lock.write_text(content)
    with run.locked():
        assert json.loads(run.lock.read_text())["pid"] == os.getpid()


def test_of_many_processes_that_start_at_once_one_gets_the_lock(tmp_path):
    run = RunDir(tmp_path / "run")
    foreign_start = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(run.root)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(6)
    ]
    try:
        end = time.monotonic() + 60
        while sum(process.poll() is None for process in foreign_start) > 1 and time.monotonic() < end:
            time.sleep(0.05)
        (holder,) = [process for process in foreign_start if process.poll() is None]
        assert json.loads(run.lock.read_text())["pid"] == holder.pid
    finally:
        for process in foreign_start:
            process.kill()
            process.wait()


@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_command_refuses_another_machines_lock_until_it_is_told_to_take_over(command, reference, tmp_path):
    run = RunDir(reference.interrupted(tmp_path))
    if command == "train":
        arguments, locked = TRAIN, run
    else:
        arguments = ["eval", run.run_id, "--bench", "arithmetic", "--limit", "2", "--n", "1", "--set", "mlflow=false"]
        assert rlx(*arguments, "--runs-dir", str(tmp_path))[0] == 0
        (folder,) = run.evaluations()
        locked = RunDir(folder.root)
    foreign(locked)
    code, output = rlx(*arguments, "--runs-dir", str(tmp_path))
    assert code == 1 and "process 4711 on node7" in output and "--take-over" in output
    code, output = rlx(*arguments, "--take-over", "--runs-dir", str(tmp_path))
    assert code == 0, output
    assert not locked.lock.exists()
