"""ROUGE of a generated answer against the gold one."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any


@lru_cache(maxsize=1 << 14)  # most answers of retained sets are the same in every evaluation
def rouge_l_recall(gold: str, generated: str) -> float:
    """Longest common subsequence of stemmed words over the gold's length, with rouge-score 0.1.2.

    Args:
        gold: the answer asked for.
        generated: the greedy answer.
    """
    return float(_scorer().score(gold, generated)["rougeL"].recall)


@cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
