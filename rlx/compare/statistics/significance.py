"""Tests and intervals on arrays of scores; numpy and scipy only. The shape legend is in results.py.

Differences are paired by problem throughout: two models meet the same problems, and how hard a problem is explains
most of the variance of its scores (Miller 2024, arXiv 2411.00640, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from rlx.compare.load.results import Array

SIGN_FLIPS_UP_TO = 100
"""Problems; beyond, the mean of the differences is near enough normal for the paired t test."""
EXACT_UP_TO = 14
"""Sign flips are enumerated up to so many problems with a difference: 16,384 of them."""
FLIPS = 20_000
"""Random sign flips beyond that; the smallest p-value is 1 / (FLIPS + 1)."""
REPLICATES = 10_000
"""Bootstrap replicates."""
POWER = 0.8
"""Power of the smallest detectable difference."""
ROUNDING = 1e-9
"""Statistics this close (relatively) are equal: sums of the same numbers in another order differ in their last bits."""


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
    def half(self) -> float:
        """Half the interval's width: what stands after the +-."""
        return (self.high - self.low) / 2


def replicate_interval(mean: float, replicates_r: Array, alpha: float) -> Interval:
    """``mean`` with the percentile interval of its bootstrap replicates (Efron 1979)."""
    low, high = np.quantile(replicates_r, [alpha / 2, 1 - alpha / 2])
    return Interval(mean, float(low), float(high), float(replicates_r.std(ddof=1)))


def sign_flip_p(diffs_pm: Array, rng: np.random.Generator) -> Array:
    """Two-sided p-values of paired differences under random signs (Fisher 1935): exact when few problems differ.

    p = share of the 2^P assignments of signs with |mean| at least as large as the observed one; sampled, both counts
    are raised by one, so that the test keeps its level (Phipson and Smyth 2010).

    Args:
        diffs_pm: one column a comparison, each a difference of mean scores by problem.
        rng: source of the random signs; the columns share them.
    """
    result = np.ones(diffs_pm.shape[1])
    moving = (diffs_pm != 0).sum(axis=0)
    for column in np.flatnonzero((moving > 0) & (moving <= EXACT_UP_TO)):
        diffs_d = diffs_pm[diffs_pm[:, column] != 0, column]
        bits = np.arange(2 ** len(diffs_d))[:, None] >> np.arange(len(diffs_d))
        sums_r = np.abs((1.0 - 2.0 * (bits & 1)) @ diffs_d)
        result[column] = np.mean(sums_r >= abs(diffs_d.sum()) * (1 - ROUNDING))
    large = np.flatnonzero(moving > EXACT_UP_TO)
    if len(large):
        chosen_pm = diffs_pm[:, large]
        observed_m = np.abs(chosen_pm.sum(axis=0)) * (1 - ROUNDING)
        reached_m = np.zeros(len(large))
        block = max(1, 4_000_000 // max(diffs_pm.shape))  # bounds the memory of signs and sums
        for start in range(0, FLIPS, block):
            signs_rp = 1.0 - 2.0 * rng.integers(0, 2, size=(min(block, FLIPS - start), len(chosen_pm)), dtype=np.int8)
            reached_m += (np.abs(signs_rp @ chosen_pm) >= observed_m).sum(axis=0)
        result[large] = (1 + reached_m) / (1 + FLIPS)
    return result


def paired_p(diffs_pm: Array, rng: np.random.Generator) -> Array:
    """Two-sided p-values of paired differences by problem: sign flips, or the paired t test of many problems."""
    problems = len(diffs_pm)
    if problems <= SIGN_FLIPS_UP_TO:
        return sign_flip_p(diffs_pm, rng)
    errors_m = diffs_pm.std(axis=0, ddof=1) / np.sqrt(problems)
    means_m = diffs_pm.mean(axis=0)
    return np.array([student_p(m, e, problems - 1) for m, e in zip(means_m, errors_m, strict=True)])


def welch(seeds_a: Array, seeds_b: Array) -> tuple[float, float]:
    """Standard error and degrees of freedom of the difference of two methods' mean scores by seed (Welch 1947).

    error^2 = s_a^2 / k_a + s_b^2 / k_b; freedom = error^4 / sum of (s^2 / k)^2 / (k - 1).

    Args:
        seeds_a: [k] mean score of each training seed of one method, at least 2.
        seeds_b: the same of the other; the numbers of seeds may differ.
    """
    parts = [float(values.var(ddof=1)) / len(values) for values in (seeds_a, seeds_b)]
    spread = sum(part**2 / (len(v) - 1) for part, v in zip(parts, (seeds_a, seeds_b), strict=True))
    freedom = sum(parts) ** 2 / spread if spread else float(len(seeds_a) + len(seeds_b) - 2)
    return float(np.sqrt(sum(parts))), freedom


def problem_part(a_kp: Array, b_kp: Array) -> float:
    """Variance of the difference of two methods' scores that comes from which problems they met.

    s_D^2 / P less what sampling and the wobble of single seeds put into it, which Welch's error holds already: the
    interaction's component of a crossed analysis of variance, never below 0. (Bootstrapping seeds and problems counts
    that wobble up to three times: Owen 2007, the pigeonhole bootstrap.)

    Args:
        a_kp: mean score of each seed and problem of one method, at least 2 seeds and 2 problems.
        b_kp: the same of the other.
    """
    problems = a_kp.shape[1]
    diffs_p = a_kp.mean(axis=0) - b_kp.mean(axis=0)
    wobble = 0.0
    for means_kp in (a_kp, b_kp):
        seeds = len(means_kp)
        fitted_kp = means_kp.mean(axis=0) + means_kp.mean(axis=1, keepdims=True) - means_kp.mean()
        residual = ((means_kp - fitted_kp) ** 2).sum() / ((seeds - 1) * (problems - 1))
        wobble += residual / seeds
    return float(max((diffs_p.var(ddof=1) - wobble) / problems, 0.0))


def with_problems(error: float, freedom: float, part: float, problems: int) -> tuple[float, float]:
    """Standard error and degrees of freedom over new seeds and new problems at once (Satterthwaite 1946).

    error^2 + part, with (sum of variances)^2 / sum of (variance^2 / its degrees) degrees of freedom.

    Args:
        error: Welch's standard error over seed means.
        freedom: its degrees of freedom.
        part: ``problem_part``.
        problems: number of problems.
    """
    total = error**2 + part
    spread = error**4 / freedom + part**2 / (problems - 1)
    return float(np.sqrt(total)), total**2 / spread if spread else freedom


def two_level_bootstrap(means_mkp: list[Array], rng: np.random.Generator) -> Array:
    """Replicates of every method's mean score: training seeds are drawn anew, then problems.

    All methods meet the same drawn problems, so that differences of columns are paired; seeds are drawn by method.
    A seed's deviation from its method's mean is widened by sqrt(k / (k - 1)), since k seeds drawn from k with
    replacement vary by that much too little (Davison and Hinkley 1997, section 3.8). With one seed it is the ordinary
    bootstrap over problems.

    Args:
        means_mkp: for every method [k, p] mean scores; k may differ, p may not.
        rng: source of the draws.

    Returns:
        [r, m] replicates.
    """
    problems = means_mkp[0].shape[1]
    weights_rp = rng.multinomial(problems, np.full(problems, 1 / problems), size=REPLICATES) / problems
    columns = []
    for means_kp in means_mkp:
        seeds = len(means_kp)
        centre_p = means_kp.mean(axis=0)
        widened_kp = centre_p + (means_kp - centre_p) * (np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0)
        drawn_rk = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=REPLICATES) / seeds
        columns.append(((weights_rp @ widened_kp.T) * drawn_rk).sum(axis=1))
    return np.stack(columns, axis=1)


