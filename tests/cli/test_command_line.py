"""The command line through its real entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(sys.executable).with_name("rlx")


def rlx(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, env={**os.environ, **environment})


def test_help_answers_without_torch():
    program = "import sys; sys.argv = ['rlx', '--help']\nfrom rlx.cli.app import app\n"
    program += (
        "try:\n    app()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    program += "assert not {'transformers', 'mlflow', 'datasets'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout and "doctor" in done.stdout


def test_a_dry_run_prints_the_resolved_experiment_and_writes_nothing(tmp_path):
    done = rlx("train", "--algo", "maspo", "--steps", "7", "--dry-run", "--runs-dir", str(tmp_path))
    assert done.returncode == 0
    shown = yaml.safe_load(done.stdout)
    assert shown["spec"]["algorithm"]["name"] == "maspo"
    assert shown["spec"]["steps"] == 7
    assert shown["total_updates"] == 28
    assert list(tmp_path.iterdir()) == []


def test_the_json_schema_names_every_section():
    schema = json.loads(rlx("train", "--json-schema").stdout)
    assert {"model", "data", "rollout", "reward", "algorithm", "advantage", "optim", "batch"} <= set(
        schema["properties"]
    )
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--algo", "dgop"], "did you mean 'dgpo'?"),
        (["nosuch.yaml"], "there is no spec file nosuch.yaml"),
        (["--set", "optim.learning_rate=1"], "unknown key optim.learning_rate"),
        (["--set", "steps=abc"], "steps is 'abc'"),
        (["--set", "rollout.top_p=0.9"], "full vocabulary"),
        (["--model", "/nowhere/model", "--data", "/nowhere/x.jsonl"], "model.path '/nowhere/model'"),
        (["--model", "nobody/nothing", "--data", "x.jsonl"], "model.path 'nobody/nothing'"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_no_traceback(tmp_path, arguments, part):
    done = rlx("train", *arguments, "--runs-dir", str(tmp_path))
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("rlx: ") and done.stderr.count("\n") == 1, done.stderr
    assert part in done.stderr
    assert done.stdout == ""


def test_a_model_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.jsonl").write_text('{"prompt": "a", "answer": "1"}\n')
    done = rlx(
        "train", "--model", str(tmp_path / "empty"), "--data", str(tmp_path / "x.jsonl"), "--runs-dir", str(tmp_path)
    )
    assert done.returncode == 1
    assert "does not load" in done.stderr and "incomplete" in done.stderr and "Traceback" not in done.stderr


def test_a_runs_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = rlx("train", "--runs-dir", str(tmp_path / "file"))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr


def test_fresh_starts_a_run_again(tmp_path):
    small = ["--steps", "1", "--set", "batch.prompts=4", "--set", "evaluation.every=0", "--set", "tracker.mlflow=false"]
    assert rlx("train", *small, "--runs-dir", str(tmp_path)).returncode == 0
    (metrics,) = tmp_path.glob("*/metrics.jsonl")
    before = metrics.stat().st_mtime_ns
    assert "already complete" in rlx("train", *small, "--runs-dir", str(tmp_path)).stdout
    assert metrics.stat().st_mtime_ns == before
    assert rlx("train", *small, "--fresh", "--runs-dir", str(tmp_path)).returncode == 0
    assert metrics.stat().st_mtime_ns > before


def test_methods_lists_every_method_and_shows_one_in_full():
    listing = rlx("methods").stdout
    for name in ("dgpo", "maspo", "grpo", "bapo", "gspo", "is_pg"):
        assert name in listing
    one = " ".join(rlx("methods", "dgpo").stdout.split())
    for part in ("gate = (r / (1-clip_low))^n", "number > 0", "arXiv 2603.14389", "dual_clip", "null"):
        assert part in one
    wrong = rlx("methods", "dgop")
    assert wrong.returncode == 2 and "did you mean 'dgpo'?" in wrong.stderr


def test_doctor_says_what_the_machine_can_do_and_no_secret(tmp_path):
    done = rlx("doctor", "--runs-dir", str(tmp_path), HF_TOKEN="secret-token")
    assert done.returncode == 0, done.stderr
    for part in ("Python", "devices", "vLLM", "runs folder"):
        assert part in done.stdout
    assert "secret-token" not in done.stdout
