"""Forgetting against utility as inline SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlx.compare.report.svg import (
    BOTTOM,
    COLOURS,
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    fraction,
    open_svg,
    text_at,
    tick_text,
    ticks,
    tooltip,
)
from rlx.compare.statistics.significance import Interval

WIDE, HIGH, EDGE = 2 * WIDTH, int(1.4 * HEIGHT), 14
"""Width, height and right margin, in the chart's own units."""
Checkpoints = Sequence[tuple[float, float]]
"""A run's checkpoints as forgetting and utility."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A method's forgetting and utility with their intervals.

    Example:
        ``Mark("palu", 1, across=Interval(0.7, 0.6, 0.8, 0.05), upwards=Interval(0.86, 0.84, 0.88, 0.01))``
    """

    name: str
    colour: int
    """Index of the method's colour."""
    across: Interval
    upwards: Interval


@dataclass(frozen=True, slots=True)
class _Frame:
    """The ticks of both axes, and the positions of fractions between them; values outside are drawn at the edge."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def x(self, value: float) -> float:
        return LEFT + _position(value, self.x_ticks) * (WIDE - LEFT - EDGE)

    def y(self, value: float) -> float:
        return HIGH - BOTTOM - _position(value, self.y_ticks) * (HIGH - TOP - BOTTOM)


def pareto_chart(
    markers: Sequence[Marker], curves: Sequence[tuple[int, Checkpoints]], references: Mapping[str, Checkpoints]
) -> str:
    """Forgetting against utility, in per cent: crosses of both intervals, and the curves of the runs.

    Args:
        markers: the methods.
        curves: the colour index and the checkpoints of each run.
        references: models that are not methods, such as the original; each has one point.
    """
    points = [
        point
        for checkpoints in [*references.values(), *(checkpoints for _, checkpoints in curves)]
        for point in checkpoints
    ]
    across = [edge for marker in markers for edge in (marker.across.low, marker.across.high)] + [x for x, _ in points]
    upwards = [edge for marker in markers for edge in (marker.upwards.low, marker.upwards.high)] + [
        y for _, y in points
    ]
    frame = _Frame(_ticks(across), _ticks(upwards))
    parts = [open_svg(WIDE, HIGH, "utility against forgetting"), *_axes(frame)]
    for colour, checkpoints in curves:
        line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in checkpoints)
        parts.append(f'<polyline class="way c{colour % COLOURS}" points="{line}"/>')
    for name, ((x, y),) in references.items():
        parts += _reference(frame, name, x, y)
    for marker in markers:
        parts += _cross(frame, marker)
    return "".join(parts) + "</svg>"


def _axes(frame: _Frame) -> list[str]:
    parts = []
    for tick in frame.y_ticks:
        y = frame.y(tick / 100)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDE - EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(LEFT - 6, y + 4, tick_text(tick, frame.y_ticks), "end"))
    for tick in frame.x_ticks:
        parts.append(text_at(frame.x(tick / 100), HIGH - BOTTOM + 16, tick_text(tick, frame.x_ticks), "middle"))
    parts.append(text_at((LEFT + WIDE) / 2, HIGH - 5, "forgetting, % (upwards: utility, %)", "middle", "axis"))
    return parts


def _reference(frame: _Frame, name: str, x: float, y: float) -> list[str]:
    text = tooltip(f"{name}: forgetting {100 * x:.1f}, utility {100 * y:.1f}")
    at_end = frame.x(x) > 0.8 * WIDE
    offset, anchor = (-9, "end") if at_end else (9, "start")
    return [
        f'<circle class="reference" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="5">{text}</circle>',
        text_at(frame.x(x) + offset, frame.y(y) + 4, name, anchor, "name"),
    ]


def _cross(frame: _Frame, marker: Marker) -> list[str]:
    x, y = frame.x(marker.across.mean), frame.y(marker.upwards.mean)
    kind = f"c{marker.colour % COLOURS}"
    text = tooltip(f"{marker.name}: forgetting {_spread(marker.across)}, utility {_spread(marker.upwards)}")
    arms = (
        (frame.x(marker.across.low), frame.x(marker.across.high), y, y),
        (x, x, frame.y(marker.upwards.low), frame.y(marker.upwards.high)),
    )
    lines = [
        f'<line class="whisker {kind}" x1="{a:.1f}" x2="{b:.1f}" y1="{c:.1f}" y2="{d:.1f}"/>' for a, b, c, d in arms
    ]
    return [*lines, f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="5">{text}</circle>']


def _ticks(fractions: Sequence[float]) -> list[float]:
    """Ticks for the shown values, in per cent: both metrics are between 0 and 1, however wide an interval is."""
    finite = [min(max(value, 0.0), 1.0) for value in fractions if math.isfinite(value)]
    return ticks(100 * min(finite), 100 * max(finite))


def _position(value: float, edges: Sequence[float]) -> float:
    return fraction(min(max(100 * value, edges[0]), edges[-1]), edges[0], edges[-1])


def _spread(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
