"""The report as one HTML file: the values of rlx/templates/report.html; no scripts and no external files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from rlx.compare.load.results import Condition, RunResult, condition_name
from rlx.compare.report.cells import Grid, Text, benchmark_name, column_name, row_name
from rlx.compare.report.conditions import condition_grids
from rlx.compare.report.curves import AXES, BY_STEP, EVERY_AXIS, Line, learning_line
from rlx.compare.report.pareto import models, pareto_grid, pareto_points, references
from rlx.compare.report.pareto_chart import Marker, pareto_chart
from rlx.compare.report.svg import COLOURS, heat_map, interval_chart, line_chart
from rlx.compare.report.tables import cautions, flips_grid, pairs_grids, question, scores_grid
from rlx.compare.report.text import all_conclusions, full_caption
from rlx.compare.statistics.comparison import MEAN_OVER_CONDITIONS, Column, Comparison
from rlx.specs.study import numeric
from rlx.templates import render

MOST_LINES = 8
"""Methods that a chart shows: the baseline and the best others; a table shows all."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled chart of the page.

    Example:
        ``Chart("reward", Markup("<svg>...</svg>"))``
    """

    title: str
    svg: Markup
    wide: bool = False
    """Whether the chart takes the whole width of the page."""


@dataclass(frozen=True, slots=True)
class Panels:
    """Small multiples: one chart per condition with the same axes.

    Example:
        ``Panels("training reward", [Chart("optim.lr=1e-4", Markup("<svg>...</svg>"))])``
    """

    title: str
    charts: list[Chart]


@dataclass(frozen=True, slots=True)
class Training:
    """The learning curves of one model; ``model`` is empty if the study has one model only."""

    model: str
    charts: list[Chart]
    panels: list[Panels]
    """The curves by condition, in place of ``charts`` in a study with conditions."""


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A method's name, and the CSS classes of its line."""

    name: str
    line_class: str


@dataclass(frozen=True, slots=True)
class Legend:
    """The methods that charts show, and the number of methods that they leave out."""

    entries: list[LegendEntry]
    left_out: int


def page(comparison: Comparison) -> str:
    """The complete HTML file."""
    study = comparison.study
    runs = tuple((Text(run.run_id), Text(run.method), Text(str(run.seed)), Text(run.model)) for run in study.runs)
    return render(
        "report.html",
        title=study.name,
        cautions=cautions(comparison),
        question=question(comparison),
        conclusions=all_conclusions(comparison),
        scores=scores_grid(comparison),
        caption=full_caption(comparison),
        legend=_legend(comparison),
        pareto=pareto_grid(comparison),
        pareto_charts=[_pareto(comparison, model) for model in models(comparison)],
        condition_grids=condition_grids(comparison),
        condition_charts=list(_scores_by_condition(comparison)),
        pairs=pairs_grids(comparison),
        difference_charts=list(_differences(comparison)),
        trainings=list(_trainings(comparison)),
        pass_charts=list(_pass_curves(comparison)),
        heat_maps=list(_heat_maps(comparison)),
        unit=study.unit[:-1],
        flips=flips_grid(comparison),
        protocol=sorted(study.runs[0].protocol.items()),
        runs=Grid("Runs", ("run", "method", "seed", "model"), runs),
    )


def _pareto(comparison: Comparison, model: str) -> Chart:
    """The methods of one model between forgetting and utility, with the curve of each seed's checkpoints."""
    shown = _shown_methods(comparison)
    points = [point for point in pareto_points(comparison, model) if point.method in shown]
    markers = [
        Marker(row_name(comparison, p.method), _colour(comparison, p.method), p.forgetting.score, p.utility.score)
        for p in points
    ]
    curves = [
        (marker.colour, run.unlearned.curve)
        for point, marker in zip(points, markers, strict=True)
        for run in point.runs
        if run.unlearned
    ]
    lines = {name: [point] for name, point in references(comparison, model).items()}
    return Chart(model, Markup(pareto_chart(markers, curves, lines)), wide=True)


def _differences(comparison: Comparison) -> Iterator[Chart]:
    for column in comparison.columns:
        rows = [
            (
                row_name(comparison, p.method),
                p.difference,
                _colour(comparison, p.method),
                p.p_holm < comparison.study.alpha,
            )
            for p in comparison.pairs
            if p.column == column
        ]
        if rows:
            across = f"points more than {row_name(comparison, comparison.study.baseline)}"
            yield Chart(column_name(comparison, column), Markup(interval_chart(rows, across)))


def _trainings(comparison: Comparison) -> Iterator[Training]:
    names = tuple(dict.fromkeys(column.model for column in comparison.columns))
    several = bool(comparison.study.conditions)
    keys = [(key, title, axis) for key, title in EVERY_AXIS for axis in AXES if axis == "steps" or not several]
    keys += [(key, title, "steps") for key, title in BY_STEP]
    for model in names:
        runs_of: dict[tuple[str, str], list[RunResult]] = {}
        for run in comparison.study.runs:
            if run.model == model:
                runs_of.setdefault((run.method, run.condition), []).append(run)
        if several:
            panels = [panel for key, title, _ in keys for panel in _panels(comparison, runs_of, key, title)]
            charts = []
        else:
            panels = []
            charts = [
                Chart(title, Markup(line_chart(lines, axis, title)))
                for key, title, axis in keys
                if (lines := _lines(comparison, runs_of, key, axis, ""))
            ]
        if charts or panels:
            yield Training(model if len(names) > 1 else "", charts, panels)


