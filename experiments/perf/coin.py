"""A reward that differs between the samples of a group, so that rlx and TRL train on every sample in vs_trl.py."""

from __future__ import annotations

from rlx.registry import register
from rlx.rewards.verdict import Verdict


def fair(text: str) -> float:
    """1 for about half of all texts (those whose code points have an even sum), 0 for the others."""
    return float(sum(map(ord, text)) % 2 == 0)


@register("reward", paper="no paper: a benchmark's coin")
def coin(response: str, gold: str) -> Verdict:
    """The value of ``fair`` as a verdict."""
    return Verdict(score=fair(response), reason="coin", extracted=None)
