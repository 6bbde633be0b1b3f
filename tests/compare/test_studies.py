"""`rlx compare` and studies through the command line: finished runs are not repeated, errors, and equal reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rlx.compare.load.folders import method_names

SMALL = {
    "steps": 2,
    "batch": {"prompts": 4, "updates_per_rollout": 1},
    "rollout": {"samples_per_prompt": 4},
    "evaluation": {"every": 0},
}
STUDY = {
    "name": "small",
    "baseline": "grpo",
    "base": SMALL,
    "axes": {"algorithm.name": ["grpo", "dgpo"]},
    "evaluation": {"benchmarks": ["arithmetic"], "n": 2, "limit": 8, "batch": 8},
}
WILD = """
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import Hyper, register


class Wild(Hyper):
    pass


@register("policy", paper="no paper: never finite")
def wild(logprobs_bt, batch: PolicyBatch, hp: Wild) -> Tokens:
    return Tokens(logprobs_bt / 0.0, {})
"""


def rlx(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlx.cli", *arguments, "--runs-dir", str(folder / "runs")]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "COLUMNS": "150"})


def written(folder: Path, **changes: object) -> str:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}))
    return str(file)


def stamps(folder: Path) -> dict[str, int]:
    """When each run and each evaluation was completed."""
    files = [*folder.glob("runs/*/summary.json"), *folder.glob("runs/*/evaluations/*/*/result.json")]
    return {str(file): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    done = rlx(folder, "compare", written(folder), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_study_runs_from_nothing_to_every_report(finished):
    folder, done = finished
    assert "2 of 2 runs to go" in done.stderr
    report = json.loads((folder / "reports/small/report.json").read_text())
    assert {cell["method"] for cell in report["cells"]} == {"grpo", "dgpo"}
    for name in ("report.html", "report.md", "report.tex", "report.csv"):
        assert (folder / "reports/small" / name).stat().st_size > 500
    (shown,) = [row for row in map(str.split, done.stdout.splitlines()) if row[:4] == ["grpo", "(seed", "0)", "1"]]
    by_method = {cell["method"]: cell["score"]["mean"] for cell in report["cells"]}
    assert float(shown[4]) == pytest.approx(100 * by_method["grpo"], abs=0.051)
    assert "This compares checkpoints, not methods" in done.stdout, "one seed says nothing about methods"


def test_a_second_call_repeats_nothing_and_says_the_same(finished):
    folder, first = finished
    before = stamps(folder)
    assert len(before) == 4
    again = rlx(folder, "compare", written(folder), "--jobs", "2")
    assert again.returncode == 0 and again.stdout == first.stdout
    assert stamps(folder) == before and "runs to go" not in again.stderr


def test_a_plan_says_what_is_left_and_does_nothing(finished):
    folder, _ = finished
    before = stamps(folder)
    more = written(folder, axes={"algorithm.name": ["grpo", "maspo"]})
    done = rlx(folder, "compare", more, "--plan")
    assert done.returncode == 0 and "1 of 2 runs to go" in done.stderr and "missing" in done.stdout
    assert stamps(folder) == before and not list(folder.glob("runs/maspo*"))


def test_runs_are_compared_by_folder_and_from_mlflow_alike(finished):
    folder, _ = finished
    runs = sorted(path.parent.name for path in folder.glob("runs/*/summary.json"))
    by_folder = rlx(folder, "compare", *runs)
    assert by_folder.returncode == 0, by_folder.stderr
    from_mlflow = rlx(folder, "compare", "--experiment", "rlx", "--out", "logged")
    assert from_mlflow.returncode == 0, from_mlflow.stderr
    (here,), (there,) = (list((folder / name).glob("*2runs/report.csv")) for name in ("reports", "logged"))
    assert here.read_text() == there.read_text()
    tagged = rlx(folder, "compare", "--tag", "rlx.algorithm=nothing")
    assert tagged.returncode == 1 and "no finished training run with" in tagged.stderr


def test_runs_that_were_not_measured_alike_are_refused_unless_forced(tmp_path):
    for algo, n in (("grpo", "2"), ("dgpo", "3")):
        sets = [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
        assert rlx(tmp_path, "train", "--algo", algo, *sets).returncode == 0
        (run,) = tmp_path.glob(f"runs/{algo}*")
        assert rlx(tmp_path, "eval", str(run), "--n", n, "--limit", "8").returncode == 0
    runs = [str(path) for path in sorted(tmp_path.glob("runs/*_s0-*"))]
    refused = rlx(tmp_path, "compare", *runs)
    assert refused.returncode == 1 and "arithmetic.n (3 in dgpo" in refused.stderr and "--force" in refused.stderr
    assert not (tmp_path / "reports").exists()
    forced = rlx(tmp_path, "compare", *runs, "--force")
    assert forced.returncode == 0 and "arithmetic.n" in forced.stdout
    for file in tmp_path.glob("reports/*/report.*"):
        assert "arithmetic.n" in file.read_text().replace("\\", ""), file


def test_a_run_that_fails_is_marked_and_the_rest_goes_on(tmp_path):
    (tmp_path / "wild.py").write_text(WILD)
    axes = {"algorithm.name": ["grpo", "./wild.py:wild"]}
    done = rlx(tmp_path, "compare", written(tmp_path, axes=axes, base={**SMALL, "steps": 8}))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "train: " in done.stderr and "in a row" in done.stderr
    report = json.loads((tmp_path / "reports/small/report.json").read_text())
    assert [cell["method"] for cell in report["cells"]] == ["grpo"]
    assert "in a row" in json.dumps(report) and "in a row" in (tmp_path / "reports/small/report.html").read_text()


def test_a_run_that_fails_under_a_condition_counts_as_collapsed(tmp_path):
    (tmp_path / "wild.py").write_text(WILD)
    wild = {"label": "wild", "algorithm.name": "./wild.py:wild"}
    changes = {
        "base": {**SMALL, "steps": 8, "evaluation": {"every": 8, "limit": 8}},
        "axes": {"optim.lr": ["2e-4", "1e-4"], "algorithm.name": ["grpo", wild]},
        "conditions": ["optim.lr"],
    }
    planned = rlx(tmp_path, "compare", written(tmp_path, **changes), "--plan")
    assert "optim.lr" in planned.stdout and "wild" in planned.stdout
    done = rlx(tmp_path, "compare", written(tmp_path, **changes))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    report = json.loads((tmp_path / "reports/small/report.json").read_text())
    assert report["conditions"] == ["optim.lr=1e-4", "optim.lr=2e-4"] and not report["unfinished"]
    wild_summary = next(summary for summary in report["summaries"] if summary["method"] == "wild")
    assert [(c["failed"], c["collapsed"], c["runs"]) for c in wild_summary["counts"]] == [(1, 1, 1)] * 2
    assert wild_summary["survived"][0]["value"] is None
    scores = {
        cell["column"]["condition"]: cell["score"]["mean"] for cell in report["cells"] if cell["method"] == "wild"
    }
    assert scores == {"optim.lr=1e-4": 0, "optim.lr=2e-4": 0, "mean over conditions": 0}
    assert sum("counts as collapsed" in text for text in report["cautions"]) == 2


def test_a_key_that_differs_only_between_models_is_not_part_of_a_method_s_name():
    def spec(model, n, lr=1):
        return {"seed": 0, "model": {"path": model}, "algorithm": {"name": "dgpo", "params": {"n": n}}, "lr": lr}

    assert method_names([spec("small", 2), spec("big", 1)]) == ["dgpo", "dgpo"]
    names = method_names([spec("small", 2), spec("small", 1), spec("big", 1, lr=2)])
    assert names == ["dgpo n=2", "dgpo n=1", "dgpo n=1"], "one name for one setting in every column"


def test_a_study_that_is_killed_goes_on_without_repeating_a_finished_run(tmp_path):
    command = [sys.executable, "-m", "rlx.cli", "compare", written(tmp_path), "--runs-dir", str(tmp_path / "runs")]
    first = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
    while first.poll() is None and len(list(tmp_path.glob("runs/*/metrics.jsonl"))) < 2:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = stamps(tmp_path)
    assert before, "the first run was finished when the second began"
    again = rlx(tmp_path, "compare", written(tmp_path))
    assert again.returncode == 0, again.stderr
    after = stamps(tmp_path)
    assert len(after) == 4 and before.items() <= after.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare"], "there is nothing to compare"),
        (["compare", "no_such_run"], "there is no run 'no_such_run'"),
        (["compare", "missing.yaml"], "there is no spec file missing.yaml"),
        (["compare", "--tag", "novalue"], "--tag 'novalue' has no key or no value"),
        (["train", "STUDY", "--steps", "3"], "cannot be set for a study"),
        (["compare", "STUDY", "other"], "give only the study"),
        (
            ["compare", "STUDY", "--baseline", "dgop"],
            "is not among the study's methods; did you mean 'dgpo'",
        ),
    ],
)
def test_a_mistake_of_the_user_is_reported_in_one_sentence(tmp_path, arguments, message):
    study = written(tmp_path)
    done = rlx(tmp_path, *(study if argument == "STUDY" else argument for argument in arguments))
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": {}}, "unknown key axis; did you mean 'axes'"),
        ({"axes": {"seed": []}}, "axes.seed has no values"),
        ({"axes": {"seed": [1, 1]}}, "twice"),
        ({"axes": {"algorithm.name": ["dgop"]}}, "did you mean 'dgpo'?"),
        ({"name": "../up"}, "name is '../up'"),
    ],
)
def test_a_study_with_a_mistake_is_refused_before_anything_runs(tmp_path, changes, message):
    done = rlx(tmp_path, "compare", written(tmp_path, **changes))
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))
