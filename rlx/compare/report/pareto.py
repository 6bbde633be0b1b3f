"""Forgetting against utility: the Pareto front of the methods, and the runs within the utility budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlx.compare.load.results import FORGETTING, UTILITY, RunResult
from rlx.compare.report.cells import EMPTY, Grid, Text, percent, row_name, score_text
from rlx.compare.statistics.comparison import Cell, Column, Comparison


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One method's forgetting and utility on one model.

    Example:
        ``ParetoPoint("palu", forgetting=cell, utility=cell, runs=(run,), dominated_by=())``
    """

    method: str
    forgetting: Cell
    utility: Cell
    runs: tuple[RunResult, ...]
    """Its finished runs, one per seed."""
    dominated_by: tuple[str, ...]
    """Methods that are declared better in one metric and are no worse in the other; empty on the Pareto front."""

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
        """Mean fraction of the original's utility that the runs keep."""
        return float(np.mean([run.unlearned.kept for run in self.runs if run.unlearned]))


def models(comparison: Comparison) -> tuple[str, ...]:
    """The models of the unlearning runs."""
    return tuple(dict.fromkeys(run.model for run in comparison.study.runs if run.unlearned))


def pareto_points(comparison: Comparison, model: str) -> list[ParetoPoint]:
    """Every method's point on one model, in the order of the tables."""
    forgetting_column, utility_column = Column(model, FORGETTING), Column(model, UTILITY)
    cells = {
        method: (forgetting, utility)
        for method in comparison.methods
        if (forgetting := comparison.cell(forgetting_column, method))
        and (utility := comparison.cell(utility_column, method))
    }

    def is_dominated(method: str, other: str) -> bool:
        pairs = list(zip(cells[method], cells[other], strict=True))
        no_worse = all(theirs.score.mean >= own.score.mean for own, theirs in pairs)
        return no_worse and any((own.column, method, other) in comparison.distinguishable for own, _ in pairs)

    return [
        ParetoPoint(
            method,
            *method_cells,
            runs=tuple(r for r in comparison.study.runs if (r.method, r.model) == (method, model)),
            dominated_by=tuple(other for other in cells if other != method and is_dominated(method, other)),
        )
        for method, method_cells in cells.items()
    ]


def pareto_grid(comparison: Comparison) -> Grid:
    """The methods' points, with the original and the retain model in grey; no rows without unlearning runs."""
    header = ("method", "forgetting", "utility", "% of original", "within budget", "supported", "Pareto front")
    rows: list[tuple[Text, ...]] = []
    for model in models(comparison):
        suffix = f" ({model})" if len(models(comparison)) > 1 else ""
        rows += [_row(comparison, point, suffix) for point in pareto_points(comparison, model)]
        for name, (forgetting, utility) in references(comparison, model).items():
            texts = (name + suffix, percent(forgetting), percent(utility), *[EMPTY] * 4)
            rows.append(tuple(Text(text, grey=True) for text in texts))
    return Grid("Forgetting against utility, %", header, tuple(rows))


def _row(comparison: Comparison, point: ParetoPoint, suffix: str) -> tuple[Text, ...]:
    runs = len(point.runs)
    front = f"dominated by {', '.join(point.dominated_by)}" if point.dominated_by else "on it"
    return (
        Text(row_name(comparison, point.method) + suffix),
        score_text(comparison, point.forgetting),
        score_text(comparison, point.utility),
        Text(percent(point.kept_utility)),
        Text(f"{point.within_budget} of {runs}"),
        Text(f"{point.supported} of {runs}"),
        Text(front, bold=not point.dominated_by),
    )


def references(comparison: Comparison, model: str) -> Mapping[str, tuple[float, float]]:
    """Forgetting and utility of the original and, if there is one, the retain model, as measured by the first run.

    The other runs have the same original model and the same requests.
    """
    return next(run.unlearned.references for run in comparison.study.runs if run.unlearned and run.model == model)
