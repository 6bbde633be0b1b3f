"""Report formats without charts: terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text as RichText

from rlx.compare.report.cells import Grid, Text
from rlx.compare.report.conditions import condition_grids, definitions, summary_conclusions, summary_values
from rlx.compare.report.pareto import models, pareto_grid, pareto_points
from rlx.compare.report.tables import (
    caption,
    cautions,
    conclusions,
    flips_grid,
    pairs_grids,
    question,
    scores_grid,
)
from rlx.compare.statistics.comparison import Column, Comparison, Pair
from rlx.inert import csv_cell, latex_text, markdown_text, visible


def terminal(comparison: Comparison) -> RenderableType:
    """Warnings in red, the scores, the differences, one sentence per pair, and the caption."""
    parts: list[RenderableType] = [RichText(visible(text), style="bold red") for text in cautions(comparison)]
    parts += [RichText(visible(question(comparison)), style="bold"), RichText()]
    for grid in _grids(comparison):
        parts += [_rich_table(grid), RichText()]
    parts += [RichText(visible(f"- {text}")) for text in all_conclusions(comparison)]
    parts += [RichText(), RichText(visible(full_caption(comparison)), style="dim")]
    return Group(*parts)


def _grids(comparison: Comparison) -> list[Grid]:
    """The tables that have rows."""
    grids = (
        *(scores_grid(comparison), *condition_grids(comparison)),
        *(pareto_grid(comparison), *pairs_grids(comparison)),
    )
    return [grid for grid in grids if grid.rows]


def all_conclusions(comparison: Comparison) -> tuple[str, ...]:
    """The sentences about differences in score, in area and in the number of collapsed runs."""
    return (*conclusions(comparison), *summary_conclusions(comparison))


def full_caption(comparison: Comparison) -> str:
    """The caption with the definitions of the tables across conditions, if there are any."""
    return " ".join(filter(None, (caption(comparison), definitions(comparison))))


def _rich_table(grid: Grid) -> Table:
    table = Table(
        title=RichText(visible(grid.title), style="table.title"),
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, name in enumerate(grid.header):
        table.add_column(RichText(visible(name), style="bold"), justify="right" if index else "left", overflow="fold")
    for row in grid.rows:
        styles = ["bold" if cell.bold else "dim" if cell.grey else "" for cell in row]
        table.add_row(*(RichText(visible(cell.text), style=style) for cell, style in zip(row, styles, strict=True)))
    return table


def markdown(comparison: Comparison) -> str:
    """The report in Markdown."""
    parts = [f"# {markdown_text(comparison.study.name)}"]
    parts += [f"**{markdown_text(text)}**" for text in cautions(comparison)]
    parts.append(markdown_text(question(comparison)))
    for grid in _grids(comparison):
        parts += [f"## {markdown_text(grid.title)}", _markdown_table(grid)]
    parts.append("\n".join(f"- {markdown_text(text)}" for text in all_conclusions(comparison)))
    parts.append(f"<sub>{markdown_text(full_caption(comparison))}</sub>")
    flips = flips_grid(comparison)
    if flips.rows:
        parts += [f"## {markdown_text(flips.title)}", _markdown_table(flips)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(grid: Grid) -> str:
    def format_cell(cell: Text) -> str:
        text = markdown_text(cell.text)
        return f"**{text}**" if cell.bold else f"<sub>{text}</sub>" if cell.grey and text != "-" else text

    lines = [
        tuple(map(markdown_text, grid.header)),
        ("---", *["---:"] * (len(grid.header) - 1)),
        *(tuple(map(format_cell, row)) for row in grid.rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex(comparison: Comparison) -> str:
    """Tables to be included in a LaTeX document; they need the packages booktabs and xcolor."""
    warnings = [f"\\textcolor{{red}}{{{latex_text(text)}}}" for text in cautions(comparison)]
    label = "".join(char if char.isalnum() else "-" for char in comparison.study.name)
    tables: list[str] = []
    names: list[str] = []
    for grid in _grids(comparison):
        title, *rest = map(latex_text, (grid.title + ".", question(comparison), full_caption(comparison)))
        legend = " ".join([title, *warnings, *rest])
        name = "".join(char for char in grid.title.lower().partition(",")[0] if char.isalnum() or char == " ")
        names.append(name.split()[-1])
        number = f"-{names.count(names[-1])}" if names.count(names[-1]) > 1 else ""
        tables.append(_booktabs(grid, legend, f"tab:{label}-{names[-1]}{number}"))
    return "% needs \\usepackage{booktabs,xcolor}\n" + "\n".join(tables)


def _booktabs(grid: Grid, legend: str, label: str) -> str:
    def format_cell(cell: Text) -> str:
        text = latex_text(cell.text)
        return f"\\textbf{{{text}}}" if cell.bold else f"\\textcolor{{gray}}{{{text}}}" if cell.grey else text

    lines = [
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        f"  \\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
        r"    \toprule",
        "    " + " & ".join(map(latex_text, grid.header)) + r" \\",
        r"    \midrule",
        *("    " + " & ".join(map(format_cell, row)) + r" \\" for row in grid.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        f"  \\caption{{{legend}}}",
        f"  \\label{{{label}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def tidy_csv(comparison: Comparison) -> str:
    """One line per value: kind, model, benchmark, method, seed, name, value; with conditions also the condition."""
    out = io.StringIO()
    with_conditions = bool(comparison.study.conditions)
    writer = csv.writer(out, lineterminator="\n")
    names = ("kind", "model", "benchmark", "method", "seed", "name", "value")
    for row, condition in ((names, "condition"), *_csv_rows(comparison)):
        *texts, value = row  # a number may begin with a minus sign
        cells = [csv_cell(cell) if isinstance(cell, str) else cell for cell in texts]
        writer.writerow([*cells, value, csv_cell(condition)] if with_conditions else [*cells, value])
    return out.getvalue()


def _csv_rows(comparison: Comparison) -> Iterator[tuple[tuple[object, ...], str]]:
    """Every row of the CSV file with its condition."""
    for text in cautions(comparison):
        yield ("caution", "", "", "", "", text, ""), ""
    for cell in comparison.cells:
        keys, condition = (cell.column.model, cell.column.benchmark, cell.method), cell.column.condition
        values = {"mean": cell.score.mean, "low": cell.score.low, "high": cell.score.high, "best": float(cell.best)}
        values |= {f"pass@{k}": value for k, value in cell.pass_at.items()}
        for name, value in values.items():
            yield ("score", *keys, "", name, _ten_digits(value)), condition
        for seed, value in zip(cell.seeds, cell.by_seed, strict=True):
            yield ("score", *keys, seed, "mean", _ten_digits(value)), condition
        names = comparison.problem_ids[cell.column]
        for problem, value in zip(names, cell.by_problem.tolist(), strict=True):
            yield ("problem", *keys, "", problem, _ten_digits(value)), condition
    for pair in comparison.pairs:
        keys = (pair.column.model, pair.column.benchmark, pair.method)
        for name, value in _pair_values(pair).items():
            yield (f"against {pair.baseline}", *keys, "", name, _ten_digits(value)), pair.column.condition
    for summary in comparison.summaries:
        for name, value, condition in summary_values(summary):
            yield ("summary", summary.model, "", summary.method, "", name, _ten_digits(value)), condition
    for model in models(comparison):
        for point in pareto_points(comparison, model):
            values = {"kept": point.kept_utility, "within_budget": point.within_budget, "supported": point.supported}
            values |= {"runs": len(point.runs), "on_front": not point.dominated_by}
            for name, value in values.items():
                yield ("front", model, "", point.method, "", name, _ten_digits(value)), ""
    for score in comparison.study.published:
        yield ("published", "", score.benchmark, score.method, "", score.source, _ten_digits(score.value)), ""


def _cells(*texts: str) -> tuple[str, ...]:
    """Names as cells of a CSV file."""
    return tuple(map(csv_cell, texts))


def _pair_values(pair: Pair) -> dict[str, float]:
    values = {
        "difference": pair.difference.mean,
        "low": pair.difference.low,
        "high": pair.difference.high,
        "bootstrap_low": pair.bootstrap.low,
        "bootstrap_high": pair.bootstrap.high,
        "p": pair.p,
        "p_holm": pair.p_holm,
        "detectable": pair.detectable,
    }
    values |= {} if pair.p_welch is None else {"p_welch": pair.p_welch}
    values |= dict(zip(("wins", "losses", "ties"), pair.won, strict=True)) if pair.won else {}
    return values


def full_json(comparison: Comparison) -> str:
    """The whole comparison: sentences, runs with their protocols, cells and pairs; NaN and infinity are null."""
    study = comparison.study
    content = {
        "study": study.name,
        "baseline": study.baseline,
        "alpha": study.alpha,
        "question": question(comparison),
        "conclusions": all_conclusions(comparison),
        "caption": full_caption(comparison),
        "cautions": cautions(comparison),
        "missing": dict(study.missing),
        "mismatched": study.mismatched,
        "runs": [
            {"run_id": r.run_id, "method": r.method, "seed": r.seed, "model": r.model, "protocol": dict(r.protocol)}
            | ({"unlearned": _plain(r.unlearned)} if r.unlearned else {})
            | ({"condition": r.condition, "failed": r.failed} if r.condition else {})
            for r in study.runs
        ],
        "cells": [_plain(cell) for cell in comparison.cells],
        "pairs": [_plain(pair) for pair in comparison.pairs],
        "front": {
            model: {
                point.method: {"behind": point.dominated_by, "kept": point.kept_utility}
                for point in pareto_points(comparison, model)
            }
            for model in models(comparison)
        },
        "published": [_plain(score) for score in study.published],
    }
    if study.conditions:
        content["conditions"] = [condition.name for condition in study.conditions]
        content["unfinished"] = [_plain(run) for run in study.unfinished]
        content["summaries"] = [_plain(summary) for summary in comparison.summaries]
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    """Dataclasses, arrays and tuples as JSON types; floats have 10 digits, so that files are equal on all machines."""
    if isinstance(value, float):
        return float(_ten_digits(value)) if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Column) and not value.condition:
        return {"model": value.model, "benchmark": value.benchmark}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def _ten_digits(value: float) -> str:
    return f"{value:.10g}"


Renderer = Callable[[Comparison], str]
TEXT_RENDERERS: dict[str, Renderer] = {
    "report.md": markdown,
    "report.tex": latex,
    "report.csv": tidy_csv,
    "report.json": full_json,
}
"""The renderer of every plain-text file of a report."""
