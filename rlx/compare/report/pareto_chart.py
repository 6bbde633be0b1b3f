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
    tick_text,
    ticks,
    tooltip,
    words_at,
)
from rlx.compare.statistics.significance import Interval

WIDE, HIGH, EDGE = 2 * WIDTH, int(1.4 * HEIGHT), 14
"""Width, height and right margin, in the chart's own units."""
Way = Sequence[tuple[float, float]]
"""A run's checkpoints as forgetting and utility."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A method between two figures.

    Example:
        ``Mark("palu", 1, across=Interval(0.7, 0.6, 0.8, 0.05), upwards=Interval(0.86, 0.84, 0.88, 0.01))``
    """

    name: str
    colour: int
    """Number of the method's colour."""
    across: Interval
    upwards: Interval


@dataclass(frozen=True, slots=True)
class _Frame:
    """The ticks of both axes, and where fractions stand between them; what lies beyond is drawn at the edge."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def x(self, value: float) -> float:
        return LEFT + _held(value, self.x_ticks) * (WIDE - LEFT - EDGE)

    def y(self, value: float) -> float:
        return HIGH - BOTTOM - _held(value, self.y_ticks) * (HIGH - TOP - BOTTOM)


def front_chart(marks: Sequence[Mark], ways: Sequence[tuple[int, Way]], references: Mapping[str, Way]) -> str:
    """Forgetting across, utility upwards, in per cent: crosses with both intervals, and how the runs came there.

    Args:
        marks: the methods.
        ways: of each run the number of its colour and its checkpoints.
        references: models that are no method, such as the original; each a way of one point.
    """
    points = [point for way in [*references.values(), *(way for _, way in ways)] for point in way]
    across = [edge for mark in marks for edge in (mark.across.low, mark.across.high)] + [x for x, _ in points]
    upwards = [edge for mark in marks for edge in (mark.upwards.low, mark.upwards.high)] + [y for _, y in points]
    frame = _Frame(_ticks(across), _ticks(upwards))
    parts = [open_svg(WIDE, HIGH, "utility against forgetting"), *_axes(frame)]
    for colour, way in ways:
        line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in way)
        parts.append(f'<polyline class="way c{colour % COLOURS}" points="{line}"/>')
    for name, ((x, y),) in references.items():
        parts += _reference(frame, name, x, y)
    for mark in marks:
        parts += _cross(frame, mark)
    return "".join(parts) + "</svg>"


def _axes(frame: _Frame) -> list[str]:
    parts = []
    for tick in frame.y_ticks:
        y = frame.y(tick / 100)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDE - EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(words_at(LEFT - 6, y + 4, tick_text(tick, frame.y_ticks), "end"))
    for tick in frame.x_ticks:
        parts.append(words_at(frame.x(tick / 100), HIGH - BOTTOM + 16, tick_text(tick, frame.x_ticks), "middle"))
    parts.append(words_at((LEFT + WIDE) / 2, HIGH - 5, "forgetting, % (upwards: utility, %)", "middle", "axis"))
    return parts


def _reference(frame: _Frame, name: str, x: float, y: float) -> list[str]:
    said = tooltip(f"{name}: forgetting {100 * x:.1f}, utility {100 * y:.1f}")
    at_end = frame.x(x) > 0.8 * WIDE
    beside, anchor = (-9, "end") if at_end else (9, "start")
    return [
        f'<circle class="reference" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="5">{said}</circle>',
        words_at(frame.x(x) + beside, frame.y(y) + 4, name, anchor, "name"),
    ]


def _cross(frame: _Frame, mark: Mark) -> list[str]:
    x, y = frame.x(mark.across.mean), frame.y(mark.upwards.mean)
    kind = f"c{mark.colour % COLOURS}"
    said = tooltip(f"{mark.name}: forgetting {_spread(mark.across)}, utility {_spread(mark.upwards)}")
    arms = (
        (frame.x(mark.across.low), frame.x(mark.across.high), y, y),
        (x, x, frame.y(mark.upwards.low), frame.y(mark.upwards.high)),
    )
    lines = [
        f'<line class="whisker {kind}" x1="{a:.1f}" x2="{b:.1f}" y1="{c:.1f}" y2="{d:.1f}"/>' for a, b, c, d in arms
    ]
    return [*lines, f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="5">{said}</circle>']


def _ticks(fractions: Sequence[float]) -> list[float]:
    """Of what is shown, in per cent: both figures lie within nought and one, however wide an interval is."""
    finite = [min(max(each, 0.0), 1.0) for each in fractions if math.isfinite(each)]
    return ticks(100 * min(finite), 100 * max(finite))


def _held(value: float, edges: Sequence[float]) -> float:
    return fraction(min(max(100 * value, edges[0]), edges[-1]), edges[0], edges[-1])


def _spread(each: Interval) -> str:
    return f"{100 * each.mean:.1f} [{100 * each.low:.1f}, {100 * each.high:.1f}]"
