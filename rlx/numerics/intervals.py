"""Confidence intervals of means and proportions; no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def wilson(successes: float, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001).

    Args:
        successes: number of successes.
        trials: number of independent trials, at least 1.
        z: quantile, 1.96 for 95 %.

    Returns:
        Lower and upper bound, both within [0, 1].
    """
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def over_problems(scores: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean over problems: would the score hold on other problems of this kind?

    mean +- t(n-1) s / sqrt(n), clipped to [0, 1]. A problem's score is itself a mean over its samples, so that both
    sources of noise are in s. Where all scores are 0 or all are 1, s is 0 and says nothing: then Wilson's interval.

    Args:
        scores: each problem's score, a fraction; at least 1.
        level: confidence.
    """
    n = len(scores)
    mean = math.fsum(scores) / n
    squares = math.fsum((score - mean) ** 2 for score in scores)
    if squares < 1e-18 or n == 1:
        return wilson(mean * n, n, z=_t_quantile(level, math.inf))
    half = _t_quantile(level, n - 1) * math.sqrt(squares / (n - 1) / n)
    return max(0.0, mean - half), min(1.0, mean + half)


def over_samples(correct: Sequence[float], samples: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean accuracy over other samples of these same problems.

    The variance is the mean over problems of p (1 - p) / (n - 1), over the number of problems, with t quantiles of
    problems * (n - 1) degrees of freedom.

    Args:
        correct: right samples of each problem.
        samples: n, samples of each; at least 2.
        level: confidence.
    """
    problems = len(correct)
    shares = [count / samples for count in correct]
    mean = math.fsum(shares) / problems
    variance = math.fsum(p * (1 - p) for p in shares) / (samples - 1) / problems**2
    half = _t_quantile(level, problems * (samples - 1)) * math.sqrt(variance)
    return max(0.0, mean - half), min(1.0, mean + half)


def of_average(intervals: Sequence[tuple[float, float]], weights: Sequence[float]) -> tuple[float, float]:
    """Interval of a weighted average of independent means, from theirs: half-widths add in squares, weighted.

    Args:
        intervals: lower and upper bounds.
        weights: of each mean; they sum to 1.
    """
    centre = math.fsum(w * (low + high) / 2 for w, (low, high) in zip(weights, intervals, strict=True))
    squares = ((w * (high - low) / 2) ** 2 for w, (low, high) in zip(weights, intervals, strict=True))
    half = math.sqrt(math.fsum(squares))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(scores: Sequence[float], seed: int = 0, level: float = 0.95, draws: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap of a mean over problems, each half-width widened by sqrt(n / (n - 1)).

    Args:
        scores: each problem's score; at least 2.
        seed: of the draws.
        level: confidence.
        draws: resampled means.
    """
    import numpy as np

    values = np.asarray(scores, dtype=np.float64)
    n = len(values)
    generator = np.random.Generator(np.random.Philox(seed))
    means = values[generator.integers(n, size=(draws, n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean, wider = values.mean(), math.sqrt(n / (n - 1))
    return max(0.0, float(mean + (low - mean) * wider)), min(1.0, float(mean + (high - mean) * wider))


def _t_quantile(level: float, freedom: float) -> float:
    from scipy.special import ndtri, stdtrit

    p = (1 + level) / 2
    return float(ndtri(p) if math.isinf(freedom) else stdtrit(freedom, p))
