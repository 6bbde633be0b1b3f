"""Forgetting against utility: who stands on the front, and whether the budget was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlx.compare.load.results import FORGETTING, UTILITY, RunResult
from rlx.compare.report.tables import NOTHING, Grid, Text, percent, row_name, score_text
from rlx.compare.statistics.comparison import Cell, Column, Comparison


@dataclass(frozen=True, slots=True)
class Place:
    """One method's place between forgetting and utility, on one model.

    Example:
        ``Place("palu", forgetting=cell, utility=cell, runs=(run,), behind=())``
    """

    method: str
    forgetting: Cell
    utility: Cell
    runs: tuple[RunResult, ...]
    """Its finished runs, one a seed."""
    behind: tuple[str, ...]
    """Methods that are declared better in one figure and no worse in the other."""

    @property
    def within_budget(self) -> int:
        """Runs with a checkpoint within the utility budget."""
        return sum(run.unlearned.within_budget for run in self.runs if run.unlearned)

    @property
    def supported(self) -> int:
        """Runs whose certificate is supported by its measurements."""
        return sum(run.unlearned.supported for run in self.runs if run.unlearned)

    @property
    def kept(self) -> float:
        """Mean share of the original's utility."""
        return float(np.mean([run.unlearned.kept for run in self.runs if run.unlearned]))


def models(comparison: Comparison) -> tuple[str, ...]:
    """Models that something was made to forget."""
    return tuple(dict.fromkeys(run.model for run in comparison.study.runs if run.unlearned))


def places(comparison: Comparison, model: str) -> list[Place]:
    """Every method's place on one model, in the tables' order."""
    forgetting, utility = Column(model, FORGETTING), Column(model, UTILITY)
    cells = {
        method: (forgot, kept)
        for method in comparison.methods
        if (forgot := comparison.cell(forgetting, method)) and (kept := comparison.cell(utility, method))
    }

    def behind(method: str, other: str) -> bool:
        pairs = list(zip(cells[method], cells[other], strict=True))
        no_worse = all(theirs.score.mean >= mine.score.mean for mine, theirs in pairs)
        return no_worse and any((mine.column, method, other) in comparison.apart for mine, _ in pairs)

    return [
        Place(
            method,
            *mine,
            runs=tuple(r for r in comparison.study.runs if (r.method, r.model) == (method, model)),
            behind=tuple(other for other in cells if other != method and behind(method, other)),
        )
        for method, mine in cells.items()
    ]


def front_grid(comparison: Comparison) -> Grid:
    """Methods with their place, the original and the retain model greyed beside them; no rows without unlearning."""
    header = ("method", "forgetting", "utility", "of the original's", "within budget", "supported", "front")
    rows: list[tuple[Text, ...]] = []
    for model in models(comparison):
        where = f" ({model})" if len(models(comparison)) > 1 else ""
        rows += [_row(comparison, place, where) for place in places(comparison, model)]
        for name, (forgetting, utility) in references(comparison, model).items():
            figures = (name + where, percent(forgetting), percent(utility), *[NOTHING] * 4)
            rows.append(tuple(Text(each, grey=True) for each in figures))
    return Grid("Forgetting against utility, %", header, tuple(rows))


def _row(comparison: Comparison, place: Place, where: str) -> tuple[Text, ...]:
    runs = len(place.runs)
    return (
        Text(row_name(comparison, place.method) + where),
        score_text(comparison, place.forgetting),
        score_text(comparison, place.utility),
        Text(percent(place.kept)),
        Text(f"{place.within_budget} of {runs}"),
        Text(f"{place.supported} of {runs}"),
        Text(f"behind {', '.join(place.behind)}" if place.behind else "on it", bold=not place.behind),
    )


def references(comparison: Comparison, model: str) -> Mapping[str, tuple[float, float]]:
    """Forgetting and utility of the original and, where there is one, the retain model, as the first run has them.

    The others started from the same model and met the same requests.
    """
    return next(run.unlearned.references for run in comparison.study.runs if run.unlearned and run.model == model)
