"""`rlx runs` and `rlx sample`: what is there, what differs, what was sampled, and what may be deleted."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest
from command import rlx

from rlx.runs.browse import TRAIN, changes, extremes
from rlx.runs.folder import RunDir
from rlx.runs.lock import _process_start
from rlx.runs.status import run_status


@pytest.fixture
def runs(reference, tmp_path):
    """A folder with the finished run, and a copy that was stopped and has another seed and learning rate."""
    shutil.copytree(reference.run, tmp_path / reference.run.name)
    copy = tmp_path / "copy_s1-1234567890"
    shutil.copytree(reference.interrupted(tmp_path / "other"), copy)
    resolved = json.loads((copy / "resolved.json").read_text())
    resolved["spec"]["seed"], resolved["spec"]["optim"]["lr"] = 1, 0.5
    resolved["fingerprints"]["data"] = "sha256:other"
    (copy / "resolved.json").write_text(json.dumps(resolved))
    shutil.rmtree(tmp_path / "other")
    return tmp_path


def listed(runs: Path, *options: str) -> list[dict[str, object]]:
    code, output = rlx("runs", "--json", "--runs-dir", str(runs), *options)
    assert code == 0, output
    return [json.loads(line) for line in output.splitlines()]


def test_the_list_has_state_step_metrics_age_and_size_of_each_run(runs, reference):
    code, output = rlx("runs", "--runs-dir", str(runs))
    assert code == 0
    assert "2 of 2 runs" in output and "stopped" in output and "finished" in output and "6/6" in output
    by_name = {run["name"]: run for run in listed(runs)}
    finished = by_name[reference.run.name]
    records = [json.loads(line) for line in (reference.run / "metrics.jsonl").read_text().splitlines()]
    assert finished["reward"] == records[-1]["train/reward"] and finished["algo"] == "dgpo"
    size = sum(path.stat().st_size for path in (runs / reference.run.name).rglob("*") if path.is_file())
    assert finished["size"] == size


def test_runs_are_selected_by_names_spec_keys_and_metrics_and_sorted(runs):
    assert len(listed(runs, "--where", "algo=dgpo")) == 2
    assert [run["name"] for run in listed(runs, "--where", "state=stopped")] == ["copy_s1-1234567890"]
    assert [run["name"] for run in listed(runs, "--where", "optim.lr>0.1")] == ["copy_s1-1234567890"]
    assert listed(runs, "--where", "algo=d*", "--where", "reward>1") == []
    assert [run["seed"] for run in listed(runs, "--sort", "seed")] == [1, 0]
    assert len(listed(runs, "--where", "algo!=grpo")) == 2


@pytest.mark.parametrize(
    ("condition", "part"),
    [
        ("alog=dgpo", "did you mean 'algo'?"),
        ("dgpo", "is not a condition"),
        ("optim.lrr=1", "did you mean 'optim.lr'?"),
    ],
)
def test_a_condition_that_cannot_be_read_is_one_sentence(runs, condition, part):
    code, output = rlx("runs", "--runs-dir", str(runs), "--where", condition)
    assert code == 2 and part in output and output.count("\n") == 1


def test_states_follow_the_lock_the_failure_and_missing_files(runs):
    folder = RunDir(runs / "copy_s1-1234567890")
    assert run_status(folder).state == "stopped"
    folder.failure.write_text(json.dumps({"command": "train", "reason": "the disk is full"}))
    assert (run_status(folder).state, run_status(folder).reason) == ("failed", "the disk is full")
    with folder.locked():
        assert run_status(folder).state == "running"
    gone = {"host": "", "pid": 2**22 + 1, "since": "", "start": _process_start(os.getpid())}
    folder.lock.write_text(json.dumps(gone))  # a killed process leaves its lock
    assert run_status(folder).state == "failed"
    with (folder.model / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert run_status(folder).state == "damaged" and "model.safetensors" in run_status(folder).reason
    folder.resolved.write_text("{")
    assert run_status(folder).state == "damaged"


def test_a_failed_run_says_why_until_it_is_started_again(tmp_path):
    reward = tmp_path / "reward.py"
    reward.write_text("calls = []\ndef late(completion, answer):\n    calls.append(1)\n    "
                      "return 1 / (len(calls) < 100)\n")  # fmt: skip
    options = ["--set", "batch.prompts=4", "--set", "batch.updates_per_rollout=2", "--set", "evaluation.every=0"]
    options += ["--set", "tracker.mlflow=false", "--steps", "4", "--runs-dir", str(tmp_path / "runs")]
    code, _ = rlx("train", "--reward", f"{reward}:late", *options)
    assert code == 1
    (run,) = listed(tmp_path / "runs")
    assert run["state"] == "failed" and "late" in run["reason"] and run["step"] >= 1
    code, output = rlx("runs", "show", str(run["name"]), "--runs-dir", str(tmp_path / "runs"))
    assert "continue with: rlx train" in output and "late" in output


def test_show_has_course_metrics_and_files(runs, reference):
    code, output = rlx("runs", "show", reference.run.name[:8], "--runs-dir", str(runs))
    assert code == 0 and "state        finished" in output and "train/reward" in output
    assert str(runs / reference.run.name / "metrics.jsonl") in output


def test_diff_names_keys_fingerprints_and_metrics(runs, reference):
    code, output = rlx("runs", "diff", "copy", reference.run.name, "--runs-dir", str(runs))
    assert code == 0
    keys = [line.split()[0] for line in output.splitlines() if line.strip()]
    assert {"seed", "optim.lr", "fingerprints.data", "reward"} <= set(keys) and "steps" not in keys
    assert "have the same spec" in rlx("runs", "diff", "copy", "copy", "--runs-dir", str(runs))[1]


def test_deleting_says_the_bytes_and_needs_an_answer(runs, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, output = rlx("runs", "rm", "copy", "--runs-dir", str(runs))
    assert code == 2 and "--yes" in output and (runs / "copy_s1-1234567890").is_dir()
    size = sum(path.stat().st_size for path in (runs / "copy_s1-1234567890").rglob("*") if path.is_file())
    code, output = rlx("runs", "rm", "copy", "--yes", "--runs-dir", str(runs))
    assert code == 0 and f"{size:,} bytes" in output and not (runs / "copy_s1-1234567890").exists()


def test_a_run_that_is_being_written_is_not_deleted(runs):
    folder = RunDir(runs / "copy_s1-1234567890")
    with folder.locked():
        code, output = rlx("runs", "rm", "copy", "--yes", "--runs-dir", str(runs))
    assert code == 1 and "is being written by" in output and folder.resolved.is_file()


def test_pruned_runs_are_intact_keep_their_best_checkpoint_and_continue(runs, reference):
    best = json.loads((reference.run / "checkpoints/step_000006/state.json").read_text())["position"]["best_step"]
    code, output = rlx("runs", "prune", "--keep-checkpoints", "1", "--yes", "--runs-dir", str(runs))
    assert code == 0
    for name in ("copy_s1-1234567890", reference.run.name):
        left = {path.name for path in (runs / name / "checkpoints").glob("step_*")}
        assert left == {"step_000006", f"step_{best:06d}"}
    assert rlx("runs", "check", "--runs-dir", str(runs))[0] == 0
    code, _ = rlx("runs", "prune", "--keep-checkpoints", "0", "--yes", "--runs-dir", str(runs))
    assert not list((runs / reference.run.name / "checkpoints").glob("step_*"))
    assert (runs / "copy_s1-1234567890" / "checkpoints" / "step_000006").is_dir(), "a stopped run can still continue"
    assert rlx("runs", "check", "--runs-dir", str(runs))[0] == 0
    assert (runs / reference.run.name / "model" / "model.safetensors").is_file()


def test_names_that_fit_several_runs_or_none_are_refused_with_choices(runs, reference):
    shutil.copytree(runs / "copy_s1-1234567890", runs / "copy_s2-1234567890")
    code, output = rlx("runs", "show", "copy", "--runs-dir", str(runs))
    assert code == 2 and "copy_s1-1234567890, copy_s2-1234567890" in output
    code, output = rlx("runs", "show", "nosuch", "--runs-dir", str(runs))
    assert code == 2 and reference.run.name in output


def test_samples_have_the_reward_of_a_gold_answer_and_come_from_the_named_checkpoint(runs, reference):
    arguments = ["sample", reference.run.name, "47+85=", "-n", "2", "--answer", "132", "--runs-dir", str(runs)]
    code, final = rlx(*arguments)
    assert code == 0 and final.count("--- response") == 2 and "reward " in final and "arithmetic: " in final
    assert rlx(*arguments)[1] == final, "the seed decides the responses"
    assert rlx(*arguments, "--at", "step_6")[1] == final, "the last checkpoint is the final model"
    code, output = rlx(*arguments, "--at", "step_40")
    assert code == 2 and "holds no checkpoint '40'" in output


def test_a_sample_sees_the_prompt_that_training_saw(runs, reference):
    from rlx.evaluation.sample import _chat_settings

    spec = json.loads((reference.run / "resolved.json").read_text())["spec"]
    spec["data"] |= {"system": "S", "suffix": " !", "chat": "never", "chat_kwargs": {"a": 1}}
    settings = _chat_settings(spec)
    assert (settings.system, settings.suffix, settings.chat, settings.chat_kwargs) == ("S", " !", "never", {"a": 1})


def test_an_answer_needs_a_reward(tmp_path):
    code, output = rlx("sample", "embedded", "1+1=", "--answer", "2", "--runs-dir", str(tmp_path))
    assert code == 2 and "add --reward NAME" in output
    code, output = rlx("sample", "embedded", "--runs-dir", str(tmp_path))
    assert code == 2 and "there is no prompt" in output


def test_browsing_shows_the_worst_the_best_and_the_changed(runs, reference):
    code, output = rlx("sample", reference.run.name, "--browse", "--runs-dir", str(runs))
    assert code == 0 and "=== lowest reward" in output and "=== highest reward" in output
    rows = [
        {"step": step, "prompt": prompt, "response": f"{prompt}{step}", "reward": reward}
        for step, prompt, reward in [(1, "a", 0.0), (1, "a", 1.0), (1, "b", 0.5), (2, "a", 1.0), (3, "c", 0.2)]
    ]
    lowest, highest = extremes(rows, TRAIN, 2)
    assert [row["response"] for row in lowest] == ["a1", "c3"]
    assert [row["response"] for row in highest] == ["a2", "b1"]
    (change,) = changes(rows, TRAIN, 5)
    assert (change.prompt, change.difference) == ("a", 0.5)
