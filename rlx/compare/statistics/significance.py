"""Tests and intervals on arrays of scores; numpy and scipy only. The shape legend is in load/results.py.

All differences are paired by problem: both models answer the same problems, and the difficulty of a problem explains
most of the variance of its scores (Miller 2024, arXiv 2411.00640, section 4).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rlx.compare.load.results import Array

SIGN_FLIP_MAX_PROBLEMS = 100
"""Largest number of problems for sign flips; with more, the mean difference is near enough normal for the t test."""
EXACT_MAX_PROBLEMS = 14
"""Largest number of problems with a difference for which all sign assignments are enumerated (16,384 of them)."""
RANDOM_FLIPS = 20_000
"""Number of random sign assignments for more problems; the smallest p-value is 1 / (RANDOM_FLIPS + 1)."""
REPLICATES = 10_000
"""Number of bootstrap replicates."""
POWER = 0.8
"""Power of the smallest detectable difference."""
ROUNDING = 1e-9
"""Relative tolerance of equal statistics: sums of the same numbers in another order differ in their last bits."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its interval.

    Example:
        ``Interval(mean=0.41, low=0.33, high=0.49, error=0.04)``
    """

    mean: float
    low: float
    high: float
    error: float
    """Standard error."""

    @property
    def half_width(self) -> float:
        """Half of the interval's width: the number after the +-."""
        return (self.high - self.low) / 2


def percentile_interval(mean: float, replicates_r: Array, alpha: float) -> Interval:
    """``mean`` with the percentile interval of its bootstrap replicates (Efron 1979)."""
    low, high = np.quantile(replicates_r, [alpha / 2, 1 - alpha / 2])
    return Interval(mean, float(low), float(high), float(replicates_r.std(ddof=1)))


