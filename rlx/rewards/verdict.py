"""What a reward says of one response."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """The grade of one response, why, and what was graded.

    Example:
        ``Verdict(score=1.0, reason="exact", extracted="132")``
    """

    score: float
    """1.0 for right and 0.0 for wrong; a reward may give anything between."""
    reason: str
    """One word or two joined by ``_`` that can be counted over a run, such as ``no_answer``."""
    extracted: str | None
    """The part of the response that was compared with the gold; ``None`` where there was none."""
