"""Output for the user: a live panel on a terminal, plain lines otherwise, tables at the end. No logic.

Results go to stdout; progress, notes and warnings go to stderr.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlx.errors import public

BARS = "▁▂▃▄▅▆▇█"
PIPE_WIDTH = 120
"""Width of a table that is not printed to a terminal (characters), unless COLUMNS is set."""
PLAIN_EVERY = 5.0
"""Seconds between two plain lines."""


def print_out(renderable: RenderableType) -> None:
    """Print a result to stdout; control characters in a string are shown and not sent."""
    renderable = public(renderable) if isinstance(renderable, str) else renderable
    # A pipe has no width; lines of text are never wrapped, so that paths can be copied.
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = RichConsole(highlight=False, width=None if has_width else PIPE_WIDTH)
    console.print(renderable, soft_wrap=isinstance(renderable, str | Text), markup=False)


def print_error(text: str) -> None:
    """Print a result that shows a mistake to stdout, in red on a terminal."""
    print_out(Text(public(f"problem: {text}"), style="bold red"))


def warn(text: str) -> None:
    """Print a warning to stderr."""
    console = RichConsole(stderr=True, highlight=False)
    console.print(Text(public(f"warning: {text}"), style="yellow"), soft_wrap=not console.is_terminal)


def loading(what: str) -> None:
    """Say on a terminal what is loading, before a run has anything else to show; nothing in a pipe."""
    if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
        RichConsole(stderr=True, highlight=False).print(Text(public(f"loading {what} ..."), style="dim"))


@cache
def warn_once(text: str) -> None:
    """Print a warning to stderr unless this process has printed it before."""
    warn(text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], words: bool = False) -> Table:
    """A plain table; the first column is left-aligned, the others too if ``words`` is True, else right-aligned."""
    result = Table(
        title=Text(public(title), style="table.title"),
        title_justify="left",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for index, column in enumerate(columns):
        result.add_column(
            Text(public(column), style="table.header"),
            justify="left" if words or index == 0 else "right",
            overflow="fold",
        )
    for row in rows:
        result.add_row(*(Text(public(cell)) for cell in row))  # not str: rich would take sg[r] for markup
    return result


@dataclass(slots=True)
class Progress:
    """The live view of one run.

    Example:
        ``Progress("dgpo on arithmetic", total=100)``, then ``show(step, facts, trend)`` after each step
    """

    title: str
    total: int
    unit: str = "step"
    _rich: RichConsole = field(default_factory=lambda: RichConsole(stderr=True, highlight=False, soft_wrap=True))
    _live: Live | None = None
    _first: tuple[int, float] | None = None
    _printed: float = 0.0

    def show(self, step: int, facts: Mapping[str, str], trend: Sequence[float] = ()) -> None:
        """Show the progress of the run.

        Args:
            step: steps done.
            facts: names and values, in order.
            trend: the main figure's course, each value within [0, 1].
        """
        now = time.perf_counter()
        self._first = self._first or (step, now)
        pace = (step - self._first[0]) / max(now - self._first[1], 1e-9)
        left = f"{clock((self.total - step) / pace)} left" if pace and step < self.total else f"all {self.unit}s done"
        timing = f"{pace:.2f} {self.unit}s/s, {left}" if pace else "starting"
        if self._rich.is_terminal:
            self._update(step, facts, trend, timing)
        elif now - self._printed >= PLAIN_EVERY or step in (0, self.total):
            self._printed = now
            shown = ", ".join(f"{name} {value}" for name, value in facts.items())
            self._rich.print(Text(public(f"{self.unit} {step}/{self.total}: {shown} ({timing})")))

    def note(self, text: str) -> None:
        """Print a notice above the panel."""
        self._rich.print(Text(public(text)), soft_wrap=not self._rich.is_terminal)

    def warn(self, text: str) -> None:
        """Print a warning above the panel."""
        self._rich.print(Text(public(f"warning: {text}"), style="yellow"), soft_wrap=not self._rich.is_terminal)

    def stop(self) -> None:
        """Stop updating the panel and release the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        sys.stderr.flush()

    def _update(self, step: int, facts: Mapping[str, str], trend: Sequence[float], timing: str) -> None:
        grid = Table.grid(padding=(0, 2))
        for name, value in facts.items():
            grid.add_row(Text(public(name), style="dim"), Text(public(value)))
        bar = ProgressBar(total=self.total, completed=step, width=max(10, min(60, self._rich.width - 8)))
        head = Text(f"{self.unit} {step}/{self.total}   {timing}")
        parts: list[RenderableType] = [head, bar, grid]
        if trend:
            parts.append(Text(sparkline(trend, max(10, self._rich.width - 8)), style="green"))
        panel = Panel(Group(*parts), title=Text(public(self.title)), title_align="left", border_style="dim")
        if self._live is None:
            self._live = Live(panel, console=self._rich, refresh_per_second=8, transient=False)
            self._live.start()
        else:
            self._live.update(panel)


def sparkline(values: Sequence[float], width: int) -> str:
    """Finite values in [0, 1] as a row of at most ``width`` bars, each the mean of its neighbours."""
    values = [value for value in values if math.isfinite(value)]
    share = max(1, -(-len(values) // width))
    means = [sum(values[i : i + share]) / len(values[i : i + share]) for i in range(0, len(values), share)]
    return "".join(BARS[min(len(BARS) - 1, max(0, int(value * len(BARS))))] for value in means)


def clock(seconds: float) -> str:
    """Seconds as 12s, 3m 05s or 2h 07m."""
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m {total % 60:02d}s"
    return f"{total // 3600}h {total % 3600 // 60:02d}m"
