"""Faults of the process at every step: exit code, one sentence, and the same command finishes to the same bits."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from command import rlx
from conftest import TRAIN, records
from process_faults import CASES, STEPS

UNLEARN = [
    "unlearn", "--method", "grad_diff", "--against", "", "--epochs", "1", "--set", "evaluation.limit=3",
    "--set", "evaluation.max_new_tokens=4", "--set", "evaluation.attacks=[quantize]", "--set", "tracker.mlflow=false",
]  # fmt: skip
EVAL = ["--bench", "arithmetic", "--n", "2", "--limit", "4", "--set", "mlflow=false"]
QUICK = {("update", "SIGTERM"), ("checkpoint", "disk full"), ("loading", "SIGTERM")}
"""Cases of the default run; the others run at night."""
FAULTY = Path(__file__).parent / "faulty.py"
SPACE = "64m"


@pytest.fixture
def disk(tmp_path, request):
    """A folder for runs that another user may write; on a small file system of its own for the fault "disk full"."""
    folder = Path(tempfile.mkdtemp(prefix="rlx-fault-"))
    folder.chmod(0o777)
    full = request.node.callspec.params["case"].fault == "disk full"
    mounted = (
        full
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SPACE},mode=777", "none", str(folder)], capture_output=True
        ).returncode
    )
    if full and not mounted:
        folder.rmdir()
        pytest.skip("a tmpfs cannot be mounted here: that needs root")
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory):
    """The uninterrupted unlearning run."""
    runs = tmp_path_factory.mktemp("unlearned")
    code, output = rlx(*UNLEARN, "--runs-dir", str(runs))
    assert code == 0, output
    (run,) = [path.parent for path in runs.glob("*/resolved.json")]
    return run


def arguments(command: str, reference: Path, disk: Path) -> list[str]:
    """The command line, and for a report the evaluated run that it reads."""
    if command == "compare":
        shutil.copytree(reference, disk / reference.name)
        code, output = rlx("eval", reference.name, *EVAL, "--runs-dir", str(disk))
        assert code == 0, output
        return ["compare", reference.name, "--out", str(disk / "reports"), "--runs-dir", str(disk)]
    return [*(TRAIN if command == "train" else UNLEARN), "--runs-dir", str(disk)]


def other_user(fault: str, disk: Path) -> dict[str, object]:
    """Options of the process: permissions do not bind root, so that this fault needs another user."""
    if fault != "folder read-only" or os.getuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    try:
        subprocess.run([sys.executable, "-c", "import rlx"], user=nobody.pw_uid, group=nobody.pw_gid, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("another user may not read this environment, and root writes to folders without permission")
    for path in (disk, *disk.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    home = Path(tempfile.mkdtemp(prefix="home-", dir=disk.parent))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    environment = {**os.environ, "HOME": str(home), "HF_HOME": str(home), "MPLCONFIGDIR": str(home)}
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "env": environment, "cwd": str(home)}


def assert_same_unlearning(run: Path, expected: Path) -> None:
    for name in ("model/model.safetensors",):
        assert (run / name).read_bytes() == (expected / name).read_bytes(), name
    assert records(run) == records(expected)
    verdicts = [json.loads((folder / "certificate.json").read_text())["verdict"] for folder in (run, expected)]
    assert verdicts[0] == verdicts[1]


def parameters():
    for case in CASES:
        marks = [] if (case.step, case.fault) in QUICK else [pytest.mark.nightly]
        yield pytest.param(case, id=f"{case.step} {case.fault}", marks=marks)


@pytest.mark.parametrize("case", list(parameters()))
def test_a_fault_ends_in_one_sentence_and_the_same_command_finishes_to_the_same_bits(case, disk, request):
    command, function, call = STEPS[case.step]
    reference = request.getfixturevalue("unlearned" if command == "unlearn" else "reference")
    expected = reference if command == "unlearn" else reference.run
    line = arguments(command, expected, disk)
    options = other_user(case.fault, disk)
    process = [sys.executable, str(FAULTY), function, str(call), case.fault, str(disk), *line]
    done = subprocess.run(process, capture_output=True, text=True, timeout=300, **options)
    if options:
        shutil.rmtree(str(options["cwd"]), ignore_errors=True)
    errors = done.stderr
    assert f"FAULT {case.fault}" in errors, errors
    assert "Traceback" not in errors and errors.count("\nrlx: ") <= 1, errors
    assert str(done.returncode) == case.exit_code, (done.returncode, errors)
    if case.fault != "SIGKILL":
        assert len(errors.strip().splitlines()[-1]) > 10
    (disk / "filler").unlink(missing_ok=True)
    for path in (disk, *disk.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    code, output = rlx(*line)
    assert code == 0, output
    if command == "compare":
        assert {file.suffix for file in disk.glob("reports/*/report.*")} == {".html", ".md", ".tex", ".csv", ".json"}
        return
    (run,) = [path.parent for path in disk.glob("*/resolved.json")]
    if command == "unlearn":
        assert_same_unlearning(run, expected)
    else:
        reference.assert_same(run)


SLOW_REWARD = """
import os, signal, sys
from pathlib import Path

def once(response, answer):
    marker = Path({marker!r})
    if "rlx_user" in __name__ and marker.exists():
        marker.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(len(response))
"""


def test_a_killed_reward_worker_ends_in_one_sentence_and_the_same_command_finishes(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "reward.py").write_text(SLOW_REWARD.format(marker=str(marker)))
    line = [*TRAIN, "--reward", f"{tmp_path / 'reward.py'}:once", "--set", "reward.workers=1"]
    code, output = rlx(*line, "--runs-dir", str(tmp_path / "expected"))
    assert code == 0, output
    marker.touch()
    code, output = rlx(*line, "--runs-dir", str(tmp_path / "runs"))
    assert code == 1 and "ended its worker process with exit code -9" in output, output
    assert "Traceback" not in output and output.count("rlx: ") == 1
    code, output = rlx(*line, "--runs-dir", str(tmp_path / "runs"))
    assert code == 0, output
    (run,), (expected,) = (
        [path.parent for path in (tmp_path / name).glob("*/resolved.json")] for name in ("runs", "expected")
    )
    assert records(run) == records(expected)
    assert (run / "model/model.safetensors").read_bytes() == (expected / "model/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_tracker_that_is_gone_and_comes_back_gets_every_record(tmp_path, reference, monkeypatch):
    import sqlite3

    store = tmp_path / "store"
    store.write_text("no folder")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow.db'}")
    line = [*TRAIN, "--set", "tracker.mlflow=true", "--runs-dir", str(tmp_path / "runs")]
    process = [sys.executable, str(FAULTY), "rlx.rl.update:update_policy", "4", "SIGTERM", str(tmp_path), *line]
    done = subprocess.run(process, capture_output=True, text=True, timeout=300)
    assert done.returncode == 130 and "is not reachable" in done.stderr and "Traceback" not in done.stderr, done.stderr
    store.unlink()
    store.mkdir()
    code, output = rlx(*line)
    assert code == 0, output
    (run,) = [path.parent for path in (tmp_path / "runs").glob("*/resolved.json")]
    reference.assert_same(run)
    with sqlite3.connect(store / "mlflow.db") as database:
        steps = {step for (step,) in database.execute("select step from metrics where key = 'step'")}
        assert {status for (status,) in database.execute("select status from runs")} == {"FINISHED"}
    assert steps == set(range(7))
