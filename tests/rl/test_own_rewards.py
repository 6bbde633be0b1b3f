"""Rewards from a file through the entry point: training, failures with a checkpoint, several rewards, columns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlx.errors import UserError
from rlx.specs.resolve_train import resolve

BASE = [
    "--set", "batch.prompts=4", "--set", "batch.updates_per_rollout=2", "--set", "rollout.samples_per_prompt=4",
    "--set", "evaluation.every=0", "--set", "tracker.mlflow=false",
]  # fmt: skip


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlx.cli", "train", *BASE, *more, "--runs-dir", str(folder / "runs")]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def last_record(folder: Path) -> dict[str, float]:
    (metrics,) = folder.glob("runs/*/metrics.jsonl")
    return json.loads(metrics.read_text().splitlines()[-1])


def test_a_plain_function_trains_and_its_metrics_are_logged(tmp_path):
    (tmp_path / "my.py").write_text(
        "def length(completion, answer, prompt, id):\n"
        "    assert prompt == id + '='\n"
        "    return {'score': len(completion), 'right': answer in completion}\n"
    )
    done = run(tmp_path, "--steps", "1", "--reward", "my.py:length", "--set", "evaluation.every=1")
    assert done.returncode == 0, done.stderr
    record = last_record(tmp_path)
    assert record["reward/length"] == pytest.approx(record["train/reward"]) and record["train/reward"] > 3
    assert 0 <= record["reward/length/right"] <= 1
    assert record["reward/length_timeout"] == record["reward/length_error"] == 0
    assert record["optim/grad_norm"] > 0


@pytest.mark.parametrize(
    ("result", "problem"),
    [("float('nan')", "returned nan"), ("1 / 0", "raised ZeroDivisionError"), ("'good'", "returned the str 'good'")],
)
def test_a_reward_that_fails_in_the_third_step_ends_in_one_sentence_and_keeps_two_steps(tmp_path, result, problem):
    (tmp_path / "my.py").write_text(
        f"calls = 0\ndef f(completion):\n    global calls\n    calls += 1\n"
        f"    return len(completion) if calls <= 2 * 16 + 5 else {result}\n"
    )
    done = run(tmp_path, "--steps", "5", "--reward", "my.py:f")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith(f"rlx: reward 'my.py:f' {problem}") and "on a response to arithmetic " in sentence
    assert "reward.on_error=zero" in sentence and f"{tmp_path / 'my.py'} line " in sentence
    assert [path.name for path in tmp_path.glob("runs/*/checkpoints/step_*")] == ["step_000002"]
    assert last_record(tmp_path)["step"] == 2


def test_a_reward_that_fails_in_an_evaluation_keeps_the_step_before_it(tmp_path):
    (tmp_path / "my.py").write_text(
        "calls = 0\ndef f(completion):\n    global calls\n    calls += 1\n"
        "    return len(completion) if calls <= 30 else None\n"
    )
    settings = ["--set", "evaluation.every=1", "--set", "evaluation.limit=5"]
    done = run(tmp_path, "--steps", "3", "--reward", "my.py:f", *settings)
    assert done.returncode == 1 and "returned None" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.glob("runs/*/checkpoints/step_*")] == ["step_000001"]
    assert last_record(tmp_path)["step"] == 1


def test_processes_stop_together_with_one_sentence_and_a_checkpoint(tmp_path):
    (tmp_path / "my.py").write_text(
        "import os\ncalls = 0\ndef f(completion):\n    global calls\n    calls += 1\n"
        "    return None if calls > 8 and os.environ['RANK'] == '1' else len(completion)\n"
    )
    done = run(tmp_path, "--steps", "3", "--reward", "my.py:f", "--processes", "2")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("rlx: reward 'my.py:f' returned None") == 1 and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.glob("runs/*/checkpoints/step_*")] == ["step_000001"]


def test_failures_count_as_zero_if_the_spec_says_so(tmp_path):
    (tmp_path / "my.py").write_text("def f(completion, answer):\n    return 1 / (int(answer) % 2)\n")
    done = run(tmp_path, "--steps", "2", "--reward", "my.py:f", "--set", "reward.on_error=zero")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("such samples get the score 0 (reward.on_error=zero)") == 1
    assert 0 < last_record(tmp_path)["reward/f_error"] < 1


@pytest.mark.parametrize("combine", ["sum", "normalise_each"])
def test_several_rewards_are_summed_logged_and_kept_for_each_sample(tmp_path, combine):
    (tmp_path / "my.py").write_text(
        "def mark(completions, **kwargs):\n    return [c.count('#') for c in completions]\n"
    )
    (tmp_path / "spec.yaml").write_text(
        "steps: 2\nrewards: [{name: arithmetic, weight: 1.0}, {name: 'my.py:mark', weight: 0.25}]\n"
        f"advantage: {{combine: {combine}}}\nreward: {{workers: 1}}\n"
    )
    done = run(tmp_path, "spec.yaml")
    assert done.returncode == 0, done.stderr
    record = last_record(tmp_path)
    both = record["reward/arithmetic"] + 0.25 * record["reward/mark"]
    assert record["train/reward"] == pytest.approx(both)
    assert {"reward/arithmetic_std", "reward/mark_std", "reward/mark_timeout"} <= record.keys()
    (run_folder,) = tmp_path.glob("runs/*")
    for row in pq.read_table(run_folder / "samples.parquet").to_pylist():
        assert row["score"] == row["reward/arithmetic"] + 0.25 * row["reward/mark"]
        assert row["reward/mark"] == row["response"].count("#")


def test_a_stop_passes_through_a_function_that_catches_every_exception(tmp_path):
    (tmp_path / "my.py").write_text(
        "import os, signal, time\ndef f(completion):\n    try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(60)\n    except Exception:\n        pass\n    return 0\n"
    )
    done = run(tmp_path, "--steps", "2", "--reward", "my.py:f")
    assert done.returncode == 130, done.stderr


def test_a_parameter_without_a_column_is_refused_before_training(tmp_path):
    (tmp_path / "my.py").write_text("def f(completion, solution):\n    return 1\n")
    done = run(tmp_path, "--reward", "my.py:f")
    assert done.returncode == 2
    assert "parameter 'solution'" in done.stderr and "is no column of the data" in done.stderr


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ({"reward": {"name": "boxed"}, "rewards": [{"name": "rlx"}]}, ["reward.name is 'boxed', and rewards lists 1"]),
        ({"rewards": [{"name": "boxd"}]}, ["rewards.0.name 'boxd'", "did you mean 'boxed'"]),
        ({"rewards": [{"name": "boxed", "weigth": 1}]}, ["unknown key rewards.0.weigth", "did you mean 'weight'"]),
        ({"rewards": [{"name": "boxed", "weight": 0}]}, ["every weight of rewards is 0"]),
        ({"reward": {"timeout": 0}}, ["reward.timeout is 0"]),
        ({"reward": {"on_error": "ignore"}}, ["reward.on_error is 'ignore'", "choices: stop, zero"]),
        ({"reward": {"special_tokens": "show"}}, ["choices: strip, keep"]),
        ({"advantage": {"combine": "normalise_each", "name": "rloo"}}, ["advantage.name is 'rloo'", "grpo, dr_grpo"]),
        (
            {"advantage": {"combine": "normalise_each"}, "reward": {"overlong_buffer": 0.2}},
            ["reward.overlong_buffer=0.2 changes the sum", "advantage.combine=sum"],
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_the_fix(content, sentences):
    with pytest.raises(UserError) as caught:
        resolve(content)
    assert all(sentence in str(caught.value) for sentence in sentences), str(caught.value)


def test_new_keys_leave_the_ids_of_earlier_runs_and_workers_change_no_id():
    before = resolve({}).run_id
    assert before == "dgpo_embedded_arithmetic_s0-adf4d85c02"
    assert resolve({"reward": {"workers": 4}}).run_id == before
    assert resolve({"reward": {"on_error": "zero"}}).run_id != before
    assert resolve({"rewards": [{"name": "arithmetic"}]}).run_id != before
