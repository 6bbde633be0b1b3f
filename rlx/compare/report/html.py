"""The report as one HTML file: the values of rlx/templates/report.html; no scripts and no external files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from rlx.compare.report.curves import AXES, BY_STEP, EVERY_AXIS, Line, learning_line
from rlx.compare.report.pareto import models, pareto_grid, pareto_points, references
from rlx.compare.report.pareto_chart import Marker, pareto_chart
from rlx.compare.report.svg import COLOURS, heat_map, interval_chart, line_chart
from rlx.compare.report.tables import (
    Grid,
    Text,
    caption,
    cautions,
    column_name,
    conclusions,
    flips_grid,
    pairs_grid,
    question,
    row_name,
    scores_grid,
)
from rlx.compare.statistics.comparison import Comparison
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
class Training:
    """The learning curves of one model; ``model`` is empty if the study has one model only."""

    model: str
    charts: list[Chart]


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
        conclusions=conclusions(comparison),
        scores=scores_grid(comparison),
        caption=caption(comparison),
        legend=_legend(comparison),
        pareto=pareto_grid(comparison),
        pareto_charts=[_pareto(comparison, model) for model in models(comparison)],
        pairs=pairs_grid(comparison),
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
    keys = [(key, title, axis) for key, title in EVERY_AXIS for axis in AXES]
    keys += [(key, title, "steps") for key, title in BY_STEP]
    for model in names:
        charts = [chart for key, title, axis in keys for chart in _learning(comparison, model, key, title, axis)]
        if charts:
            yield Training(model if len(names) > 1 else "", charts)


def _learning(comparison: Comparison, model: str, key: str, title: str, axis: str) -> Iterator[Chart]:
    """The learning curves of one metric; no chart if no run has it."""
    lines = []
    for method in _shown_methods(comparison):
        runs = [run for run in comparison.study.runs if (run.method, run.model) == (method, model)]
        line = learning_line(runs, key, axis, _colour(comparison, method)) if runs else None
        if line is not None:
            lines.append(line)
    if lines:
        yield Chart(title, Markup(line_chart(lines, axis, title)))


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
    first = comparison.columns[0]
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
