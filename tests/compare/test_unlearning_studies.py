"""Studies of unlearning: metrics by author, the Pareto front, and the command that runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from rlx.benchmarks.tofu.scores import harmonic_mean
from rlx.compare.load.results import EXTRACTION, FORGETTING, UTILITY, RunResult, Scores, Study
from rlx.compare.load.unlearning import read_unlearned_run, unlearning_results
from rlx.compare.report.pareto import pareto_grid, pareto_points
from rlx.compare.report.tables import caption, cautions, pairs_grid
from rlx.compare.statistics.analysis import analyse
from rlx.compare.statistics.significance import linearise
from rlx.runs.folder import RunDir

SMALL = {
    "epochs": 2,
    "batch": {"forget": 24},
    "evaluation": {"limit": 10, "max_new_tokens": 8, "relearn_updates": 1, "attacks": ["relearn", "prefix"]},
    "tracker": {"mlflow": False},
}
STUDY = {
    "name": "small",
    "command": "unlearn",
    "baseline": "grad_diff",
    "base": SMALL,
    "axes": {"seed": [0, 1], "method.name": ["grad_diff", "palu"]},
}


def harmonic(sums_pj, counts_pj):
    return harmonic_mean(sums_pj.sum(axis=0) / counts_pj.sum(axis=0))


def test_a_linearised_metric_has_its_value_as_mean_and_the_jackknifes_error():
    rng = np.random.default_rng(0)
    counts_pj = rng.integers(1, 6, size=(80, 3)).astype(float)
    counts_pj[:40, 2] = 0  # a mean that half of the problems have no part in
    sums_pj = counts_pj * rng.beta(8, 4, size=(80, 3))
    means_j = sums_pj.sum(axis=0) / counts_pj.sum(axis=0)
    value = harmonic_mean(means_j)
    z_p = linearise(value, value**2 / (3 * means_j**2), sums_pj, counts_pj)
    assert z_p.mean() == pytest.approx(value, abs=1e-12)
    others = [np.arange(80) != left_out for left_out in range(80)]
    without_p = np.array([harmonic(sums_pj[other], counts_pj[other]) for other in others])
    jackknife = np.sqrt(79 / 80 * ((without_p - without_p.mean()) ** 2).sum())
    assert z_p.std(ddof=1) / np.sqrt(80) == pytest.approx(jackknife, rel=0.02)


def test_a_method_that_another_beats_in_both_metrics_is_dominated(unlearning_study):
    comparison = analyse(unlearning_study)
    points = {point.method: point for point in pareto_points(comparison, "tiny")}
    assert points["npo"].dominated_by == ("grad_diff",)
    assert points["grad_diff"].dominated_by == points["palu"].dominated_by == ()
    rows = {row[0].text: [cell.text for cell in row[3:]] for row in pareto_grid(comparison).rows}
    assert rows["npo"] == ["79.5", "2 of 3", "0 of 3", "dominated by grad_diff"]
    assert rows["palu"][1:] == ["3 of 3", "3 of 3", "on it"]
    assert list(rows)[3:] == ["original", "retain model"]


def test_a_difference_that_is_not_declared_leaves_both_on_the_front(unlearning_study):
    one_seed = tuple(run for run in unlearning_study.runs if run.seed == 0 and run.method != "palu")
    # With six authors and one seed forgetting is not distinguishable; both methods have the same utility.
    alike = tuple(replace(run, scores=run.scores[:2] + (one_seed[0].scores[2],)) for run in one_seed)
    assert all(not p.dominated_by for p in pareto_points(analyse(replace(unlearning_study, runs=alike)), "tiny"))


def test_the_texts_speak_of_authors_and_of_runs_that_broke_the_budget(unlearning_study):
    comparison = analyse(unlearning_study)
    text = " ".join(cautions(comparison))
    assert "npo_tiny_s0-000: no checkpoint kept 90% of the original's utility" in text
    assert f"{FORGETTING}, {EXTRACTION}, withstands relearn have only 6 authors" in text
    assert "training seeds, then authors" in caption(comparison) and "problems" not in caption(comparison)
    won = {(row[0].text, row[1].text): row[7].text for row in pairs_grid(comparison).rows}
    assert won["npo", FORGETTING] == "0/6/0" and won["npo", UTILITY] == "-", "single authors say nothing of utility"


def rlx(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlx.cli", *arguments, "--runs-dir", str(folder / "runs")]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "COLUMNS": "200"})


def written(folder: Path, **changes: object) -> str:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}))
    return str(file)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    done = rlx(folder, "compare", written(folder), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_an_unlearning_study_runs_from_nothing_to_every_report(finished):
    folder, done = finished
    report = json.loads((folder / "reports/small/report.json").read_text())
    columns = {cell["column"]["benchmark"] for cell in report["cells"]}
    assert columns >= {FORGETTING, EXTRACTION, UTILITY, "withstands relearn", "withstands prefix"}
    assert set(report["front"]["embedded"]) == {"grad_diff", "palu"}
    assert "Forgetting against utility" in done.stdout and "retain model" in done.stdout
    assert "This compares checkpoints, not methods" in done.stdout
    page = (folder / "reports/small/report.html").read_text()
    assert page.count('class="way') == 4, "one line of checkpoints a run"


def test_few_authors_are_said_to_be_few(finished):
    _, done = finished
    assert "only 6 authors: intervals are wide" in done.stdout.replace("\n", " ")


def test_too_few_authors_are_said_to_be_too_few(unlearning_study):
    comparison = analyse(unlearning_study)
    few = {column: ids[:5] for column, ids in comparison.problem_ids.items()}
    sentences = cautions(replace(comparison, problem_ids=few))
    assert any("only 5 authors: no interval over so few can be trusted" in sentence for sentence in sentences)


def test_metrics_are_those_of_the_certificates(finished):
    folder, _ = finished
    folders = [RunDir(path.parent) for path in sorted(folder.glob("runs/*/certificate.json"))]
    assert len(folders) == 4
    splits = set()
    for result, folder in zip(unlearning_results([read_unlearned_run(f) for f in folders]), folders, strict=True):
        certificate = json.loads(folder.certificate.read_text())
        after = certificate["aggregates"]["after"]
        means = {scores.benchmark: scores.scores_pn.mean() for scores in result.scores}
        assert means[FORGETTING] == pytest.approx(1 - after["forget_Q_A_Prob"]["value"], abs=1e-12)
        assert means[EXTRACTION] == pytest.approx(1 - after["extraction_strength"]["value"], abs=1e-12)
        assert means[UTILITY] == pytest.approx(after["model_utility"]["value"], abs=1e-12)
        for attack in certificate["attacks"]:
            assert means[f"withstands {attack['name']}"] == pytest.approx(1 - attack["recovery"]["value"], abs=1e-12)
        halves = {row["id"]: row["half"] for row in certificate["requests"]}
        assert sorted(halves.values()) == ["final"] * 60 + ["validation"] * 60
        splits.add(tuple(sorted(halves.items())))
    assert len(splits) == 1, "seeds share their halves"


def test_a_second_call_repeats_nothing_and_says_the_same(finished):
    folder, first = finished
    before = {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/summary.json")}
    again = rlx(folder, "compare", written(folder))
    assert again.returncode == 0 and again.stdout == first.stdout and "runs to go" not in again.stderr
    assert {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/summary.json")} == before
    only = rlx(folder, "unlearn", written(folder))
    assert only.returncode == 0, only.stderr
    plan = rlx(folder, "unlearn", written(folder, axes={"method.name": ["grad_diff", "npo"]}), "--plan")
    assert plan.returncode == 0 and "1 of 2 runs to go" in plan.stderr and not list(folder.glob("runs/npo*"))


def test_runs_are_compared_by_folder_too(finished):
    folder, _ = finished
    names = [path.parent.name for path in sorted(folder.glob("runs/*_s0-*/summary.json"))]
    done = rlx(folder, "compare", *names, "--baseline", "palu")
    assert done.returncode == 0, done.stderr
    assert "against palu" in done.stdout and FORGETTING in done.stdout


def test_runs_that_were_not_measured_alike_are_refused(finished):
    folder, _ = finished
    (other,) = folder.glob("runs/palu*_s1-*")
    copy = folder / "copies" / other.name
    copy.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-r", other, copy], check=True)
    resolved = json.loads((copy / "resolved.json").read_text())
    resolved["spec"]["evaluation"]["relearn_updates"] = 9
    (copy / "resolved.json").write_text(json.dumps(resolved))
    (first,) = folder.glob("runs/palu*_s0-*")
    done = rlx(folder, "compare", str(first), str(copy))
    assert done.returncode == 1 and "evaluation.relearn_updates (1 in" in done.stderr


@pytest.mark.parametrize(
    ("changes", "command", "message"),
    [
        ({"evaluation": {"n": 8}}, "compare", "evaluation.n is given, but rlx unlearn includes the evaluation"),
        ({}, "train", "study small has command: unlearn; start it with rlx unlearn or rlx compare"),
        ({"command": "forget"}, "compare", "command"),
        ({"baseline": "grpo"}, "compare", "baseline 'grpo' is not among the study's methods"),
        ({"axes": {"algorithm.name": ["grpo"]}}, "compare", "algorithm"),
    ],
)
def test_a_study_with_a_mistake_is_refused_before_anything_runs(tmp_path, changes, command, message):
    done = rlx(tmp_path, command, written(tmp_path, **changes))
    assert done.returncode == 2 and message in done.stderr.replace("\n", " "), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_options_of_one_run_are_refused_for_a_study(tmp_path):
    done = rlx(tmp_path, "unlearn", written(tmp_path), "--epochs", "3")
    assert done.returncode == 2 and "epochs cannot be set for a study" in done.stderr


def test_an_unfinished_run_and_runs_of_two_kinds_are_refused(finished, tmp_path):
    folder, _ = finished
    (other,) = folder.glob("runs/palu*_s1-*")
    copy = tmp_path / "runs" / other.name
    subprocess.run(["mkdir", "-p", copy.parent], check=True)
    subprocess.run(["cp", "-r", other, copy], check=True)
    (copy / "summary.json").unlink()
    done = rlx(tmp_path, "compare", other.name)
    assert done.returncode == 1 and f"run {other.name} is not finished" in done.stderr
    trained = tmp_path / "runs" / "grpo-0"
    trained.mkdir()
    (trained / "resolved.json").write_text(json.dumps({"spec": {"algorithm": {"name": "grpo"}}}))
    done = rlx(tmp_path, "compare", other.name, "grpo-0")
    assert done.returncode == 2 and "is an unlearning run and grpo-0 is not" in done.stderr


@pytest.mark.slow
def test_without_a_true_difference_utility_declares_one_at_most_eight_times_in_a_hundred():
    """Five seeds of two equal methods, 12 authors of 10 questions in each of three kept sets."""
    rng = np.random.default_rng(12)
    counts_pj = np.zeros((36, 3))
    for part in range(3):
        counts_pj[12 * part : 12 * part + 12, part] = 10
    declared = []
    for _ in range(300):
        level_p, runs = rng.beta(8, 3, size=36), []
        for method in ("grad_diff", "npo"):
            for seed in range(5):
                able_p = np.clip(level_p + rng.normal(0, 0.02) + rng.normal(0, 0.05, size=36), 0, 1)
                sums_pj = np.where(counts_pj > 0, rng.binomial(10, able_p)[:, None], 0)
                means_j = sums_pj.sum(axis=0) / counts_pj.sum(axis=0)
                value = harmonic_mean(means_j)
                z_p = linearise(value, value**2 / (3 * means_j**2), sums_pj, counts_pj)
                scores = Scores(UTILITY, tuple(map(str, range(36))), z_p[:, None], linearised=True)
                runs.append(RunResult(f"{method}{seed}", method, seed, "tiny", {}, (scores,)))
        (pair,) = analyse(Study("x", "grad_diff", tuple(runs))).pairs
        declared.append(pair.verdict != "not distinguishable")
    assert 0.005 <= np.mean(declared) <= 0.08, np.mean(declared)
