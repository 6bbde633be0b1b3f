"""The report as one HTML file: nothing is fetched, no JavaScript, light and dark, wide and narrow."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from rlx.compare.report.curves import AXES, BY_STEP, EVERY_AXIS, Line, learning_line
from rlx.compare.report.pareto import front_grid, models, places, references
from rlx.compare.report.pareto_chart import Mark, front_chart
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

MOST_LINES = 8
"""Methods that a chart shows: the baseline and the best others; a table shows all."""
LIGHT = ("#2563a8", "#c2410c", "#15803d", "#9d3b8f", "#8a6a00", "#0e7c86", "#b3203f", "#5b5bd6")
DARK = ("#7cb2ee", "#f59a62", "#6cc98a", "#dd92d3", "#d9b84a", "#5fc7d0", "#f28aa0", "#a5a5f5")
STYLE = """
:root{color-scheme:light dark;--paper:#fcfcfb;--ink:#1c1c1a;--soft:#62625c;--rule:#dcdcd6;--card:#f3f3f0;--warn:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#161614;--ink:#ebebe6;--soft:#a3a39b;--rule:#3a3a36;--card:#20201d;
--warn:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:1.5rem clamp(.9rem,3vw,2.5rem) 4rem;background:var(--paper);
color:var(--ink);font:16px/1.55 system-ui,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.2em 0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2.4rem 0 .6rem}
h3{font-size:.9rem;font-weight:600;margin:0 0 .3rem}p{max-width:75ch}
.lead{font-size:1.05rem}.soft,.note{color:var(--soft)}.note{font-size:.85rem}
.warn{color:var(--warn);font-weight:700;border-left:4px solid var(--warn);padding-left:.7rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .55rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{text-align:left;padding-left:0}th{font-weight:600;color:var(--soft)}
td.grey{color:var(--soft);opacity:.75}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));gap:1rem}
figure{margin:0;background:var(--card);border-radius:8px;padding:.8rem}svg{width:100%;height:auto;display:block}
.wide{grid-column:1/-1}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;list-style:none;padding:0;margin:.4rem 0 .8rem;font-size:.9rem}
.legend svg{width:28px;height:12px;display:inline-block;vertical-align:middle;margin-right:.4rem}
text{fill:var(--soft);font:11px system-ui,sans-serif}text.name{fill:var(--ink);font-size:12px;paint-order:stroke;
stroke:var(--card);stroke-width:4px}.wide text{font-size:11px}
.grid{stroke:var(--rule);stroke-width:1}.nought{stroke:var(--ink);stroke-width:1.2}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}.band{fill:currentColor;opacity:.16}
.whisker{stroke:currentColor;stroke-width:2.5}.dot{fill:currentColor}
.hollow{fill:var(--card);stroke:currentColor;stroke-width:2.5}
.d1{stroke-dasharray:6 4}.d2{stroke-dasharray:2 3}
.empty{fill:none;stroke:var(--rule)}.heat{fill:var(--heat)}
.way{fill:none;stroke:currentColor;stroke-width:1;opacity:.35}.reference{fill:none;stroke:var(--soft);stroke-width:2}
"""


def page(comparison: Comparison) -> str:
    """The whole file."""
    study = comparison.study
    name = html.escape(study.name)
    warnings = [f'<p class="warn">{html.escape(said)}</p>' for said in cautions(comparison)]
    said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in conclusions(comparison))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{name}</title><style>{_style()}</style></head><body>",
        f'<p class="note">rlx compare</p><h1>{name}</h1>',
        *warnings,
        f'<p class="lead">{html.escape(question(comparison))}</p><ul>{said}</ul>',
        _table(scores_grid(comparison)),
        f'<p class="note">{html.escape(caption(comparison))}</p>',
        _fronts(comparison),
        _differences(comparison),
        _curves(comparison),
        _pass_curves(comparison),
        _heat_maps(comparison),
        _table(flips_grid(comparison)),
        _runs(comparison),
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _style() -> str:
    def rules(colours: Sequence[str]) -> str:
        return "".join(f".c{i}{{color:{colour}}}" for i, colour in enumerate(colours))

    dark = f"@media(prefers-color-scheme:dark){{:root{{--heat:{DARK[0]}}}{rules(DARK)}}}"
    return f"{STYLE}:root{{--heat:{LIGHT[0]}}}{rules(LIGHT)}{dark}"


def _table(grid: Grid) -> str:
    if not grid.rows:
        return ""

    def shown(cell: Text) -> str:
        text = html.escape(cell.text)
        return f'<td class="grey">{text}</td>' if cell.grey else f"<td>{f'<b>{text}</b>' if cell.bold else text}</td>"

    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in grid.header)
    rows = "".join(f"<tr>{''.join(map(shown, row))}</tr>" for row in grid.rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h2>{html.escape(grid.title)}</h2><div class="scroll">{table}</div>'


def _fronts(comparison: Comparison) -> str:
    """Every model's methods between forgetting and utility, with the way of each seed's checkpoints there."""
    charts = []
    for model in models(comparison):
        found = [place for place in places(comparison, model) if place.method in _drawn(comparison)]
        marks = [
            Mark(row_name(comparison, p.method), _colour(comparison, p.method), p.forgetting.score, p.utility.score)
            for p in found
        ]
        unlearned = [(mark.colour, run.unlearned) for p, mark in zip(found, marks, strict=True) for run in p.runs]
        ways = [(colour, each.curve) for colour, each in unlearned if each]
        known = {name: [point] for name, point in references(comparison, model).items()}
        picture = front_chart(marks, ways, known)
        charts.append(f'<figure class="wide"><h3>{html.escape(model)}</h3>{picture}</figure>')
    if not charts:
        return ""
    note = (
        "Crosses: intervals over seeds and authors, final half. Faint: each seed's checkpoints, from the original on, "
        "on the validation half."
    )
    table = f'{_table(front_grid(comparison))}{_legend(comparison)}<div class="charts">{"".join(charts)}</div>'
    return f'{table}<p class="note">{note}</p>'


def _differences(comparison: Comparison) -> str:
    if not comparison.pairs:
        return ""
    charts = []
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
            charts.append(_figure(column_name(comparison, column), interval_chart(rows, across)))
    note = "Filled: declared after Holm's correction. Hollow: not distinguishable. Intervals are not corrected."
    return f'{_table(pairs_grid(comparison))}<div class="charts">{"".join(charts)}</div><p class="note">{note}</p>'


def _curves(comparison: Comparison) -> str:
    models = tuple(dict.fromkeys(column.model for column in comparison.columns))
    parts = []
    for model in models:
        charts = [
            chart
            for key, title in EVERY_AXIS
            for axis in AXES
            if (chart := _learning(comparison, model, key, title, axis))
        ]
        charts += [chart for key, title in BY_STEP if (chart := _learning(comparison, model, key, title, "steps"))]
        if charts:
            where = f", {html.escape(model)}" if len(models) > 1 else ""
            note = "Line: mean over training seeds. Band: lowest to highest seed. Minutes depend on what else ran."
            parts.append(f"<h2>Training{where}</h2>{_legend(comparison)}")
            parts.append(f'<div class="charts">{"".join(charts)}</div><p class="note">{note}</p>')
    return "".join(parts)


def _learning(comparison: Comparison, model: str, key: str, title: str, axis: str) -> str:
    lines = []
    for method in _drawn(comparison):
        runs = [run for run in comparison.study.runs if (run.method, run.model) == (method, model)]
        line = learning_line(runs, key, axis, _colour(comparison, method)) if runs else None
        if line is not None:
            lines.append(line)
    return _figure(title, line_chart(lines, axis, title)) if lines else ""


def _pass_curves(comparison: Comparison) -> str:
    charts = []
    for column in comparison.columns:
        lines = []
        for method in _drawn(comparison):
            cell = comparison.cell(column, method)
            if cell is not None and cell.samples > 1:
                x, y = (np.array(list(values), dtype=float) for values in (cell.pass_at, cell.pass_at.values()))
                lines.append(Line(method, _colour(comparison, method), x, 100 * y, 100 * y, 100 * y))
        if lines:
            title = f"pass@k on {column_name(comparison, column)}, %"
            charts.append(_figure(title, line_chart(lines, "k (samples)", title, log_x=True)))
    if not charts:
        return ""
    return f'<h2>pass@k</h2>{_legend(comparison)}<div class="charts">{"".join(charts)}</div>'


def _heat_maps(comparison: Comparison) -> str:
    charts = []
    for column in comparison.columns:
        cells = [cell for method in _drawn(comparison) if (cell := comparison.cell(column, method)) is not None]
        if any(cell.linearised for cell in cells):
            continue
        names = [row_name(comparison, cell.method) for cell in cells]
        picture = heat_map(names, np.stack([cell.by_problem for cell in cells]), comparison.problem_ids[column])
        charts.append(f'<figure class="wide"><h3>{html.escape(column_name(comparison, column))}</h3>{picture}</figure>')
    unit = comparison.study.unit[:-1]
    return f'<h2>{unit.capitalize()} by {unit}</h2><div class="charts">{"".join(charts)}</div>' if charts else ""


def _runs(comparison: Comparison) -> str:
    rows = tuple(
        (Text(run.run_id), Text(run.method), Text(str(run.seed)), Text(run.model)) for run in comparison.study.runs
    )
    protocol = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(str(value))}</td></tr>"
        for key, value in sorted(comparison.study.runs[0].protocol.items())
    )
    table = f'<div class="scroll"><table>{protocol}</table></div>'
    shared = f"<h2>Protocol</h2><details><summary>of the first run</summary>{table}</details>" if protocol else ""
    listed = _table(Grid("Runs", ("run", "method", "seed", "model"), rows))
    return shared + listed


def _drawn(comparison: Comparison) -> tuple[str, ...]:
    """The methods that charts show, in the tables' order."""
    if len(comparison.methods) <= MOST_LINES:
        return comparison.methods
    first = comparison.columns[0]
    scored = [(cell.score.mean, m) for m in comparison.methods[1:] if (cell := comparison.cell(first, m)) is not None]
    best = {method for _, method in sorted(scored, reverse=True)[: MOST_LINES - 1]}
    return tuple(method for method in comparison.methods if method in best or method == comparison.methods[0])


def _colour(comparison: Comparison, method: str) -> int:
    return comparison.methods.index(method)


def _legend(comparison: Comparison) -> str:
    drawn = _drawn(comparison)
    left_out = len(comparison.methods) - len(drawn)
    items = []
    for method in drawn:
        number = _colour(comparison, method)
        kind = f"line c{number % COLOURS} d{number // COLOURS % 3}"
        swatch = f'<svg viewBox="0 0 28 12" aria-hidden="true"><polyline class="{kind}" points="0,6 28,6"/></svg>'
        items.append(f"<li>{swatch}{html.escape(row_name(comparison, method))}</li>")
    more = f"<li>and {left_out} more in the tables</li>" if left_out else ""
    return f'<ul class="legend">{"".join(items)}{more}</ul>'


def _figure(title: str, picture: str) -> str:
    return f"<figure><h3>{html.escape(title)}</h3>{picture}</figure>"
