"""Reward of the embedded arithmetic task: the text after the only ``#`` must be the sum."""

from __future__ import annotations

from rlx.registry import register
from rlx.rewards.verdict import Verdict


@register("reward", paper="no paper: the rule of the embedded task, rlx.data.arithmetic")
def arithmetic(response: str, gold: str) -> Verdict:
    """1 if the response holds exactly one ``#`` and the text after it, stripped, equals the gold sum, else 0.

    A second ``#`` scores nothing, or a policy could list every sum it thinks likely.

    Args:
        response: generated text without special tokens, such as ``7+5=12 4+8=12#132``.
        gold: the sum as text, such as ``132``.
    """
    marks = response.count("#")
    if marks == 0:
        return Verdict(score=0.0, reason="no_answer", extracted=None)
    if marks > 1:
        return Verdict(score=0.0, reason="several_answers", extracted=None)
    extracted = response.partition("#")[2].strip()
    if extracted == gold.strip():
        return Verdict(score=1.0, reason="exact", extracted=extracted)
    return Verdict(score=0.0, reason="wrong", extracted=extracted)
