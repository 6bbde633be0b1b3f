"""The analysis of a comparison: all numbers of a report are computed here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlx.compare.load.results import Array, RunResult, Study
from rlx.compare.statistics.comparison import Cell, Column, Comparison, Flip, Pair, Question
from rlx.compare.statistics.significance import (
    SIGN_FLIPS_UP_TO,
    holm,
    paired_p,
    problem_part,
    replicate_interval,
    smallest_detectable,
    student_p,
    t_around,
    two_level_bootstrap,
    welch,
    with_problems,
)
from rlx.errors import UserError
from rlx.numerics.intervals import over_problems
from rlx.numerics.sampled import pass_at_k

SEEDS_FOR_METHODS = 3
"""Number of training seeds below which a difference is one of checkpoints, not of methods."""
FLIPPED = 5
"""Number of listed problems with the largest differences."""
DRAWS = 20260101
"""Seed of permutations and bootstraps: the same runs give the same report."""


def compared(study: Study) -> Comparison:
    """Compute every cell, every pair with the baseline, and the best methods of every column.

    Raises:
        UserError: without scored runs, without the baseline, or when runs were measured on different problems.
    """
    methods = _methods(study)
    columns = tuple(dict.fromkeys(Column(run.model, scores.benchmark) for run in study.runs for scores in run.scores))
    tables = [_Table.of(study.runs, column, methods) for column in columns]
    cells = [table.cell(method, study.alpha) for table in tables for method in table.methods]
    tests = [table.tests() for table in tables]
    tested = [
        (table, column_tests, method)
        for table, column_tests in zip(tables, tests, strict=True)
        for method in table.methods
        if method != study.baseline and study.baseline in table.methods
    ]
    adjusted = holm(np.array([column_tests[study.baseline, method].p for _, column_tests, method in tested]))
    pairs = [
        table.pair(method, study, column_tests[study.baseline, method], float(p), len(tested))
        for (table, column_tests, method), p in zip(tested, adjusted, strict=True)
    ]
    ranking = [
        (table.column, *names, test.p)
        for table, column_tests in zip(tables, tests, strict=True)
        for names, test in column_tests.items()
    ]
    # Methods reported as worse must not also be marked as best (bold).
    declared = [(pair.column, study.baseline, pair.method, pair.p_holm) for pair in pairs]
    different = _different_pairs(ranking, holm(np.array([p for *_, p in ranking])), study.alpha)
    different |= _different_pairs(declared, [p for *_, p in declared], study.alpha)
    return Comparison(
        study=study,
        columns=columns,
        methods=methods,
        cells=tuple(replace(cell, best=_is_best(cell, cells, different)) for cell in cells),
        pairs=tuple(pairs),
        ranked=len(ranking),
        problem_ids={table.column: table.problem_ids for table in tables},
        different=frozenset(different),
    )


def _methods(study: Study) -> tuple[str, ...]:
    methods = list(dict.fromkeys(run.method for run in study.runs if run.scores))
    if not methods:
        raise UserError("none of the runs has scores", fix="name finished runs, or give a study", exit_code=1)
    if study.baseline not in methods:
        raise UserError(
            f"baseline '{study.baseline}' is not among the methods that have scores",
            fix=f"give --baseline one of: {', '.join(sorted(methods))}",
        )
    return (study.baseline, *(method for method in methods if method != study.baseline))


@dataclass(frozen=True, slots=True)
class _Test:
    """A pair's test before correction."""

    difference: float
    error: float
    freedom: float
    p: float
    name: str
    p_welch: float | None
    question: Question


