"""A study's summary across its conditions: area under the learning curve, collapse, and the largest condition survived.

A run collapses if its training fails or if its accuracy ends below its start. A method survives a condition if at least
7 of 8 of the planned seeds end above their start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from rlx.compare.load.results import Condition, RunResult, Scores, Study
from rlx.compare.statistics.comparison import (
    MEAN_OVER_CONDITIONS,
    SEEDS_FOR_METHODS,
    CollapseCount,
    MethodSummary,
    Survived,
    Tested,
)
from rlx.compare.statistics.exact import clopper_pearson, permutation_p
from rlx.compare.statistics.significance import Interval, student_interval, student_p, welch

CURVES = ("eval/sampled_accuracy", "train/reward")
"""Metrics of the learning curve: the first one that every finished run has at two steps or more."""
SURVIVING_SHARE = Fraction(7, 8)
"""Share of the planned seeds that must end above their start."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The start, the end and the area of one run's learning curve.

    Example:
        ``Curve(start=0.35, end=0.71, area=0.6)``
    """

    start: float
    end: float
    area: float
    """Mean height: the integral over the steps (trapezoids) divided by their number."""


def averaged_runs(study: Study) -> list[RunResult]:
    """For every method and seed that has a result under all conditions: a result with its mean scores over them."""
    conditions = study.conditions
    if len(conditions) < 2:
        return []
    return [
        replace(
            runs[0],
            run_id=f"{runs[0].run_id} and {len(runs) - 1} more",
            scores=tuple(_mean_scores(runs, index) for index in range(len(runs[0].scores))),
            condition=MEAN_OVER_CONDITIONS,
            metrics=(),
        )
        for runs in _complete_seeds(study)
    ]


def _complete_seeds(study: Study) -> Iterator[list[RunResult]]:
    """The runs of every model, method and seed that has a result under all conditions, in the order of conditions."""
    groups: dict[tuple[str, str, int], dict[str, RunResult]] = {}
    for run in study.runs:
        groups.setdefault((run.model, run.method, run.seed), {})[run.condition] = run
    for by_condition in groups.values():
        if len(by_condition) == len(study.conditions):
            yield [by_condition[condition.name] for condition in study.conditions]


def _mean_scores(runs: Sequence[RunResult], index: int) -> Scores:
    """The mean scores by problem of runs that have the same benchmarks."""
    first = runs[0].scores[index]
    means = []
    for run in runs:
        scores = next(scores for scores in run.scores if scores.benchmark == first.benchmark)
        by_id = dict(zip(scores.problem_ids, scores.means_p.tolist(), strict=True))
        # A problem that a run lacks is nan here; the comparison of that run's own column refuses it with its name.
        means.append([by_id.get(problem, math.nan) for problem in first.problem_ids])
    return Scores(first.benchmark, first.problem_ids, np.mean(means, axis=0)[:, None])


def curve_metric(study: Study) -> str | None:
    """The metric of the learning curves; None if there is none that all finished runs have."""
    finished = [run for run in study.runs if not run.failed]
    return next((key for key in CURVES if all(len(_points(run, key)) > 1 for run in finished)), None)


def curve_of(run: RunResult, metric: str) -> Curve:
    """The run's learning curve; that of a failed run is 0 after its last point."""
    points = _points(run, metric)
    if not points:
        return Curve(start=0.0, end=0.0, area=0.0)
    steps, values = (np.array(axis) for axis in zip(*points, strict=True))
    last = max(float(steps[-1]), float(run.steps)) if run.failed else float(steps[-1])
    length = last - float(steps[0])
    area = float(np.trapezoid(values, steps)) / length if length > 0 else float(values[0])
    return Curve(start=float(values[0]), end=0.0 if run.failed else float(values[-1]), area=area)


def _points(run: RunResult, metric: str) -> list[tuple[float, float]]:
    values = ((record.get("step", 0.0), record.get(metric, math.nan)) for record in run.metrics)
    return [(step, value) for step, value in values if math.isfinite(value)]


def summarise(study: Study, methods: Sequence[str]) -> list[MethodSummary]:
    """The summary of every model and method, with tests before Holm's correction; none without a learning curve."""
    metric = curve_metric(study)
    if not study.conditions or metric is None:
        return []
    curves = {run.run_id: curve_of(run, metric) for run in study.runs}
    complete: dict[tuple[str, str], list[list[RunResult]]] = {}
    for runs in _complete_seeds(study):
        complete.setdefault((runs[0].model, runs[0].method), []).append(runs)
    summaries = []
    for model in dict.fromkeys(run.model for run in study.runs):
        present = [m for m in methods if any((run.model, run.method) == (model, m) for run in study.runs)]
        areas = {m: _seed_areas(complete.get((model, m), []), curves) for m in present}
        collapses = {m: _seed_collapses(complete.get((model, m), []), curves) for m in present}
        for method in present:
            counts = tuple(_count(study, model, method, condition, curves) for condition in study.conditions)
            seeds = [count for _, count in sorted(collapses[method].items())]
            affected = sum(count > 0 for count in seeds)
            summaries.append(
                MethodSummary(
                    model=model,
                    method=method,
                    metric=metric,
                    seeds=len(seeds),
                    area=_area(areas[method], study.alpha),
                    area_test=_area_test(areas, method, study),
                    counts=counts,
                    seeds_collapsed=affected,
                    seeds_interval=clopper_pearson(affected, len(seeds), study.alpha),
                    collapse_tests=tuple(_collapse_tests(collapses, method, study.baseline)),
                    survived=tuple(_survived(study, counts)),
                )
            )
    return summaries


def _seed_areas(seeds: Sequence[Sequence[RunResult]], curves: Mapping[str, Curve]) -> list[float]:
    """The mean area over conditions of each complete seed."""
    return [float(np.mean([curves[run.run_id].area for run in runs])) for runs in seeds]


