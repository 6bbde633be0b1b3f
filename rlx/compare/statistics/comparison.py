"""The result of a comparison: cells, pairs and verdicts, which every report format renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlx.compare.load.results import Array, PublishedScore, Study
from rlx.compare.statistics.significance import Interval

Question = Literal["checkpoints", "methods"]


@dataclass(frozen=True, slots=True)
class Column:
    """One benchmark of one model.

    Example:
        ``Column("embedded", "arithmetic")``
    """

    model: str
    benchmark: str


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

    def cell(self, column: Column, method: str) -> Cell | None:
        """The cell, or None if the method has no run on this column."""
        return next((cell for cell in self.cells if (cell.column, cell.method) == (column, method)), None)

    def published(self, column: Column, method: str) -> PublishedScore | None:
        """The score that a paper reports for the method on this column's benchmark."""
        key = (method, column.benchmark)
        return next((score for score in self.study.published if (score.method, score.benchmark) == key), None)
