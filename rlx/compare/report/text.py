"""Renderings without pictures: terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text as RichText

from rlx.compare.report.pareto import front_grid, models, places
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
from rlx.compare.statistics.comparison import Comparison

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\u00b1": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def terminal(comparison: Comparison) -> RenderableType:
    """Cautions in red, the scores, the differences, one sentence a pair, the caption."""
    parts: list[RenderableType] = [RichText(said, style="bold red") for said in cautions(comparison)]
    parts += [RichText(question(comparison), style="bold"), RichText()]
    for grid in _grids(comparison):
        parts += [_rich_table(grid), RichText()]
    parts += [RichText(f"- {said}") for said in conclusions(comparison)]
    parts += [RichText(), RichText(caption(comparison), style="dim")]
    return Group(*parts)


def _grids(comparison: Comparison) -> list[Grid]:
    every = (scores_grid(comparison), front_grid(comparison), pairs_grid(comparison))
    return [grid for grid in every if grid.rows]


def _rich_table(grid: Grid) -> Table:
    made = Table(title=grid.title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(grid.header):
        made.add_column(RichText(name, style="bold"), justify="right" if index else "left", overflow="fold")
    for row in grid.rows:
        made.add_row(*(RichText(cell.text, style="bold" if cell.bold else "dim" if cell.grey else "") for cell in row))
    return made


def markdown(comparison: Comparison) -> str:
    """A page of Markdown."""
    parts = [f"# {comparison.study.name}", *(f"**{said}**" for said in cautions(comparison)), question(comparison)]
    for grid in _grids(comparison):
        parts += [f"## {grid.title}", _pipes(grid)]
    parts += ["\n".join(f"- {said}" for said in conclusions(comparison)), f"<sub>{caption(comparison)}</sub>"]
    flips = flips_grid(comparison)
    if flips.rows:
        parts += [f"## {flips.title}", _pipes(flips)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _pipes(grid: Grid) -> str:
    def shown(cell: Text) -> str:
        text = cell.text.replace("|", r"\|")
        return f"**{text}**" if cell.bold else f"<sub>{text}</sub>" if cell.grey and text != "-" else text

    lines = [grid.header, ("---", *["---:"] * (len(grid.header) - 1)), *(tuple(map(shown, row)) for row in grid.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex(comparison: Comparison) -> str:
    """Booktabs tables to be read in by a paper; needs the packages booktabs and xcolor."""
    said = [f"\\textcolor{{red}}{{{_tex(text)}}}" for text in cautions(comparison)]
    label = "".join(mark if mark.isalnum() else "-" for mark in comparison.study.name)
    tables = []
    for grid in _grids(comparison):
        legend = " ".join([_tex(grid.title + "."), *said, _tex(question(comparison)), _tex(caption(comparison))])
        name = "".join(mark for mark in grid.title.lower().partition(",")[0] if mark.isalnum() or mark == " ")
        tables.append(_booktabs(grid, legend, f"tab:{label}-{name.split()[-1]}"))
    return "% needs \\usepackage{booktabs,xcolor}\n" + "\n".join(tables)


def _booktabs(grid: Grid, legend: str, label: str) -> str:
    def shown(cell: Text) -> str:
        text = _tex(cell.text)
        return f"\\textbf{{{text}}}" if cell.bold else f"\\textcolor{{gray}}{{{text}}}" if cell.grey else text

    lines = [
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        f"  \\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
        r"    \toprule",
        "    " + " & ".join(map(_tex, grid.header)) + r" \\",
        r"    \midrule",
        *("    " + " & ".join(map(shown, row)) + r" \\" for row in grid.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        f"  \\caption{{{legend}}}",
        f"  \\label{{{label}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(mark, mark) for mark in text)


def tidy_csv(comparison: Comparison) -> str:
    """One line a figure: kind, model, benchmark, method, seed, name, value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("kind", "model", "benchmark", "method", "seed", "name", "value"))
    writer.writerows(("caution", "", "", "", "", said, "") for said in cautions(comparison))
    for cell in comparison.cells:
        place = (cell.column.model, cell.column.benchmark, cell.method)
        figures = {"mean": cell.score.mean, "low": cell.score.low, "high": cell.score.high, "best": float(cell.best)}
        figures |= {f"pass@{k}": value for k, value in cell.pass_at.items()}
        writer.writerows(("score", *place, "", name, _number(value)) for name, value in figures.items())
        for seed, value in zip(cell.seeds, cell.by_seed, strict=True):
            writer.writerow(("score", *place, seed, "mean", _number(value)))
        names = comparison.problem_ids[cell.column]
        for problem, value in zip(names, cell.by_problem.tolist(), strict=True):
            writer.writerow(("problem", *place, "", problem, _number(value)))
    for pair in comparison.pairs:
        place = (pair.column.model, pair.column.benchmark, pair.method)
        figures = {
            "difference": pair.difference.mean,
            "low": pair.difference.low,
            "high": pair.difference.high,
            "bootstrap_low": pair.bootstrap.low,
            "bootstrap_high": pair.bootstrap.high,
            "p": pair.p,
            "p_holm": pair.p_holm,
            "detectable": pair.detectable,
        }
        figures |= {} if pair.p_welch is None else {"p_welch": pair.p_welch}
        figures |= dict(zip(("wins", "losses", "ties"), pair.won, strict=True)) if pair.won else {}
        writer.writerows((f"against {pair.baseline}", *place, "", name, _number(v)) for name, v in figures.items())
    for model in models(comparison):
        for found in places(comparison, model):
            figures = {"kept": found.kept, "within_budget": found.within_budget, "supported": found.supported}
            figures |= {"runs": len(found.runs), "on_front": not found.behind}
            writer.writerows(("front", model, "", found.method, "", name, _number(v)) for name, v in figures.items())
    for each in comparison.study.published:
        writer.writerow(("published", "", each.benchmark, each.method, "", each.source, _number(each.value)))
    return out.getvalue()


def full_json(comparison: Comparison) -> str:
    """Everything: the words, the runs with their protocols, every cell and pair; what is not finite is null."""
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
            model: {place.method: {"behind": place.behind, "kept": place.kept} for place in places(comparison, model)}
            for model in models(comparison)
        },
        "published": [_plain(each) for each in study.published],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    """Frozen data as JSON knows it, floats to 10 digits so that files don't change with the machine's rounding."""
    if isinstance(value, float):
        return float(_number(value)) if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def _number(value: float) -> str:
    return f"{value:.10g}"


Renderer = Callable[[Comparison], str]
FILES: dict[str, Renderer] = {
    "report.md": markdown,
    "report.tex": latex,
    "report.csv": tidy_csv,
    "report.json": full_json,
}
"""The files of a report that are plain text, by name."""