@dataclass(frozen=True, slots=True)
class _Table:
    """One column's scores, aligned by problem."""

    column: Column
    problem_ids: tuple[str, ...]
    methods: tuple[str, ...]
    runs: Mapping[str, tuple[RunResult, ...]]
    scores: Mapping[str, tuple[Array, ...]]
    """[p, n] for every seed."""
    replicates_rm: Array
    linearised: bool

    @staticmethod
    def of(runs: Sequence[RunResult], column: Column, methods: Sequence[str]) -> _Table:
        runs_of: dict[str, tuple[RunResult, ...]] = {}
        scores: dict[str, tuple[Array, ...]] = {}
        problem_ids: tuple[str, ...] = ()
        linear = False
        for method in methods:
            method_runs = sorted(
                (r for r in runs if (r.method, r.model) == (method, column.model)), key=lambda r: r.seed
            )
            entries = [(r, entry) for r in method_runs for entry in r.scores if entry.benchmark == column.benchmark]
            for run, entry in entries:
                linear |= entry.linearised
                problem_ids = problem_ids or entry.problem_ids
                if sorted(entry.problem_ids) != sorted(problem_ids):
                    raise UserError(
                        f"run {run.run_id} was measured on other problems of {column.benchmark} than the runs before it",
                        fix="evaluate both on the same problems; no test can pair these",
                    )
            if entries:
                runs_of[method] = tuple(run for run, _ in entries)
                scores[method] = tuple(
                    _aligned(entry.problem_ids, problem_ids, entry.scores_pn) for _, entry in entries
                )
        if len(problem_ids) < 2:
            raise UserError(
                f"{column.benchmark} has {len(problem_ids)} problem (or author)",
                fix="no test can be made of fewer than 2",
            )
        means = [np.stack([s.mean(axis=1) for s in entry]) for entry in scores.values()]
        replicates = two_level_bootstrap(means, np.random.default_rng(DRAWS))
        return _Table(column, problem_ids, tuple(runs_of), runs_of, scores, replicates, linear)

    def means_kp(self, method: str) -> Array:
        return np.stack([scores_pn.mean(axis=1) for scores_pn in self.scores[method]])

    def cell(self, method: str, alpha: float) -> Cell:
        means_kp = self.means_kp(method)
        mean = float(means_kp.mean())
        replicates = self.replicates_rm[:, self.methods.index(method)]
        score = replicate_interval(mean, replicates, alpha)
        if len(means_kp) == 1 and self.linearised:
            error = float(means_kp.std(ddof=1) / np.sqrt(means_kp.shape[1]))
            score = t_around(mean, error, means_kp.shape[1] - 1.0, alpha)
        elif len(means_kp) == 1:
            low, high = over_problems(means_kp[0].tolist(), 1 - alpha)
            score = replace(score, low=low, high=high)
        fewest = min(scores.shape[1] for scores in self.scores[method])
        return Cell(
            column=self.column,
            method=method,
            seeds=tuple(run.seed for run in self.runs[method]),
            problems=len(self.problem_ids),
            samples=fewest,
            score=score,
            linearised=self.linearised,
            by_seed=tuple(means_kp.mean(axis=1).tolist()),
            pass_at={} if any(run.unlearned for run in self.runs[method]) else _pass_curve(self.scores[method], fewest),
            by_problem=means_kp.mean(axis=0),
        )

    def tests(self) -> dict[tuple[str, str], _Test]:
        """Every pair of methods, each once."""
        names = list(itertools.combinations(self.methods, 2))
        if not names:
            return {}
        by_method = {method: self.means_kp(method) for method in self.methods}
        diffs_pm = np.stack([by_method[a].mean(axis=0) - by_method[b].mean(axis=0) for a, b in names], axis=1)
        paired = paired_p(diffs_pm, np.random.default_rng(DRAWS))
        return {
            pair: self._test(by_method[pair[0]], by_method[pair[1]], diffs_pm[:, i], float(paired[i]))
            for i, pair in enumerate(names)
        }

    def _test(self, a_kp: Array, b_kp: Array, diffs_p: Array, paired: float) -> _Test:
        seeds, problems = min(len(a_kp), len(b_kp)), len(diffs_p)
        difference = float(diffs_p.mean())
        p_welch = None
        if seeds > 1:
            error, freedom = welch(a_kp.mean(axis=1), b_kp.mean(axis=1))
            p_welch = student_p(difference, error, freedom)
        if seeds >= SEEDS_FOR_METHODS:
            error, freedom = with_problems(error, freedom, problem_part(a_kp, b_kp), problems)
            p = student_p(difference, error, freedom)
            return _Test(difference, error, freedom, p, "seeds and problems", p_welch, "methods")
        error = float(diffs_p.std(ddof=1) / np.sqrt(problems))
        name = "sign flips" if problems <= SIGN_FLIPS_UP_TO else "paired t"
        return _Test(difference, error, problems - 1.0, paired, name, p_welch, "checkpoints")

    def pair(self, method: str, study: Study, test: _Test, p_holm: float, comparisons: int) -> Pair:
        """The method against the baseline, which is the first method of every column."""
        a_p, b_p = (self.means_kp(name).mean(axis=0) for name in (method, study.baseline))
        diffs_p = a_p - b_p
        largest = sorted(range(len(diffs_p)), key=lambda i: (-abs(diffs_p[i]), self.problem_ids[i]))[:FLIPPED]
        own, base = (self.replicates_rm[:, self.methods.index(name)] for name in (method, study.baseline))
        difference = t_around(-test.difference, test.error, test.freedom, study.alpha)
        return Pair(
            column=self.column,
            method=method,
            baseline=study.baseline,
            question=test.question,
            difference=difference,
            bootstrap=replicate_interval(difference.mean, own - base, study.alpha),
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


def _aligned(ids: Sequence[str], target_ids: Sequence[str], scores_pn: Array) -> Array:
    if tuple(ids) == tuple(target_ids):
        return scores_pn
    row_of = {problem: row for row, problem in enumerate(ids)}
    return scores_pn[[row_of[problem] for problem in target_ids]]


def _pass_curve(scores: Sequence[Array], samples: int) -> dict[int, float]:
    """pass@k over all problems and seeds; a score above .5 counts as right."""
    steps = sorted({2**power for power in range(samples.bit_length())} | {samples})
    correct = np.concatenate([(scores_pn[:, :samples] > 0.5).sum(axis=1) for scores_pn in scores])
    counts = np.bincount(correct, minlength=samples + 1)
    return {
        k: sum(int(count) * pass_at_k(samples, c, k) for c, count in enumerate(counts)) / len(correct) for k in steps
    }


def _different_pairs(
    rankings: Sequence[tuple[Column, str, str, float]], adjusted: Iterable[float], alpha: float
) -> set[tuple[Column, str, str]]:
    """Pairs that differ after correction, in both orders."""
    significant = [(c, a, b) for (c, a, b, _), p in zip(rankings, adjusted, strict=True) if p < alpha]
    return {(c, x, y) for c, a, b in significant for x, y in ((a, b), (b, a))}


def _is_best(cell: Cell, cells: Sequence[Cell], different: set[tuple[Column, str, str]]) -> bool:
    top = max((other for other in cells if other.column == cell.column), key=lambda other: other.score.mean)
    return (cell.column, cell.method, top.method) not in different
