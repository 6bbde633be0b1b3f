"""Forgetting against utility: the Pareto front, and whether the utility budget was met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlx.compare.load.results import FORGETTING, UTILITY, RunResult
from rlx.compare.report.tables import NOTHING, Grid, Text, percent, row_name, score_text
from rlx.compare.statistics.comparison import Cell, Column, Comparison


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One method's forgetting and utility on one model.

    Example:
        ``Place("palu", forgetting=cell, utility=cell, runs=(run,), behind=())``
    """

    method: str
    forgetting: Cell
    utility: Cell
    runs: tuple[RunResult, ...]
    """Its finished runs, one per seed."""
    behind: tuple[str, ...]
    """Methods that are declared better in one metric and not worse in the other."""

    @property
    def within_budget(self) -> int:
        """Number of runs with a checkpoint within the utility budget."""
        return sum(run.unlearned.within_budget for run in self.runs if run.unlearned)

    @property
    def supported(self) -> int:
        """Number of runs whose certificate is supported by its measurements."""
        return sum(run.unlearned.supported for run in self.runs if run.unlearned)

    @property
    def kept_utility(self) -> float:
        """Mean fraction of the original's utility that was kept."""
        return float(np.mean([run.unlearned.kept for run in self.runs if run.unlearned]))


def models(comparison: Comparison) -> tuple[str, ...]:
    """Models that were unlearned."""
    return tuple(dict.fromkeys(run.model for run in comparison.study.runs if run.unlearned))


def pareto_points(comparison: Comparison, model: str) -> list[ParetoPoint]:
    """The point of every method on one model, in the tables' order."""
    forgetting, utility = Column(model, FORGETTING), Column(model, UTILITY)
    cells = {
        method: (forgot, useful)
        for method in comparison.methods
        if (forgot := comparison.cell(forgetting, method)) and (useful := comparison.cell(utility, method))
    }

    def behind(method: str, other: str) -> bool:
        pairs = list(zip(cells[method], cells[other], strict=True))
        no_worse = all(theirs.score.mean >= mine.score.mean for mine, theirs in pairs)
        return no_worse and any((mine.column, method, other) in comparison.different for mine, _ in pairs)

    return [
        ParetoPoint(
            method,
            *mine,
            runs=tuple(r for r in comparison.study.runs if (r.method, r.model) == (method, model)),
            behind=tuple(other for other in cells if other != method and behind(method, other)),
        )
        for method, mine in cells.items()
    ]


def pareto_grid(comparison: Comparison) -> Grid:
    """The table of methods, with the original and the retain model in grey; no rows without unlearning."""
    header = ("method", "forgetting", "utility", "of the original's", "within budget", "supported", "front")
    rows: list[tuple[Text, ...]] = []
    for model in models(comparison):
        where = f" ({model})" if len(models(comparison)) > 1 else ""
        rows += [_row(comparison, point, where) for point in pareto_points(comparison, model)]
        for name, (forgetting, utility) in references(comparison, model).items():
            texts = (name + where, percent(forgetting), percent(utility), *[NOTHING] * 4)
            rows.append(tuple(Text(text, grey=True) for text in texts))
    return Grid("Forgetting against utility, %", header, tuple(rows))


def _row(comparison: Comparison, point: ParetoPoint, where: str) -> tuple[Text, ...]:
    runs = len(point.runs)
    return (
        Text(row_name(comparison, point.method) + where),
        score_text(comparison, point.forgetting),
        score_text(comparison, point.utility),
        Text(percent(point.kept_utility)),
        Text(f"{point.within_budget} of {runs}"),
        Text(f"{point.supported} of {runs}"),
        Text(f"behind {', '.join(point.behind)}" if point.behind else "on it", bold=not point.behind),
    )


def references(comparison: Comparison, model: str) -> Mapping[str, tuple[float, float]]:
    """Forgetting and utility of the original and, if there is one, the retain model, from the first run.

    The other runs started from the same model and have the same requests.
    """
    return next(run.unlearned.references for run in comparison.study.runs if run.unlearned and run.model == model)