def _lines(
    comparison: Comparison, runs_of: Mapping[tuple[str, str], Sequence[RunResult]], key: str, axis: str, condition: str
) -> list[Line]:
    """The learning curves of one metric under one condition; none if no run has it.

    Args:
        comparison: the report's content.
        runs_of: the runs of one model by method and condition.
        key: the metric.
        axis: a name of ``AXES``.
        condition: name of the condition; empty for a study without conditions.
    """
    lines = (
        learning_line(runs, key, axis, _colour(comparison, method))
        for method in _shown_methods(comparison)
        if (runs := runs_of.get((method, condition)))
    )
    return [line for line in lines if line is not None]


def _panels(
    comparison: Comparison, runs_of: Mapping[tuple[str, str], Sequence[RunResult]], key: str, title: str
) -> Iterator[Panels]:
    """The learning curves of one metric, one chart per condition with shared axes."""
    names = [condition.name for condition in comparison.study.conditions]
    by_condition = {name: _lines(comparison, runs_of, key, "steps", name) for name in names}
    shared = [line for lines in by_condition.values() for line in lines]
    charts = [
        Chart(name, Markup(line_chart(lines, "steps", title, shared=shared)))
        for name, lines in by_condition.items()
        if lines
    ]
    if charts:
        yield Panels(title, charts)


def _scores_by_condition(comparison: Comparison) -> Iterator[Chart]:
    """The final score against each condition axis of numbers, for each combination of the other axes."""
    study = comparison.study
    for (model, benchmark), (position, axis) in itertools.product(
        dict.fromkeys((column.model, column.benchmark) for column in comparison.columns),
        enumerate(study.condition_axes),
    ):
        numbers = [value for text in axis.values if (value := numeric(text)) is not None and value > 0]
        if len(numbers) < max(2, len(axis.values)):
            continue
        other_axes = study.condition_axes[:position] + study.condition_axes[position + 1 :]
        panels: dict[str, list[Condition]] = {}
        for condition in study.conditions:
            others = condition.values[:position] + condition.values[position + 1 :]
            panels.setdefault(condition_name(other_axes, others), []).append(condition)
        for fixed, conditions in panels.items():
            lines = _score_lines(comparison, [Column(model, benchmark, c.name) for c in conditions], numbers)
            name = benchmark_name(comparison, Column(model, benchmark))
            title = ", ".join(filter(None, (f"{name}, %", fixed)))
            yield Chart(title, Markup(line_chart(lines, axis.key, title, log_x=True)))


def _score_lines(comparison: Comparison, columns: Sequence[Column], numbers: Sequence[float]) -> list[Line]:
    """The score of every shown method on these columns, with its interval as the band."""
    lines = []
    for method in _shown_methods(comparison):
        cells = [(x, cell) for x, c in zip(numbers, columns, strict=True) if (cell := comparison.cell(c, method))]
        if cells:
            x, *values = np.array([(x, cell.score.mean, cell.score.low, cell.score.high) for x, cell in cells]).T
            middle, low, high = (100 * value for value in values)
            lines.append(Line(method, _colour(comparison, method), x, middle, low, high))
    return lines


def _pass_curves(comparison: Comparison) -> Iterator[Chart]:
    for column in comparison.columns:
        lines = []
        for method in _shown_methods(comparison):
            cell = comparison.cell(column, method)
            if cell is not None and cell.samples > 1:
                x, y = (np.array(list(values), dtype=float) for values in (cell.pass_at, cell.pass_at.values()))
                lines.append(Line(method, _colour(comparison, method), x, 100 * y, 100 * y, 100 * y))
        if lines:
            title = f"pass@k on {column_name(comparison, column)}, %"
            yield Chart(title, Markup(line_chart(lines, "k (samples)", title, log_x=True)))


def _heat_maps(comparison: Comparison) -> Iterator[Chart]:
    for column in comparison.columns:
        methods = _shown_methods(comparison)
        cells = [cell for method in methods if (cell := comparison.cell(column, method)) is not None]
        if any(cell.linearised for cell in cells):
            continue
        names = [row_name(comparison, cell.method) for cell in cells]
        svg = heat_map(names, np.stack([cell.by_problem for cell in cells]), comparison.problem_ids[column])
        yield Chart(column_name(comparison, column), Markup(svg), wide=True)


def _shown_methods(comparison: Comparison) -> tuple[str, ...]:
    """The methods that charts show, in the tables' order."""
    if len(comparison.methods) <= MOST_LINES:
        return comparison.methods
    means = [column for column in comparison.columns if column.condition == MEAN_OVER_CONDITIONS]
    first = (means or list(comparison.columns))[0]
    scored = [(cell.score.mean, m) for m in comparison.methods[1:] if (cell := comparison.cell(first, m)) is not None]
    best = {method for _, method in sorted(scored, reverse=True)[: MOST_LINES - 1]}
    return tuple(method for method in comparison.methods if method in best or method == comparison.methods[0])


def _colour(comparison: Comparison, method: str) -> int:
    return comparison.methods.index(method)


def _legend(comparison: Comparison) -> Legend:
    shown = _shown_methods(comparison)
    entries = []
    for method in shown:
        number = _colour(comparison, method)
        line_class = f"line c{number % COLOURS} d{number // COLOURS % 3}"
        entries.append(LegendEntry(row_name(comparison, method), line_class))
    return Legend(entries, len(comparison.methods) - len(shown))
