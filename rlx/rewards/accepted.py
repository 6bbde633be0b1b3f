"""Grading of responses to questions that accept several answers."""

from __future__ import annotations

from collections.abc import Sequence

from rlx.rewards.verdict import Reward, Verdict


def best_verdicts(reward: Reward, texts: Sequence[str], golds: Sequence[Sequence[str]]) -> list[Verdict]:
    """For each text the verdict with the highest score over its accepted answers, the first one among equals.

    Args:
        reward: gives verdicts on (response, gold) pairs.
        texts: responses.
        golds: the accepted answers of each response, at least one.
    """
    pairs = [(text, gold) for text, accepted in zip(texts, golds, strict=True) for gold in accepted]
    verdicts = iter(reward(pairs))
    return [max([next(verdicts) for _ in accepted], key=lambda verdict: verdict.score) for accepted in golds]
