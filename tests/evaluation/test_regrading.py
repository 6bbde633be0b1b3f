"""Stored responses are graded again when the grading rules have another version; results of two versions don't mix."""

from __future__ import annotations

import json
import shutil

import pytest

from rlx.compare.load.folders import check_protocols
from rlx.compare.load.results import RunResult
from rlx.errors import UserError
from rlx.evaluation.regrading import regrade_run
from rlx.evaluation.run import run_eval
from rlx.rewards.grade import VERSION
from rlx.runs.folder import RunDir, read_json
from rlx.runs.locate import locator
from rlx.specs.evaluate import Protocol
from rlx.specs.resolve_evaluate import resolve_eval


@pytest.fixture(scope="module")
def graded_before(tmp_path_factory):
    """A run folder with one evaluation whose protocol has an older version of the grading rules."""
    runs = tmp_path_factory.mktemp("runs")
    spec = {"model": "embedded", "n": 1, "limit": 6, "batch": 6, "mlflow": False}
    (outcome,) = run_eval(resolve_eval(spec, locator(runs)))
    older = outcome.protocol.model_copy(update={"grader_version": "1, math-verify 0.9.0"})
    folder = outcome.folder.root.with_name(f"{older.benchmark}-{older.digest}")
    outcome.folder.root.rename(folder)
    (folder / "protocol.json").write_text(json.dumps(older.record()))
    return RunDir(folder.parents[2])


def test_every_older_evaluation_is_graded_again_into_a_folder_of_its_own(graded_before, tmp_path):
    run = RunDir(tmp_path / "run")
    shutil.copytree(graded_before.root, run.root)
    (name,) = regrade_run(run)
    old, new = sorted(run.evaluations(), key=lambda folder: folder.root.name == name)
    protocol = Protocol(**read_json(new.protocol))
    assert new.root.name == name == f"{protocol.benchmark}-{protocol.digest}" and protocol.grader_version == VERSION
    assert protocol.same_responses(Protocol(**read_json(old.protocol)))
    scores = [sorted(read_json(file.result)["scores"], key=lambda score: score["id"]) for file in (old, new)]
    assert scores[0] == scores[1]
    assert regrade_run(run) == []


def test_a_grader_in_a_file_is_not_called(graded_before, tmp_path):
    run = RunDir(tmp_path / "run")
    shutil.copytree(graded_before.root, run.root)
    (stored,) = run.evaluations()
    grader = tmp_path / "mine.py"
    grader.write_text("raise SystemExit('imported')\n")
    stored.protocol.write_text(json.dumps(read_json(stored.protocol) | {"grader": f"{grader}:mine"}))
    assert regrade_run(run) == []


def test_runs_graded_by_two_versions_are_not_compared_and_the_sentence_names_the_fix():
    def result(name, **protocol):
        return RunResult(name, "grpo", 0, "m", {f"aime24.{key}": value for key, value in protocol.items()}, (), ())

    older, newer = result("a", grader_version="1", n=2), result("b", grader_version="2", n=2)
    with pytest.raises(UserError, match="grader_version.*'1' in a, '2' in b") as refused:
        check_protocols([older, newer], force=False)
    assert "--regrade" in refused.value.fix
    with pytest.raises(UserError) as refused:
        check_protocols([older, result("b", grader_version="2", n=4)], force=False)
    assert "--regrade" not in refused.value.fix
    assert check_protocols([older, newer], force=True) == ("aime24.grader_version",)
