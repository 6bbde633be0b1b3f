"""A policy loss in a file of one's own trains, with typed parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlx.errors import UserError
from rlx.specs.resolve_train import resolve

EXAMPLE = Path(__file__).parents[3] / "docs" / "my_loss.py"


def spec(**params):
    return {"algorithm": {"name": f"{EXAMPLE}:my_loss", "params": params}}


def test_the_documented_example_trains_and_logs_its_own_figure(tmp_path):
    command = [
        sys.executable, "-m", "rlx.cli", "train", "--algo", f"{EXAMPLE}:my_loss", "--steps", "2", "--runs-dir",
        str(tmp_path), "--set", "algorithm.params.power=2", "--set", "batch.prompts=8", "--set", "evaluation.every=0",
        "--set", "tracker.mlflow=false",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    (metrics,) = tmp_path.glob("my_loss-my_loss*/metrics.jsonl")
    last = json.loads(metrics.read_text().splitlines()[-1])
    assert 0 < last["policy/gate"] < 1


def test_its_parameters_are_checked_like_any_others():
    assert resolve(spec()).spec.algorithm.params == {"power": 1.0}
    with pytest.raises(UserError, match=r"algorithm.params.power is -1.*greater than or equal to 0"):
        resolve(spec(power=-1))
    with pytest.raises(UserError, match=r"unknown key algorithm.params.powr; did you mean 'power'"):
        resolve(spec(powr=1))


def test_a_changed_file_is_another_run(tmp_path):
    copy = tmp_path / "my_loss.py"
    copy.write_text(EXAMPLE.read_text())
    content = {"algorithm": {"name": f"{copy}:my_loss"}}
    before = resolve(content).run_id
    copy.write_text(EXAMPLE.read_text() + "\n# changed\n")
    assert resolve(content).run_id != before


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x = 1\n", "registers no policy loss called 'my_loss'"),
        ("import nosuchmodule\n", "does not load (ModuleNotFoundError"),
        ("def broken(:\n", "does not load (SyntaxError"),
        ("1 / 0\n", "does not load (ZeroDivisionError"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, text, part):
    file = tmp_path / "my_loss.py"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        resolve({"algorithm": {"name": f"{file}:my_loss"}})
    assert part in str(caught.value) and "\n" not in str(caught.value)
