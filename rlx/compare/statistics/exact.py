"""Exact intervals and tests of counts; numpy and scipy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from rlx.compare.load.results import Array
from rlx.compare.statistics.significance import ROUNDING


def clopper_pearson(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934); [0, 1] without trials.

    Args:
        successes: number of successes.
        trials: number of independent trials.
        alpha: the interval covers at least 1 - alpha.
    """
    if not trials:
        return 0.0, 1.0
    low = float(stats.beta.ppf(alpha / 2, successes, trials - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - alpha / 2, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


def permutation_p(counts_a: Sequence[int], counts_b: Sequence[int]) -> float:
    """Two-sided exact p-value of the difference of two groups' sums under all permutations of the group labels.

    p = share of the subsets of size len(a) of all counts whose sum is at least as far from the expected sum as that of
    ``counts_a``. With counts of 0 and 1 this is a two-sided Fisher test (by distance from the expected count); with
    larger counts a unit, such as a training seed with several runs, is permuted as one, so that its runs need not be
    independent of each other.

    Args:
        counts_a: count of each unit of one group.
        counts_b: count of each unit of the other group.
    """
    counts = [*counts_a, *counts_b]
    size = len(counts_a)
    if not counts_a or not counts_b:
        return 1.0
    distribution_s = _subset_sums(counts, size)
    expected = size * sum(counts) / len(counts)
    distances_s = np.abs(np.arange(len(distribution_s)) - expected)
    observed = abs(sum(counts_a) - expected)
    return min(1.0, float(distribution_s[distances_s >= observed * (1 - ROUNDING) - ROUNDING].sum()))


def _subset_sums(counts: Sequence[int], size: int) -> Array:
    """Probability of every sum of a random subset of ``size`` counts.

    After unit i, table[k, s] is the probability that k of the first i units are in the subset and that their sum is s:
    unit i is in it with probability (size - k) / (units - i), as in sampling without replacement.
    """
    units, largest = len(counts), sum(sorted(counts)[-size:])
    table_ks = np.zeros((size + 1, largest + 1))
    table_ks[0, 0] = 1.0
    numbers_k = np.arange(size + 1)
    for index, count in enumerate(counts):
        inside_k = np.clip((size - numbers_k) / (units - index), 0.0, 1.0)
        chosen_ks = table_ks * inside_k[:, None]
        table_ks = table_ks - chosen_ks
        table_ks[1:, count:] += chosen_ks[:-1, : largest + 1 - count]
    return np.asarray(table_ks[size])
