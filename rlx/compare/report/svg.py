"""Charts as inline SVG text: lines with bands, intervals, and a heat map. Colours are classes of the page's style."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np

from rlx.compare.load.results import Array
from rlx.compare.report.curves import Line
from rlx.compare.statistics.significance import Interval

WIDTH, HEIGHT = 360, 230
"""Size of a line chart, in its own units: about the width of a phone."""
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 38
"""Margins of a line chart."""
COLOURS = 8
"""Number of colours before they repeat with another dash."""
MOST_CELLS = 120
"""Largest number of columns of a heat map; with more problems, neighbours by difficulty are averaged."""


def line_chart(
    lines: Sequence[Line], across: str, upwards: str, log_x: bool = False, shared: Sequence[Line] = ()
) -> str:
    """Lines with their bands.

    Args:
        lines: at least one.
        across: label of the horizontal axis.
        upwards: label of the vertical axis.
        log_x: steps of the horizontal axis double.
        shared: lines of other charts; the axes cover these lines too.
    """
    covered = [*lines, *shared]
    xs = np.concatenate([line.x for line in covered])
    ys = np.concatenate([np.concatenate([line.low, line.high]) for line in covered])
    x_ticks = sorted(set(xs.tolist())) if log_x else ticks(float(xs.min()), float(xs.max()))
    y_ticks = ticks(float(ys.min()), float(ys.max()))
    low_x, high_x = (float(xs.min()), float(xs.max()))
    low_y, high_y = min(y_ticks[0], float(ys.min())), max(y_ticks[-1], float(ys.max()))

    def x_of(x: float) -> float:
        share = (
            math.log(x / low_x) / math.log(high_x / low_x) if log_x and high_x > low_x else fraction(x, low_x, high_x)
        )
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        return HEIGHT - BOTTOM - fraction(y, low_y, high_y) * (HEIGHT - TOP - BOTTOM)

    def path(x: Array, y: Array) -> str:
        return " ".join(f"{x_of(a):.1f},{y_of(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))

    parts = [open_svg(WIDTH, HEIGHT, f"{upwards} against {across}")]
    for tick in y_ticks:
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(LEFT - 6, y + 4, tick_text(tick, y_ticks), "end"))
    for tick in x_ticks:
        if low_x <= tick <= high_x:
            parts.append(text_at(x_of(tick), HEIGHT - BOTTOM + 16, tick_text(tick, x_ticks), "middle"))
    parts.append(text_at((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, across, "middle", "axis"))
    for line in lines:
        if not np.array_equal(line.low, line.high):
            band = f"{path(line.x, line.high)} {path(line.x[::-1], line.low[::-1])}"
            parts.append(f'<polygon class="band c{line.colour % COLOURS}" points="{band}"/>')
    for line in lines:
        kind = f"line c{line.colour % COLOURS} d{line.colour // COLOURS % 3}"
        parts.append(f'<polyline class="{kind}" points="{path(line.x, line.middle)}">{tooltip(line.name)}</polyline>')
        if len(line.x) <= 12:
            dots = zip(line.x.tolist(), line.middle.tolist(), strict=True)
            parts += [
                f'<circle class="dot c{line.colour % COLOURS}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="2.5">'
                f"{tooltip(f'{line.name}: {y:.3g} at {x:g}')}</circle>"
                for x, y in dots
            ]
    return "".join(parts) + "</svg>"


def interval_chart(rows: Sequence[tuple[str, Interval, int, bool]], across: str) -> str:
    """Differences with their intervals, one below the other, and a line at 0.

    Args:
        rows: name, difference, index of its colour, and whether it is declared (a filled dot) or not (a hollow one).
        across: label of the horizontal axis.
    """
    finite = [100 * edge for _, interval, *_ in rows for edge in (interval.low, interval.high) if math.isfinite(edge)]
    tick_values = ticks(min([0.0, *finite]), max([0.0, *finite]))
    low, high = tick_values[0], tick_values[-1]
    left, step, width = 14, 38, WIDTH
    height = step * len(rows) + BOTTOM + 6

    def position(value: float) -> float:
        return left + fraction(min(max(100 * value, low), high), low, high) * (width - left - 14)

    parts = [open_svg(width, height, across)]
    for tick in tick_values:
        x = position(tick / 100)
        kind = "nought" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - BOTTOM}"/>')
        parts.append(text_at(x, height - BOTTOM + 16, tick_text(tick, tick_values), "middle"))
    for number, (name, interval, colour, declared) in enumerate(rows):
        y = step * number + 30
        kind = f"c{colour % COLOURS}"
        text = f"{name}: {100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
        parts.append(text_at(left, y - 12, name, "start", "name"))
        parts.append(
            f'<line class="whisker {kind}" x1="{position(interval.low):.1f}" x2="{position(interval.high):.1f}" '
        )
        parts.append(f'y1="{y}" y2="{y}">{tooltip(text)}</line>')
        fill = f"dot {kind}" if declared else f"hollow {kind}"
        parts.append(
            f'<circle class="{fill}" cx="{position(interval.mean):.1f}" cy="{y}" r="5">{tooltip(text)}</circle>'
        )
    parts.append(text_at(width / 2, height - 5, across, "middle", "axis"))
    return "".join(parts) + "</svg>"


def heat_map(names: Sequence[str], scores_mp: Array, problem_ids: Sequence[str]) -> str:
    """Scores by method and problem, hardest problems left; the more opaque the colour the higher the score.

    Args:
        names: of the rows.
        scores_mp: fractions.
        problem_ids: of the columns.
    """
    order = np.lexsort((np.arange(scores_mp.shape[1]), scores_mp.mean(axis=0)))
    bins = np.array_split(order, min(MOST_CELLS, len(order)))
    width, row, left = 720, 26, 4
    step = (width - left * 2) / len(bins)
    height = (row + 16) * len(names) + 20
    parts = [open_svg(width, height, "score by method and problem")]
    for number, name in enumerate(names):
        top = number * (row + 16) + 14
        parts.append(text_at(left, top - 3, name, "start", "name"))
        parts.append(f'<rect class="empty" x="{left}" y="{top}" width="{width - 2 * left}" height="{row - 2}"/>')
        for index, members in enumerate(bins):
            score = float(scores_mp[number, members].mean())
            which = problem_ids[members[0]] if len(members) == 1 else f"{len(members)} problems"
            parts.append(
                f'<rect class="heat" x="{left + index * step:.1f}" y="{top}" width="{step:.1f}" height="{row - 2}" '
                f'fill-opacity="{score:.2f}">{tooltip(f"{name}, {which}: {100 * score:.0f} %")}</rect>'
            )
    parts.append(text_at(left, height - 4, "hardest", "start", "axis"))
    parts.append(text_at(width - left, height - 4, "easiest", "end", "axis"))
    return "".join(parts) + "</svg>"


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers that cover ``low`` to ``high``."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def tick_text(tick: float, all_ticks: Sequence[float]) -> str:
    """A tick with as many decimals as the distances between ticks need."""
    gaps = [b - a for a, b in zip(all_ticks, all_ticks[1:], strict=False)] or [1.0]
    decimals = next((d for d in range(6) if all(abs(round(g, d) - g) < 1e-9 for g in gaps)), 6)
    return f"{tick:.{decimals}f}"


def fraction(value: float, low: float, high: float) -> float:
    """The position of a value between two others, 0 to 1; 0.5 if they are equal."""
    return (value - low) / (high - low) if high > low else 0.5


def open_svg(width: float, height: float, label: str) -> str:
    """The opening tag of a chart that is as wide as its container."""
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}">'


def text_at(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    """Text at a point."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def tooltip(text: str) -> str:
    """The tooltip of an element."""
    return f"<title>{html.escape(text)}</title>"
