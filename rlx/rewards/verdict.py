"""The result of grading one response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Verdict:
    """The grade of one response, why, and what was graded.

    Example:
        ``Verdict(score=1.0, reason="exact", extracted="132")``
    """

    score: float
    """1.0 for right and 0.0 for wrong; a reward may give values between."""
    reason: str
    """A short code that can be counted over a run, such as ``no_answer``."""
    extracted: str | None
    """The part of the response that was compared with the gold; None if there was none."""
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Further numbers that the reward returned, which are logged."""


@dataclass(frozen=True, slots=True)
class NeedsSymbolicCheck:
    r"""A reward's result when text alone cannot decide: ``grade`` compares the two as mathematics.

    Example:
        ``NeedsSymbolicCheck(gold=r"\boxed{\frac{1}{2}}", answer=r"\boxed{0.5}", extracted="0.5")``
    """

    gold: str
    answer: str
    """LaTeX, inside ``\\boxed{}``; for ``math_verify`` the whole response."""
    extracted: str | None
    bare: bool = False
    """Whether an answer outside a box counts."""
