"""Rows that are left out of the training data: their number by reason, and the limit above which a run ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlx.errors import UserError

NAMED = 3
"""Rows of each reason that are named."""
DUPLICATE = "duplicate question"


def in_words(counts: Mapping[str, int], named: Mapping[str, Sequence[str]]) -> str:
    """``2 duplicate question, 1 longer than 1024 tokens (line 17)``; empty if nothing is left out."""

    def rows(reason: str) -> str:
        locations = named.get(reason, ())
        return f" ({', '.join(locations)}{', ...' if counts[reason] > len(locations) else ''})" if locations else ""

    return ", ".join(f"{count} {reason}{rows(reason)}" for reason, count in counts.items())


@dataclass(slots=True)
class LeftOut:
    """Counts of rows that are left out.

    Example:
        After ``add("not JSON", "line 5", error)``: ``counts == {"not JSON": 1}``, ``named == {"not JSON": ["line 5"]}``
    """

    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    """The first rows of each reason."""
    first: UserError | None = None
    """The first row's problem."""

    def add_duplicate(self) -> None:
        """Count a repeated question, which is no mistake in a row."""
        self.counts[DUPLICATE] += 1

    def add(self, reason: str, location: str, error: UserError) -> None:
        """Count a row that cannot be used.

        Args:
            reason: in two or three words.
            location: the row's line.
            error: what is wrong with it.
        """
        self.counts[reason] += 1
        if len(self.named.setdefault(reason, [])) < NAMED:
            self.named[reason].append(location)
        self.first = self.first or error

    def check(self, rows: int, limit: float) -> None:
        """End the run if too many rows cannot be used.

        Args:
            rows: number of rows that were read.
            limit: ``data.max_left_out``, a fraction.

        Raises:
            UserError: the first row's problem, and how many rows cannot be used.
        """
        unusable = sum(self.counts.values()) - self.counts[DUPLICATE]
        if self.first is None or unusable <= limit * rows:
            return
        remedy = f", or raise data.max_left_out={limit:g}" if unusable < rows else ""
        count = f" ({unusable} of {rows} rows cannot be used)" if rows > 1 else ""
        raise UserError(self.first.what, fix=f"{self.first.fix}{remedy}{count}")
