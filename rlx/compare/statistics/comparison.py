"""The result of a comparison: cells, pairs and verdicts, which every report format renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlx.compare.load.results import Array, PublishedScore, Study
from rlx.compare.statistics.significance import Interval

Question = Literal["checkpoints", "methods"]
SEEDS_FOR_METHODS = 3
"""With fewer training seeds a difference is one between checkpoints, not between methods."""
MEAN_OVER_CONDITIONS = "mean over conditions"
"""Name of the condition of scores that are averaged over all conditions of a study, for each seed."""


@dataclass(frozen=True, slots=True)
class Column:
    """One benchmark of one model, under one condition if the study has any.

    Example:
        ``Column("embedded", "arithmetic")``
    """

    model: str
    benchmark: str
    condition: str = ""
    """Name of a condition of the study, or ``MEAN_OVER_CONDITIONS``; empty in a study without conditions."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One method's score on one column."""

    column: Column
    method: str
    seeds: tuple[int, ...]
    problems: int
    samples: int
    score: Interval
    """Over seeds and problems (two-level bootstrap); with one seed over problems (Student's t)."""
    linearised: bool
    """Whether a single row of ``by_problem`` has no meaning (see ``Scores``)."""
    by_seed: tuple[float, ...]
    pass_at: Mapping[int, float]
    """pass@k for powers of 2 up to the number of samples, and for that number; empty for unlearning runs."""
    by_problem: Array
    """[p] mean over seeds and samples."""
    best: bool = False
    """Whether the score is not distinguishable from the column's highest score."""


@dataclass(frozen=True, slots=True)
class Flip:
    """A problem on which the methods of a pair differ by a large amount."""

    problem_id: str
    method: float
    baseline: float


@dataclass(frozen=True, slots=True)
class Pair:
    """One method against the baseline on one column."""

    column: Column
    method: str
    baseline: str
    question: Question
    difference: Interval
    """Student's interval, with the standard error of the test."""
    bootstrap: Interval
    """The same difference in the two-level bootstrap (seeds, then problems)."""
    test: str
    p: float
    p_welch: float | None
    """Welch's test on seed means alone; None with fewer than 2 seeds on a side."""
    p_holm: float
    won: tuple[int, int, int] | None
    """Numbers of problems won, lost and tied; None if single problems have no meaning (see ``Scores``)."""
    detectable: float
    """Smallest difference that the test detects with 80 % power at Holm's strictest step."""
    flipped: tuple[Flip, ...]
    verdict: Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True, slots=True)
class Tested:
    """One test of a summary across conditions.

    Example:
        ``Tested("against grpo", p=0.001, p_holm=0.02)``
    """

    comparison: str
    p: float
    p_holm: float = 1.0
    difference: Interval | None = None
    """None for a test of counts."""
    more: bool = False
    """Whether the method's mean is above that of the other side."""


@dataclass(frozen=True, slots=True)
class CollapseCount:
    """How a method's runs under one condition ended.

    Example:
        ``CollapseCount("optim.lr=2e-4", runs=8, collapsed=4, failed=1, above=4, unfinished=0, ...)``
    """

    condition: str
    runs: int
    """Finished and failed runs."""
    collapsed: int
    """Runs that ended below their start, and failed runs."""
    failed: int
    above: int
    """Runs that ended above their start."""
    unfinished: int
    interval: tuple[float, float]
    """Clopper and Pearson's interval of the share of collapsed runs."""
    above_interval: tuple[float, float]
    """The same of the share of runs that ended above their start."""
    survived: bool
    """Whether at least 7 of 8 of the planned runs ended above their start."""


@dataclass(frozen=True, slots=True)
class Survived:
    """The largest value of one condition axis that a method survived."""

    axis: str
    at: str
    """The values of the other condition axes; empty if there are none."""
    value: str | None
    """None if the method survived no value."""
    count: CollapseCount | None
    """The runs at that value."""
    failed_below: tuple[str, ...]
    """Smaller values that were not survived."""
    next_value: str | None
    """The next larger value of the axis; the smallest one if none was survived."""
    next_count: CollapseCount | None


@dataclass(frozen=True, slots=True)
class MethodSummary:
    """One method across all conditions."""

    model: str
    method: str
    metric: str
    """Metric of the learning curve."""
    seeds: int
    """Seeds with a finished or failed run under every condition; the area and the tests use these."""
    area: Interval | None
    """Mean height of the learning curve over conditions; Student's interval over seeds."""
    area_test: Tested | None
    counts: tuple[CollapseCount, ...]
    """One per condition."""
    seeds_collapsed: int
    """Seeds of which at least one run collapsed."""
    seeds_interval: tuple[float, float]
    collapse_tests: tuple[Tested, ...]
    survived: tuple[Survived, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All the numbers of a report."""

    study: Study
    columns: tuple[Column, ...]
    methods: tuple[str, ...]
    """The baseline first."""
    cells: tuple[Cell, ...]
    pairs: tuple[Pair, ...]
    ranking_tests: int
    """Number of tests that decide which scores are bold, for Holm's correction: every pair of every column."""
    problem_ids: Mapping[Column, tuple[str, ...]]
    distinguishable: frozenset[tuple[Column, str, str]]
    """Pairs of methods, in both orders, that differ after correction."""
    summaries: tuple[MethodSummary, ...] = ()
    """Every model and method across the conditions; empty in a study without conditions or without learning curves."""

    @property
    def summary_tests(self) -> int:
        """Number of tests of the summaries, which Holm's correction includes."""
        return sum((summary.area_test is not None) + len(summary.collapse_tests) for summary in self.summaries)

    def cell(self, column: Column, method: str) -> Cell | None:
        """The cell, or None if the method has no run on this column."""
        return next((cell for cell in self.cells if (cell.column, cell.method) == (column, method)), None)

    def published(self, column: Column, method: str) -> PublishedScore | None:
        """The score that a paper reports for the method on this column's benchmark."""
        key = (method, column.benchmark)
        return next((score for score in self.study.published if (score.method, score.benchmark) == key), None)