def _seed_collapses(seeds: Sequence[Sequence[RunResult]], curves: Mapping[str, Curve]) -> dict[int, int]:
    """The number of collapsed runs of each complete seed."""
    return {runs[0].seed: sum(_collapsed(run, curves) for run in runs) for runs in seeds}


def _collapsed(run: RunResult, curves: Mapping[str, Curve]) -> bool:
    curve = curves[run.run_id]
    return run.failed or curve.end < curve.start


def _area(areas: Sequence[float], alpha: float) -> Interval | None:
    """The mean over seeds with Student's interval; without an interval for one seed; None without seeds."""
    if not areas:
        return None
    if len(areas) == 1:
        return Interval(areas[0], math.nan, math.nan, math.nan)
    error = float(np.std(areas, ddof=1)) / math.sqrt(len(areas))
    return student_interval(float(np.mean(areas)), error, len(areas) - 1.0, alpha)


def _area_test(areas: Mapping[str, Sequence[float]], method: str, study: Study) -> Tested | None:
    """Welch's test of the method's areas against the baseline's; None for the baseline or with too few seeds."""
    own, reference = (np.array(areas.get(name, ())) for name in (method, study.baseline))
    if method == study.baseline or min(len(own), len(reference)) < SEEDS_FOR_METHODS:
        return None
    difference = float(own.mean() - reference.mean())
    error, freedom = welch(own, reference)
    interval = student_interval(difference, error, freedom, study.alpha)
    p = student_p(difference, error, freedom)
    return Tested(f"against {study.baseline}", p, difference=interval, more=difference > 0)


def _collapse_tests(collapses: Mapping[str, Mapping[int, int]], method: str, baseline: str) -> Iterator[Tested]:
    """Exact tests of the method's number of collapsed runs against the baseline's and against all other methods'.

    A seed with its runs under all conditions is permuted as one unit. The test against all others finds a method that
    collapses alone with fewer seeds than the test against one method.
    """
    own = list(collapses[method].values())
    if len(own) < SEEDS_FOR_METHODS:
        return
    others = [count for name, counts in collapses.items() if name != method for count in counts.values()]
    reference = list(collapses.get(baseline, {}).values())
    if method != baseline and len(reference) >= SEEDS_FOR_METHODS:
        yield _count_test(f"against {baseline}", own, reference)
    if len(collapses) > 2 and others:
        yield _count_test("against all others", own, others)


def _count_test(comparison: str, own: Sequence[int], others: Sequence[int]) -> Tested:
    more = sum(own) * len(others) > sum(others) * len(own)
    return Tested(comparison, permutation_p(own, others), more=more)


def _count(study: Study, model: str, method: str, condition: Condition, curves: Mapping[str, Curve]) -> CollapseCount:
    """How the method's runs under one condition ended."""
    key = (model, method, condition.name)
    runs = [run for run in study.runs if (run.model, run.method, run.condition) == key]
    unfinished = sum((run.model, run.method, run.condition) == key for run in study.unfinished)
    collapsed = sum(_collapsed(run, curves) for run in runs)
    above = sum(not run.failed and curves[run.run_id].end > curves[run.run_id].start for run in runs)
    return CollapseCount(
        condition=condition.name,
        runs=len(runs),
        collapsed=collapsed,
        failed=sum(run.failed for run in runs),
        above=above,
        unfinished=unfinished,
        interval=clopper_pearson(collapsed, len(runs), study.alpha),
        above_interval=clopper_pearson(above, len(runs), study.alpha),
        survived=bool(runs) and above >= SURVIVING_SHARE * (len(runs) + unfinished),
    )


def _survived(study: Study, counts: Sequence[CollapseCount]) -> Iterator[Survived]:
    """The largest value survived of each axis with two values or more, for each combination of the other axes."""
    by_values = dict(zip((condition.values for condition in study.conditions), counts, strict=True))
    for position, axis in enumerate(study.condition_axes):
        if len(axis.values) < 2:
            continue
        others = dict.fromkeys(values[:position] + values[position + 1 :] for values in by_values)
        for fixed in others:
            along = [by_values[*fixed[:position], value, *fixed[position:]] for value in axis.values]
            largest = max((index for index, count in enumerate(along) if count.survived), default=-1)
            keys = [other.key for other in study.condition_axes if other is not axis]
            yield Survived(
                axis=axis.key,
                at=", ".join(f"{key}={value}" for key, value in zip(keys, fixed, strict=True)),
                value=axis.values[largest] if largest >= 0 else None,
                count=along[largest] if largest >= 0 else None,
                failed_below=tuple(v for v, c in zip(axis.values[:largest], along, strict=False) if not c.survived)
                if largest > 0
                else (),
                next_value=axis.values[largest + 1] if largest + 1 < len(along) else None,
                next_count=along[largest + 1] if largest + 1 < len(along) else None,
            )


def tests_of(summary: MethodSummary) -> tuple[Tested, ...]:
    """The tests of a summary in the order in which ``with_corrected_tests`` expects their p-values."""
    return (*((summary.area_test,) if summary.area_test else ()), *summary.collapse_tests)


def with_corrected_tests(summaries: Sequence[MethodSummary], adjusted: Sequence[float]) -> Iterator[MethodSummary]:
    """The summaries with corrected p-values, one for each of their tests in order."""
    remaining = iter(adjusted)
    for summary in summaries:
        area = replace(summary.area_test, p_holm=next(remaining)) if summary.area_test else None
        collapse = tuple(replace(test, p_holm=next(remaining)) for test in summary.collapse_tests)
        yield replace(summary, area_test=area, collapse_tests=collapse)