def linearised(value: float, gradient_j: Array, sums_pj: Array, counts_pj: Array) -> Array:
    """Each problem's part in a figure that is a smooth function of several means, so that it is treated as a mean.

    z_p = value + P * sum over j of gradient_j (sums_pj - mean_j counts_pj) / counts_j: the mean of z is ``value``, and
    its variance over problems is that of the figure to first order (Woodruff 1971, Binder 1983). The problems of one
    mean need not be those of another, and may weigh differently.

    Args:
        value: the figure at the means.
        gradient_j: its derivative by each mean.
        sums_pj: sum of each problem's values that go into each mean; 0 where it has none.
        counts_pj: how many values these are.
    """
    totals_j = counts_pj.sum(axis=0)
    means_j = sums_pj.sum(axis=0) / totals_j
    return np.asarray(value + len(sums_pj) * ((sums_pj - means_j * counts_pj) / totals_j) @ gradient_j)


def student_p(difference: float, error: float, freedom: float) -> float:
    """Two-sided p-value of ``difference`` under Student's distribution; without any error, 0 or 1."""
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, freedom))


def t_around(difference: float, error: float, freedom: float, alpha: float) -> Interval:
    """``difference`` with Student's interval of this error."""
    half = float(stats.t.ppf(1 - alpha / 2, freedom)) * error
    return Interval(difference, difference - half, difference + half, error)


def holm(p_values: Array) -> Array:
    """Adjusted p-values that bound the chance of any false finding among them (Holm 1979).

    p~(i) = max over j <= i of min(1, (m - j + 1) p(j)), p sorted upwards.
    """
    order = np.argsort(p_values, kind="stable")
    count = len(p_values)
    stepped = np.minimum(1.0, (count - np.arange(count)) * p_values[order])
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


def smallest_detectable(error: float, freedom: float, alpha: float) -> float:
    """Difference that a two-sided test of level ``alpha`` finds with 80 % power: (t_{1-alpha/2} + t_.8) * error.

    (Cohen 1988; with Student's quantiles for the normal ones, which is right to a few per cent.)

    Args:
        error: standard error of the difference.
        freedom: its degrees of freedom.
        alpha: level.
    """
    return float((stats.t.ppf(1 - alpha / 2, freedom) + stats.t.ppf(POWER, freedom)) * error)
