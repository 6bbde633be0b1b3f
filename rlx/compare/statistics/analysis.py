"""Compute the cells, pairs and verdicts of a comparison from its runs. No other module computes a report's numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlx.compare.load.results import Array, RunResult, Study
from rlx.compare.statistics.comparison import (
    MEAN_OVER_CONDITIONS,
    SEEDS_FOR_METHODS,
    Cell,
    Column,
    Comparison,
    Flip,
    Pair,
    Question,
)
from rlx.compare.statistics.conditions import averaged_runs, summarise, tests_of, with_corrected_tests
from rlx.compare.statistics.significance import (
    SIGN_FLIP_MAX_PROBLEMS,
    ProblemWeights,
    add_problem_variance,
    holm,
    paired_p,
    percentile_interval,
    problem_variance,
    smallest_detectable,
    student_interval,
    student_p,
    two_level_bootstrap,
    welch,
)
from rlx.errors import UserError
from rlx.numerics.intervals import over_problems
from rlx.numerics.sampled import pass_at_k

MOST_FLIPS = 5
"""Number of problems per pair that a report lists because they differ most."""
RNG_SEED = 20260101
"""Seed of permutations and bootstraps: the same runs give the same report."""


def analyse(study: Study) -> Comparison:
    """Compute every cell, every pair with the baseline, and the best scores of every column.

    Raises:
        UserError: if no run has scores, no run has the baseline's method, or runs have different problems.
    """
    methods = _methods(study)
    runs = (*study.runs, *averaged_runs(study))
    columns = _columns(study, runs)
    weights = ProblemWeights(RNG_SEED)
    tables = [_ColumnScores.of(runs, column, methods, weights) for column in columns]
    summaries = summarise(study, methods)
    summary_p = [test.p for summary in summaries for test in tests_of(summary)]
    cells = [table.cell(method, study.alpha) for table in tables for method in table.methods]
    tests_by_table = [table.tests() for table in tables]
    against_baseline = [
        (table, tests[study.baseline, method], method)
        for table, tests in zip(tables, tests_by_table, strict=True)
        for method in table.methods
        if method != study.baseline and study.baseline in table.methods
    ]
    adjusted = holm(np.array([*(test.p for _, test, _ in against_baseline), *summary_p]))
    pairs = [
        table.pair(method, study, test, float(p), len(adjusted))
        for (table, test, method), p in zip(against_baseline, adjusted, strict=False)
    ]
    ranking = [
        (table.column, *names, test.p)
        for table, tests in zip(tables, tests_by_table, strict=True)
        for names, test in tests.items()
    ]
    distinguishable = _distinguishable(ranking, holm(np.array([p for *_, p in ranking])), study.alpha)
    # A method that a sentence of the report calls worse must not also be marked as best (bold).
    declared = [(pair.column, study.baseline, pair.method, pair.p_holm) for pair in pairs]
    distinguishable |= _distinguishable(declared, [p for *_, p in declared], study.alpha)
    return Comparison(
        study=study,
        columns=columns,
        methods=methods,
        cells=tuple(replace(cell, best=_is_best(cell, cells, distinguishable)) for cell in cells),
        pairs=tuple(pairs),
        ranking_tests=len(ranking),
        problem_ids={table.column: table.problem_ids for table in tables},
        distinguishable=frozenset(distinguishable),
        summaries=tuple(with_corrected_tests(summaries, adjusted[len(pairs) :].tolist())),
    )


def _columns(study: Study, runs: Sequence[RunResult]) -> tuple[Column, ...]:
    """Every model and benchmark in the order of the runs; of each its conditions in order, and then their mean."""
    names = ["", *(condition.name for condition in study.conditions), MEAN_OVER_CONDITIONS]
    present = dict.fromkeys(Column(run.model, s.benchmark, run.condition) for run in runs for s in run.scores)
    measured = dict.fromkeys((column.model, column.benchmark) for column in present)
    ordered = (Column(*key, name) for key in measured for name in names)
    return tuple(column for column in ordered if column in present)


def _methods(study: Study) -> tuple[str, ...]:
    """The methods that have scores, the baseline first."""
    methods = list(dict.fromkeys(run.method for run in study.runs if run.scores))
    if not methods:
        raise UserError("none of the runs has scores", fix="name finished runs, or give a study", exit_code=1)
    if study.baseline not in methods:
        raise UserError(
            f"baseline '{study.baseline}' is not one of the methods that have scores",
            fix=f"give --baseline one of: {', '.join(sorted(methods))}",
        )
    return (study.baseline, *(method for method in methods if method != study.baseline))


@dataclass(frozen=True, slots=True)
class _Test:
    """The test of one pair before correction."""

    difference: float
    error: float
    freedom: float
    p: float
    name: str
    p_welch: float | None
    question: Question


@dataclass(frozen=True, slots=True)
class _ColumnScores:
    """One column's scores, with the problems of all runs in the same order."""

    column: Column
    problem_ids: tuple[str, ...]
    methods: tuple[str, ...]
    """The methods that have scores on this column, in the order of the report."""
    runs: Mapping[str, tuple[RunResult, ...]]
    """Each method's runs, in the order of their seeds."""
    scores: Mapping[str, tuple[Array, ...]]
    """[p, n] of each run."""
    replicates_rm: Array
    linearised: bool

    @staticmethod
    def of(runs: Sequence[RunResult], column: Column, methods: Sequence[str], weights: ProblemWeights) -> _ColumnScores:
        runs_by_method: dict[str, tuple[RunResult, ...]] = {}
        scores_by_method: dict[str, tuple[Array, ...]] = {}
        problem_ids: tuple[str, ...] = ()
        linear = False
        for method in methods:
            key = (method, column.model, column.condition)
            own = sorted((r for r in runs if (r.method, r.model, r.condition) == key), key=lambda r: r.seed)
            scored = [(run, scores) for run in own for scores in run.scores if scores.benchmark == column.benchmark]
            for run, scores in scored:
                linear |= scores.linearised
                problem_ids = problem_ids or scores.problem_ids
                if sorted(scores.problem_ids) != sorted(problem_ids):
                    raise UserError(
                        f"run {run.run_id} has other problems of {column.benchmark} than the runs before it",
                        fix="evaluate all runs on the same problems, because the tests pair scores by problem",
                    )
            if scored:
                runs_by_method[method] = tuple(run for run, _ in scored)
                scores_by_method[method] = tuple(_aligned(s.problem_ids, problem_ids, s.scores_pn) for _, s in scored)
        if len(problem_ids) < 2:
            raise UserError(
                f"{column.benchmark} has {len(problem_ids)} problem (or author)",
                fix="evaluate on at least 2, because no test is possible with fewer",
            )
        means = [np.stack([s.mean(axis=1) for s in scores]) for scores in scores_by_method.values()]
        replicates = two_level_bootstrap(means, *weights.of(len(problem_ids)))
        return _ColumnScores(
            column, problem_ids, tuple(runs_by_method), runs_by_method, scores_by_method, replicates, linear
        )

    def means_kp(self, method: str) -> Array:
        return np.stack([scores_pn.mean(axis=1) for scores_pn in self.scores[method]])

    def cell(self, method: str, alpha: float) -> Cell:
        means_kp = self.means_kp(method)
        mean = float(means_kp.mean())
        replicates = self.replicates_rm[:, self.methods.index(method)]
        score = percentile_interval(mean, replicates, alpha)
        if len(means_kp) == 1 and self.linearised:
            error = float(means_kp.std(ddof=1) / np.sqrt(means_kp.shape[1]))
            score = student_interval(mean, error, means_kp.shape[1] - 1.0, alpha)
        elif len(means_kp) == 1:
            low, high = over_problems(means_kp[0].tolist(), 1 - alpha)
            score = replace(score, low=low, high=high)
        samples = min(scores.shape[1] for scores in self.scores[method])
        without_samples = self.column.condition == MEAN_OVER_CONDITIONS or any(r.unlearned for r in self.runs[method])
        return Cell(
            column=self.column,
            method=method,
            seeds=tuple(run.seed for run in self.runs[method]),
            problems=len(self.problem_ids),
            samples=samples,
            score=score,
            linearised=self.linearised,
            by_seed=tuple(means_kp.mean(axis=1).tolist()),
            pass_at={} if without_samples else _pass_curve(self.scores[method], samples),
            by_problem=means_kp.mean(axis=0),
        )

    def tests(self) -> dict[tuple[str, str], _Test]:
        """The test of every pair of methods, in one order of the pair."""
        names = list(itertools.combinations(self.methods, 2))
        if not names:
            return {}
        by_method = {method: self.means_kp(method) for method in self.methods}
        few = [pair for pair in names if min(len(by_method[method]) for method in pair) < SEEDS_FOR_METHODS]
        paired: dict[tuple[str, str], float] = {}
        if few:
            diffs_pm = np.stack([by_method[a].mean(axis=0) - by_method[b].mean(axis=0) for a, b in few], axis=1)
            paired = dict(zip(few, paired_p(diffs_pm, np.random.default_rng(RNG_SEED)).tolist(), strict=True))
        return {pair: self._test(by_method[pair[0]], by_method[pair[1]], paired.get(pair)) for pair in names}

    def _test(self, a_kp: Array, b_kp: Array, p_paired: float | None) -> _Test:
        """The test over seeds and problems; with ``p_paired``, the one over problems, which few seeds allow."""
        diffs_p = a_kp.mean(axis=0) - b_kp.mean(axis=0)
        seeds, problems = min(len(a_kp), len(b_kp)), len(diffs_p)
        difference = float(diffs_p.mean())
        p_welch = None
        if seeds > 1:
            error, freedom = welch(a_kp.mean(axis=1), b_kp.mean(axis=1))
            p_welch = student_p(difference, error, freedom)
        if p_paired is None:
            error, freedom = add_problem_variance(error, freedom, problem_variance(a_kp, b_kp), problems)
            p = student_p(difference, error, freedom)
            return _Test(difference, error, freedom, p, "seeds and problems", p_welch, "methods")
        error = float(diffs_p.std(ddof=1) / np.sqrt(problems))
        name = "sign flips" if problems <= SIGN_FLIP_MAX_PROBLEMS else "paired t"
        return _Test(difference, error, problems - 1.0, p_paired, name, p_welch, "checkpoints")

    def pair(self, method: str, study: Study, test: _Test, p_holm: float, comparisons: int) -> Pair:
        """The method against the baseline; ``test`` is of baseline minus method, as the baseline is listed first."""
        a_p, b_p = (self.means_kp(name).mean(axis=0) for name in (method, study.baseline))
        diffs_p = a_p - b_p
        largest = sorted(range(len(diffs_p)), key=lambda i: (-abs(diffs_p[i]), self.problem_ids[i]))[:MOST_FLIPS]
        a_r, b_r = (self.replicates_rm[:, self.methods.index(name)] for name in (method, study.baseline))
        difference = student_interval(-test.difference, test.error, test.freedom, study.alpha)
        return Pair(
            column=self.column,
            method=method,
            baseline=study.baseline,
            question=test.question,
            difference=difference,
            bootstrap=percentile_interval(difference.mean, a_r - b_r, study.alpha),
            test=test.name,
            p=test.p,
            p_welch=test.p_welch,
            p_holm=p_holm,
            won=None
            if self.linearised
            else (int((diffs_p > 0).sum()), int((diffs_p < 0).sum()), int((diffs_p == 0).sum())),
            detectable=smallest_detectable(test.error, test.freedom, study.alpha / comparisons),
            flipped=tuple(
                Flip(self.problem_ids[i], float(a_p[i]), float(b_p[i]))
                for i in largest
                if diffs_p[i] and not self.linearised
            ),
            verdict="not distinguishable" if p_holm >= study.alpha else "better" if difference.mean > 0 else "worse",
        )


