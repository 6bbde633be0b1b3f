"""The runs of a study with conditions: their conditions, and failed runs as results with the score 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlx.compare.load.folders import report_metrics
from rlx.compare.load.results import RunResult, Scores, UnfinishedRun, condition_name
from rlx.compare.study.runner import PlannedRun
from rlx.runs.tracking import read_metrics
from rlx.specs.study import ConditionAxis
from rlx.specs.train import Resolved, Spec


def with_conditions(
    finished: Sequence[RunResult], runs: Sequence[PlannedRun], axes: Sequence[ConditionAxis]
) -> tuple[RunResult, ...]:
    """The finished runs with their conditions, followed by the runs whose training failed.

    Args:
        finished: the results of finished runs, at least one.
        runs: every run of the study.
        axes: the study's condition axes.
    """
    names = {run.folder.run_id: condition_name(axes, run.condition) for run in runs}
    scored = [replace(run, condition=names[run.run_id]) for run in finished]
    failed = [_failed_result(run, names[run.folder.run_id], finished) for run in runs if run.training_failed()]
    return (*scored, *failed)


def unfinished_runs(
    results: Sequence[RunResult], runs: Sequence[PlannedRun], axes: Sequence[ConditionAxis]
) -> tuple[UnfinishedRun, ...]:
    """The runs of the study without a result."""
    done = {run.run_id for run in results}
    return tuple(
        UnfinishedRun(run.method, _spec(run).model.path, _spec(run).seed, condition_name(axes, run.condition))
        for run in runs
        if run.folder.run_id not in done
    )


def _failed_result(run: PlannedRun, condition: str, finished: Sequence[RunResult]) -> RunResult:
    """The result of a run that failed: the score 0 on the problems of the finished runs, and its curve up to then."""
    spec = _spec(run)
    same_model = [other for other in finished if other.model == spec.model.path] or finished
    template = same_model[0]
    return RunResult(
        run_id=run.folder.run_id,
        method=run.method,
        seed=spec.seed,
        model=spec.model.path,
        protocol=template.protocol,
        scores=tuple(Scores(s.benchmark, s.problem_ids, np.zeros_like(s.scores_pn)) for s in template.scores),
        metrics=tuple(report_metrics(record) for record in read_metrics(run.folder.metrics)),
        condition=condition,
        steps=spec.steps,
        failed=True,
    )


def _spec(run: PlannedRun) -> Spec:
    if not isinstance(run.resolved, Resolved):
        raise TypeError("studies of unlearning have no conditions")
    return run.resolved.spec
