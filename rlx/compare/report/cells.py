"""The cells of a report's tables, and how names, scores, differences and p-values are written."""

from __future__ import annotations

from dataclasses import dataclass

from rlx.compare.statistics.comparison import MEAN_OVER_CONDITIONS, SEEDS_FOR_METHODS, Cell, Column, Comparison
from rlx.compare.statistics.significance import Interval

PLUS_MINUS = "\u00b1"
EMPTY = "-"


@dataclass(frozen=True, slots=True)
class Text:
    """One cell of a table.

    Example:
        ``Text("41.2 \u00b1 3.1", bold=True)``
    """

    text: str
    bold: bool = False
    grey: bool = False
    """Whether the value is shown for reference and not tested."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text; the first column is left-aligned, the others are right-aligned."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]


def row_name(comparison: Comparison, method: str) -> str:
    """The method's name, with its seeds if there are too few to compare methods."""
    seeds = sorted({cell.seeds for cell in comparison.cells if cell.method == method}, key=len)
    if not seeds or len(seeds[0]) >= SEEDS_FOR_METHODS:
        return method
    return f"{method} (seed {seeds[0][0]})" if len(seeds[0]) == 1 else f"{method} ({len(seeds[0])} seeds)"


def column_name(comparison: Comparison, column: Column) -> str:
    """The benchmark, with the model if there are several and with the condition if there is one."""
    name = benchmark_name(comparison, column)
    if column.condition == MEAN_OVER_CONDITIONS:
        return f"{name}, {column.condition}"
    return f"{name} at {column.condition}" if column.condition else name


def benchmark_name(comparison: Comparison, column: Column) -> str:
    """The benchmark, with the model if there are several."""
    several = len({other.model for other in comparison.columns}) > 1
    return f"{column.model} {column.benchmark}" if several else column.benchmark


def score_text(comparison: Comparison, cell: Cell | None) -> Text:
    """A score with half the width of its interval; bold if it is among the best of several methods."""
    if cell is None:
        return Text(EMPTY)
    return Text(_with_half_width(cell.score), bold=cell.best and len(comparison.methods) > 1)


def percent(value: float) -> str:
    """A fraction in per cent, one decimal."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with a sign, which is + for zero."""
    text = f"{100 * value:+.1f}"
    return "+0.0" if text == "-0.0" else text


def p_text(p: float) -> str:
    """A p-value with three decimals, or ``< .001``."""
    return "< .001" if p < 0.001 else f"{p:.3f}".replace("0.", ".", 1)


def p_clause(p: float) -> str:
    """A p-value with its name: ``p = .031`` or ``p < .001``."""
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def _with_half_width(score: Interval) -> str:
    return f"{percent(score.mean)} {PLUS_MINUS} {percent(score.half_width)}"


def level(comparison: Comparison) -> str:
    """The coverage of intervals, in per cent."""
    return f"{100 * (1 - comparison.study.alpha):g} %"


def plural(number: int, name: str) -> str:
    """A number with a noun."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