def _aligned(ids: Sequence[str], order: Sequence[str], scores_pn: Array) -> Array:
    """The rows of ``scores_pn``, whose problems are ``ids``, in the order of the problems ``order``."""
    if tuple(ids) == tuple(order):
        return scores_pn
    rows = {problem: row for row, problem in enumerate(ids)}
    return scores_pn[[rows[problem] for problem in order]]


def _pass_curve(scores: Sequence[Array], samples: int) -> dict[int, float]:
    """pass@k over all problems and seeds; a score above .5 counts as correct."""
    ks = sorted({2**power for power in range(samples.bit_length())} | {samples})
    correct = np.concatenate([(scores_pn[:, :samples] > 0.5).sum(axis=1) for scores_pn in scores])
    counts = np.bincount(correct, minlength=samples + 1)
    return {k: sum(int(count) * pass_at_k(samples, c, k) for c, count in enumerate(counts)) / len(correct) for k in ks}


def _distinguishable(
    tests: Sequence[tuple[Column, str, str, float]], adjusted: Iterable[float], alpha: float
) -> set[tuple[Column, str, str]]:
    """Pairs that differ after correction, in both orders."""
    significant = [(c, a, b) for (c, a, b, _), p in zip(tests, adjusted, strict=True) if p < alpha]
    return {(c, x, y) for c, a, b in significant for x, y in ((a, b), (b, a))}


def _is_best(cell: Cell, cells: Sequence[Cell], distinguishable: set[tuple[Column, str, str]]) -> bool:
    top = max((other for other in cells if other.column == cell.column), key=lambda other: other.score.mean)
    return (cell.column, cell.method, top.method) not in distinguishable
