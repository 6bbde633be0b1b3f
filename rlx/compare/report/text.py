"""Report formats without charts: terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text as RichText

from rlx.compare.report.pareto import models, pareto_grid, pareto_points
from rlx.compare.report.tables import (
    Grid,
    Text,
    caption,
    cautions,
    conclusions,
    flips_grid,
    pairs_grid,
    question,
    scores_grid,
)
from rlx.compare.statistics.comparison import Comparison, Pair
from rlx.inert import csv_cell, latex_text, markdown_text, visible


def terminal(comparison: Comparison) -> RenderableType:
    """Warnings in red, the scores, the differences, one sentence per pair, and the caption."""
    parts: list[RenderableType] = [RichText(visible(text), style="bold red") for text in cautions(comparison)]
    parts += [RichText(visible(question(comparison)), style="bold"), RichText()]
    for grid in _grids(comparison):
        parts += [_rich_table(grid), RichText()]
    parts += [RichText(visible(f"- {text}")) for text in conclusions(comparison)]
    parts += [RichText(), RichText(visible(caption(comparison)), style="dim")]
    return Group(*parts)


def _grids(comparison: Comparison) -> list[Grid]:
    """The tables that have rows."""
    grids = (scores_grid(comparison), pareto_grid(comparison), pairs_grid(comparison))
    return [grid for grid in grids if grid.rows]


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
    parts.append("\n".join(f"- {markdown_text(text)}" for text in conclusions(comparison)))
    parts.append(f"<sub>{markdown_text(caption(comparison))}</sub>")
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
    tables = []
    for grid in _grids(comparison):
        legend = " ".join(
            [latex_text(grid.title + "."), *warnings, latex_text(question(comparison)), latex_text(caption(comparison))]
        )
        name = "".join(char for char in grid.title.lower().partition(",")[0] if char.isalnum() or char == " ")
        tables.append(_booktabs(grid, legend, f"tab:{label}-{name.split()[-1]}"))
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
    """One line per value: kind, model, benchmark, method, seed, name, value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("kind", "model", "benchmark", "method", "seed", "name", "value"))
    writer.writerows(("caution", "", "", "", "", csv_cell(text), "") for text in cautions(comparison))
    for cell in comparison.cells:
        keys = _cells(cell.column.model, cell.column.benchmark, cell.method)
        values = {"mean": cell.score.mean, "low": cell.score.low, "high": cell.score.high, "best": float(cell.best)}
        values |= {f"pass@{k}": value for k, value in cell.pass_at.items()}
        writer.writerows(("score", *keys, "", name, _ten_digits(value)) for name, value in values.items())
        for seed, value in zip(cell.seeds, cell.by_seed, strict=True):
            writer.writerow(("score", *keys, seed, "mean", _ten_digits(value)))
        names = comparison.problem_ids[cell.column]
        for problem, value in zip(names, cell.by_problem.tolist(), strict=True):
            writer.writerow(("problem", *keys, "", csv_cell(problem), _ten_digits(value)))
    for pair in comparison.pairs:
        keys = _cells(pair.column.model, pair.column.benchmark, pair.method)
        kind = f"against {pair.baseline}"
        writer.writerows((kind, *keys, "", name, _ten_digits(value)) for name, value in _pair_values(pair).items())
    for model in models(comparison):
        for point in pareto_points(comparison, model):
            values = {"kept": point.kept_utility, "within_budget": point.within_budget, "supported": point.supported}
            values |= {"runs": len(point.runs), "on_front": not point.dominated_by}
            keys = _cells(model, "", point.method)
            writer.writerows(("front", *keys, "", name, _ten_digits(v)) for name, v in values.items())
    for score in comparison.study.published:
        keys = _cells("", score.benchmark, score.method)
        writer.writerow(("published", *keys, "", csv_cell(score.source), _ten_digits(score.value)))
    return out.getvalue()


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
        "conclusions": conclusions(comparison),
        "caption": caption(comparison),
        "cautions": cautions(comparison),
        "missing": dict(study.missing),
        "mismatched": study.mismatched,
        "runs": [
            {"run_id": r.run_id, "method": r.method, "seed": r.seed, "model": r.model, "protocol": dict(r.protocol)}
            | ({"unlearned": _plain(r.unlearned)} if r.unlearned else {})
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