def sign_flip_p(diffs_pm: Array, rng: np.random.Generator) -> Array:
    """Two-sided p-values of paired differences under random signs (Fisher 1935): exact when few problems differ.

    p = share of the 2^P assignments of signs with |mean| at least as large as the observed one. If assignments are
    sampled, 1 is added to both counts, so that the test keeps its level (Phipson and Smyth 2010).

    Args:
        diffs_pm: differences of mean scores by problem, one column per comparison.
        rng: generator of the random signs, which all columns share.
    """
    result = np.ones(diffs_pm.shape[1])
    nonzero_m = (diffs_pm != 0).sum(axis=0)
    for column in np.flatnonzero((nonzero_m > 0) & (nonzero_m <= EXACT_MAX_PROBLEMS)):
        diffs_d = diffs_pm[diffs_pm[:, column] != 0, column]
        bits = np.arange(2 ** len(diffs_d))[:, None] >> np.arange(len(diffs_d))
        sums_r = np.abs((1.0 - 2.0 * (bits & 1)) @ diffs_d)
        result[column] = np.mean(sums_r >= abs(diffs_d.sum()) * (1 - ROUNDING))
    large = np.flatnonzero(nonzero_m > EXACT_MAX_PROBLEMS)
    if len(large):
        large_pm = diffs_pm[:, large]
        observed_m = np.abs(large_pm.sum(axis=0)) * (1 - ROUNDING)
        extreme_m = np.zeros(len(large))
        block = max(1, 4_000_000 // max(diffs_pm.shape))  # limits the memory of signs and sums
        for start in range(0, RANDOM_FLIPS, block):
            signs_rp = 1.0 - 2.0 * rng.integers(
                0, 2, size=(min(block, RANDOM_FLIPS - start), len(large_pm)), dtype=np.int8
            )
            extreme_m += (np.abs(signs_rp @ large_pm) >= observed_m).sum(axis=0)
        result[large] = (1 + extreme_m) / (1 + RANDOM_FLIPS)
    return result


def paired_p(diffs_pm: Array, rng: np.random.Generator) -> Array:
    """Two-sided p-values of paired differences by problem: sign flips, or the paired t test for many problems."""
    problems = len(diffs_pm)
    if problems <= SIGN_FLIP_MAX_PROBLEMS:
        return sign_flip_p(diffs_pm, rng)
    errors_m = diffs_pm.std(axis=0, ddof=1) / np.sqrt(problems)
    means_m = diffs_pm.mean(axis=0)
    return np.array([student_p(m, e, problems - 1) for m, e in zip(means_m, errors_m, strict=True)])


def welch(seeds_a: Array, seeds_b: Array) -> tuple[float, float]:
    """Standard error and degrees of freedom of the difference of two methods' mean scores by seed (Welch 1947).

    error^2 = s_a^2 / k_a + s_b^2 / k_b; freedom = error^4 / sum of (s^2 / k)^2 / (k - 1).

    Args:
        seeds_a: [k] mean score of each training seed of one method, at least 2.
        seeds_b: the same of the other method; the numbers of seeds may differ.
    """
    variances = [float(values.var(ddof=1)) / len(values) for values in (seeds_a, seeds_b)]
    denominator = sum(var**2 / (len(v) - 1) for var, v in zip(variances, (seeds_a, seeds_b), strict=True))
    freedom = sum(variances) ** 2 / denominator if denominator else float(len(seeds_a) + len(seeds_b) - 2)
    return float(np.sqrt(sum(variances))), freedom


def problem_variance(a_kp: Array, b_kp: Array) -> float:
    """Variance of the difference of two methods' mean scores that is due to the choice of problems.

    s_D^2 / P minus the part that is due to sampling and to the variation of single seeds, which Welch's error already
    contains: the interaction component of a crossed analysis of variance, at least 0. (Bootstrapping seeds and problems
    counts that variation up to three times: Owen 2007, the pigeonhole bootstrap.)

    Args:
        a_kp: mean score of each seed and problem of one method, at least 2 seeds and 2 problems.
        b_kp: the same of the other method.
    """
    problems = a_kp.shape[1]
    diffs_p = a_kp.mean(axis=0) - b_kp.mean(axis=0)
    residual_variance = 0.0
    for means_kp in (a_kp, b_kp):
        seeds = len(means_kp)
        fitted_kp = means_kp.mean(axis=0) + means_kp.mean(axis=1, keepdims=True) - means_kp.mean()
        residual = ((means_kp - fitted_kp) ** 2).sum() / ((seeds - 1) * (problems - 1))
        residual_variance += residual / seeds
    return float(max((diffs_p.var(ddof=1) - residual_variance) / problems, 0.0))


def add_problem_variance(error: float, freedom: float, variance: float, problems: int) -> tuple[float, float]:
    """Standard error and degrees of freedom over new seeds and new problems together (Satterthwaite 1946).

    Returns sqrt(error^2 + variance), and (sum of variances)^2 / sum of (variance^2 / its degrees) degrees of freedom.

    Args:
        error: Welch's standard error over seed means.
        freedom: its degrees of freedom.
        variance: ``problem_variance``.
        problems: number of problems.
    """
    total = error**2 + variance
    denominator = error**4 / freedom + variance**2 / (problems - 1)
    return float(np.sqrt(total)), total**2 / denominator if denominator else freedom


class ProblemWeights:
    """The weights of resampled problems, which tables with the same number of problems share.

    Example:
        ``rng, weights_rp = ProblemWeights(seed=0).of(500)``
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._cached: dict[int, tuple[Array, np.random.Generator]] = {}

    def of(self, problems: int) -> tuple[np.random.Generator, Array]:
        """A generator, as it is after the draw of the weights, and the weights [r, p]."""
        if problems not in self._cached:
            rng = np.random.default_rng(self._seed)
            self._cached[problems] = (draw_weights(problems, rng), rng)
        weights_rp, rng = self._cached[problems]
        return copy.deepcopy(rng), weights_rp


def draw_weights(count: int, rng: np.random.Generator) -> Array:
    """[r, count] weights of bootstrap replicates: how often each of ``count`` units is drawn, divided by ``count``."""
    return np.asarray(rng.multinomial(count, np.full(count, 1 / count), size=REPLICATES) / count)


def two_level_bootstrap(means_mkp: list[Array], rng: np.random.Generator, weights_rp: Array | None = None) -> Array:
    """Replicates of every method's mean score: training seeds are resampled, then problems.

    All methods share the resampled problems, so that differences of columns are paired; seeds are resampled for each
    method separately. A seed's deviation from its method's mean is multiplied by sqrt(k / (k - 1)), because k seeds
    drawn from k with replacement vary too little by that factor (Davison and Hinkley 1997, section 3.8). With one seed
    this is the ordinary bootstrap over problems.

    Args:
        means_mkp: mean scores of every method, each of shape [k, p]; k may differ between methods, p may not.
        rng: generator of the draws.
        weights_rp: weights of the resampled problems; drawn if not given.

    Returns:
        [r, m] replicates.
    """
    if weights_rp is None:
        weights_rp = draw_weights(means_mkp[0].shape[1], rng)
    columns = []
    for means_kp in means_mkp:
        seeds = len(means_kp)
        centre_p = means_kp.mean(axis=0)
        widened_kp = centre_p + (means_kp - centre_p) * (np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0)
        weights_rk = draw_weights(seeds, rng)
        columns.append(((weights_rp @ widened_kp.T) * weights_rk).sum(axis=1))
    return np.stack(columns, axis=1)


def linearise(value: float, gradient_j: Array, sums_pj: Array, counts_pj: Array) -> Array:
    """Each problem's contribution to a metric that is a smooth function of several means, so that it acts as a mean.

    z_p = value + P * sum over j of gradient_j (sums_pj - mean_j counts_pj) / counts_j: the mean of z is ``value``, and
    its variance over problems is that of the metric to first order (Woodruff 1971, Binder 1983). The means may be over
    different problems with different weights.

    Args:
        value: the metric at the means.
        gradient_j: its derivative with respect to each mean.
        sums_pj: sum of each problem's values that enter each mean; 0 if there are none.
        counts_pj: the number of these values.
    """
    totals_j = counts_pj.sum(axis=0)
    means_j = sums_pj.sum(axis=0) / totals_j
    return np.asarray(value + len(sums_pj) * ((sums_pj - means_j * counts_pj) / totals_j) @ gradient_j)


def student_p(difference: float, error: float, freedom: float) -> float:
    """Two-sided p-value of ``difference`` under Student's distribution; 0 or 1 if the error is 0."""
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, freedom))


def student_interval(difference: float, error: float, freedom: float, alpha: float) -> Interval:
    """``difference`` with Student's interval for this standard error."""
    half = float(stats.t.ppf(1 - alpha / 2, freedom)) * error
    return Interval(difference, difference - half, difference + half, error)


def holm(p_values: Array) -> Array:
    """Adjusted p-values that control the family-wise error rate (Holm 1979).

    p~(i) = max over j <= i of min(1, (m - j + 1) p(j)), with p in ascending order.
    """
    order = np.argsort(p_values, kind="stable")
    count = len(p_values)
    stepped = np.minimum(1.0, (count - np.arange(count)) * p_values[order])
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


def smallest_detectable(error: float, freedom: float, alpha: float) -> float:
    """Difference that a two-sided test of level ``alpha`` detects with 80 % power: (t_{1-alpha/2} + t_.8) * error.

    (Cohen 1988, with Student's quantiles in place of the normal ones, which is accurate to a few per cent.)

    Args:
        error: standard error of the difference.
        freedom: its degrees of freedom.
        alpha: significance level.
    """
    return float((stats.t.ppf(1 - alpha / 2, freedom) + stats.t.ppf(POWER, freedom)) * error)
