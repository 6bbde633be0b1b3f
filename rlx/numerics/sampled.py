"""Metrics of n sampled answers to one problem, from one sampling. Pure Python, exact."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that at least one of k samples is right: 1 - C(n-c, k) / C(n, k), unbiased (Chen et al., 2107.03374).

    Args:
        n: samples.
        correct: how many of them are right.
        k: samples drawn of them without replacement, at most n.
    """
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def pass_hat_k(n: int, correct: int, k: int) -> float:
    """Probability that all of k samples are right: C(c, k) / C(n, k) (pass^k of tau-bench, 2406.12045).

    Args:
        n: samples.
        correct: how many of them are right.
        k: samples drawn of them without replacement, at most n.
    """
    return math.comb(correct, k) / math.comb(n, k)


def best_at_k(n: int, correct: int, k: int) -> float:
    """1 - (1 - c/n)^k: the estimate with replacement that papers print as "pass@k" or "P@k"; biased low.

    Args:
        n: samples.
        correct: how many of them are right.
        k: samples drawn with replacement.
    """
    return 1.0 - (1.0 - correct / n) ** k


def maj_at_k(answers: Sequence[Hashable | None], scores: Sequence[float], k: int) -> float:
    """Expected score of the most frequent answer among k samples drawn without replacement; ties are split evenly.

    For each answer w with s_w votes: sum over a of C(s_w, a) sum over t of W(a, t) / (t + 1) / C(n, k), where W counts
    the ways in which t other answers get a votes too and none gets more. Samples without an answer (None) don't vote.

    Args:
        answers: canonical answers (``rlx.rewards.by_text.canonical``).
        scores: the score of each.
        k: number of drawn samples, at most n.
    """
    votes: dict[Hashable, list[float]] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(score)
    silent = len(answers) - sum(len(scores_of) for scores_of in votes.values())
    expected = 0.0
    for winner, given in votes.items():
        worth = sum(given) / len(given)
        if worth:
            others = [len(scores_of) for other, scores_of in votes.items() if other != winner]
            expected += worth * _chance_to_win(len(given), others, silent, k)
    return expected


def _chance_to_win(size: int, others: Sequence[int], silent: int, k: int) -> float:
    """Probability that an answer with ``size`` votes has the most of k drawn votes; a tie of t+1 counts 1/(t+1)."""
    total = 0.0
    all_ways = math.comb(size + sum(others) + silent, k)
    for a in range(max(1, k - sum(others) - silent), min(size, k) + 1):
        rest = k - a
        # ways[drawn][ties]: ways to draw that many of the others, that many of which have exactly a votes
        ways = [[0] * (rest // a + 1) for _ in range(rest + 1)]
        for count_drawn in range(min(silent, rest) + 1):
            ways[count_drawn][0] = math.comb(silent, count_drawn)
        for other in others:
            ways = _with_other(ways, other, a)
        total += math.comb(size, a) * sum(count / (ties + 1) for ties, count in enumerate(ways[rest])) / all_ways
    return total


def _with_other(ways: list[list[int]], size: int, a: int) -> list[list[int]]:
    """The table after one more answer with ``size`` votes has taken between 0 and ``a`` of the draws."""
    table = [[0] * len(row) for row in ways]
    for so_far, row in enumerate(ways):
        for ties, count in enumerate(row):
            for votes in range(min(size, a, len(ways) - 1 - so_far) + 1 if count else 0):
                table[so_far + votes][ties + (votes == a)] += count * math.comb(size, votes)
    return table
