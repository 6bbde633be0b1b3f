"""A reward that the samples of a group disagree on, so that both sides of vs_trl.py train on every sample."""

from __future__ import annotations

from rlx.registry import register
from rlx.rewards.verdict import Verdict


def fair(text: str) -> float:
    """1 for about half of all texts: those whose code points add up to an even number."""
    return float(sum(map(ord, text)) % 2 == 0)


@register("reward", paper="no paper: a benchmark's coin")
def coin(response: str, gold: str) -> Verdict:
    """``fair`` as rlx takes it."""
    return Verdict(score=fair(response), reason="coin", extracted=None)
