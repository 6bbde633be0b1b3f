"""Scores of one unlearning sample, and aggregates over samples. numpy and scipy only.

Names of aggregates are those of locuslab/open-unlearning, so that its logs and ours can be laid side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from scipy import stats

from rlx.benchmarks.tofu.columns import MEMBERSHIP, Clusters, Floats, Table, author_draws, measured, table_of

UTILITY_PARTS = ("retain", "real_authors", "world_facts")
KEPT_SCORES = ("Prob", "ROUGE", "Truth_Ratio")
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "gradnorm", "reference")
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """One question's scores under one model.

    Example:
        ``Sample(part="forget", index=3, author=0, prob=0.9, rouge=1.0, truth_ratio=0.5)``
    """

    part: str
    """``forget``, ``holdout``, ``retain``, ``real_authors`` or ``world_facts``."""
    index: int
    author: int
    """Cluster for resampling: questions about one author are drawn together."""
    prob: float | None = None
    """exp(-mean NLL of the answer), including the end of sequence."""
    prob_normalised: float | None = None
    """p / (p + sum of the wrong answers' p)."""
    rouge: float | None = None
    """ROUGE-L recall of the greedy answer, with stemmer."""
    truth_ratio: float | None = None
    exact: float | None = None
    """Fraction of positions where the teacher-forced argmax is the label."""
    strength: float | None = None
    """Extraction strength, at least 1/n as in open-unlearning."""
    strict_strength: float | None = None
    """Extraction strength that is 0 where even the last token is wrong."""
    attacks: Mapping[str, float] = field(default_factory=dict)
    """Score of each membership attack; lower means more likely a member."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An aggregate with its 95 % interval.

    Example:
        ``Estimate(value=0.61, low=0.55, high=0.66)``
    """

    value: float
    low: float
    high: float

    def plain(self) -> dict[str, float | None]:
        """The values for JSON, which has no NaN: undefined values are null."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def truth_ratio(nll_right: float, nll_wrong: Sequence[float], epsilon: float = 0.0) -> float:
    """TR = exp(-mean_j nll_wrong_j) / exp(-nll_right) (TOFU, arXiv 2401.06121, equation 1).

    Args:
        nll_right: mean NLL of the paraphrase (forget, retain) or of the gold answer (nats a token).
        nll_wrong: mean NLL of each wrong answer (nats a token).
        epsilon: open-unlearning adds 1e-10 to the denominator; without it the ratio is taken in log space.
    """
    wrong = float(np.mean(nll_wrong))
    if epsilon:
        return float(np.exp(-wrong) / (np.exp(-nll_right) + epsilon))
    return float(np.exp(min(nll_right - wrong, 700.0)))


def closeness(ratios: Floats, epsilon: float = 0.0) -> Floats:
    """min(TR, 1/TR): 1 when right and wrong answers are equally likely; the forget set's score."""
    return np.minimum(ratios, 1.0 / np.maximum(ratios + epsilon, 1e-300))


def exact_memorisation(predicted: Sequence[int], labels: Sequence[int]) -> float:
    """Share of positions whose teacher-forced argmax is the label (end of sequence dropped by the caller)."""
    return float(np.mean(np.asarray(predicted) == np.asarray(labels))) if len(labels) else 0.0


def extraction_strength(predicted: Sequence[int], labels: Sequence[int]) -> float:
    """1 - k/n with the smallest k in 0..n-1 for which argmax[k:] = labels[k:] (Carlini et al. 2021, arXiv 2012.07805).

    Where even the last token is wrong, k = n - 1 as in locuslab/open-unlearning's loop: no answer has less than 1/n.
    """
    return 1.0 - min(_tokens_needed(predicted, labels), len(labels) - 1) / len(labels)


def strict_extraction_strength(predicted: Sequence[int], labels: Sequence[int]) -> float:
    """The same with k in 0..n: 0 where even the last token is wrong."""
    return 1.0 - _tokens_needed(predicted, labels) / len(labels)


def _tokens_needed(predicted: Sequence[int], labels: Sequence[int]) -> int:
    """The number of tokens after which every further one is predicted."""
    wrong = np.flatnonzero(np.asarray(predicted) != np.asarray(labels))
    return int(wrong[-1]) + 1 if len(wrong) else 0


def auc(members: Floats, others: Floats) -> float:
    """Probability that a member's score is below a non-member's, ties counting half (Mann-Whitney)."""
    ranked = np.sort(members)
    below, up_to = (np.searchsorted(ranked, others, side=side).sum() for side in ("left", "right"))
    return float((below + up_to) / 2 / (len(members) * len(others)))


def privleak(area: float, retain_area: float = 0.5) -> float:
    """((1-AUC) - (1-AUC_retain)) / (1-AUC_retain) * 100 (MUSE, arXiv 2407.06460), with open-unlearning's 1e-10.

    NaN where the retain model's own scores tell the two sets apart entirely: there is nothing to compare with.
    """
    if retain_area >= 1:
        return float("nan")
    return float(((1 - area) - (1 - retain_area)) / (1 - retain_area + 1e-10) * 100)


def harmonic_mean(values: Sequence[float]) -> float:
    """The harmonic mean n / sum 1/x; 0 when any x is 0."""
    numbers = np.asarray(values, dtype=np.float64)
    return float(len(numbers) / np.sum(1.0 / numbers)) if (numbers > 0).all() else 0.0


def forget_quality(ratios: Floats, retain_ratios: Floats) -> tuple[float, float, int]:
    """Two-sample Kolmogorov-Smirnov test between the truth ratios of two models on the forget set.

    Returns:
        p-value, statistic D and n. The p-value is a step function of D, and two halves of one retain model score
        anywhere from .4 to 1: high values do not rank methods.
    """
    result = stats.ks_2samp(ratios, retain_ratios)
    return float(result.pvalue), float(result.statistic), len(ratios)


def kolmogorov_smirnov(values: Floats, others: Floats) -> float:
    """The statistic D: largest distance between the cumulative distributions of two samples."""
    both = np.concatenate([values, others])
    shares = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (values, others)]
    steps = math.lcm(len(values), len(others))  # D is a multiple of 1 / steps, which the subtraction misses by a bit
    return round(float(np.abs(shares[0] - shares[1]).max()) * steps) / steps


def aggregates(
    samples: Sequence[Sample], retain_model: Sequence[Sample] = (), epsilon: float = 0.0
) -> dict[str, float]:
    """Every aggregate that the samples allow.

    Args:
        samples: one model's samples, of any parts.
        retain_model: the samples of the model that never saw the forget set, for forget quality and privleak.
        epsilon: see ``truth_ratio``.
    """
    return _aggregates(table_of(samples), table_of(retain_model), epsilon)


def kept_utility(metrics: Mapping[str, float]) -> float:
    """Harmonic mean of the measured means of the kept sets: model utility's nine, or those that exist."""
    names = [f"{part}_{score}" for part in UTILITY_PARTS for score in KEPT_SCORES]
    values = [metrics[name] for name in names if name in metrics]
    return harmonic_mean(values) if values else 0.0


def intervals(
    samples: Sequence[Sample], retain_model: Sequence[Sample] = (), epsilon: float = 0.0, seed: int = 0
) -> dict[str, Estimate]:
    """``aggregates`` with percentile intervals from a bootstrap over authors (questions of one are drawn together)."""
    point = aggregates(samples, retain_model, epsilon)
    generator = np.random.Generator(np.random.Philox(seed))
    draw, draw_retain = author_draws(samples, generator), author_draws(retain_model, generator)
    resampled = [_aggregates(draw(), draw_retain(), epsilon, with_p=False) for _ in range(RESAMPLES)]
    result = {}
    for name, value in point.items():
        if name in ("forget_quality", "forget_quality_n"):  # a p-value has no meaningful interval; D has
            result[name] = Estimate(value, value, value)
            continue
        result[name] = Estimate(value, *_percentiles([d[name] for d in resampled if name in d]))
    return result


def clustered_interval(
    columns: Sequence[Floats], authors: Sequence[int], statistic: Callable[..., float], seed: int = 0
) -> Estimate:
    """A statistic of aligned columns with its percentile interval from a bootstrap over authors.

    Args:
        columns: values by sample, each of the same length.
        authors: each sample's cluster.
        statistic: of the columns, in order.
        seed: of the draws.
    """
    clusters = Clusters.of(authors, sorted(set(authors)))
    generator = np.random.Generator(np.random.Philox(seed))
    resampled = []
    for _ in range(RESAMPLES):
        picked = clusters.draw(generator)
        resampled.append(statistic(*(column[picked] for column in columns)))
    return Estimate(statistic(*columns), *_percentiles(resampled))


def _percentiles(resampled: Sequence[float]) -> tuple[float, float]:
    """The central 95 % of the resamples; NaN if the statistic is undefined in 5 % of them or more."""
    finite = [value for value in resampled if np.isfinite(value)]
    if len(finite) <= 0.95 * len(resampled):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def kept_scores(sample: Sample) -> dict[str, float]:
    """What a sample of a kept set adds to the means of its part: those of the three scores that it has.

    The probability is normalised by the wrong answers' but for ``retain``; the truth ratio counts as max(0, 1 - TR).
    """
    probability = sample.prob if sample.part == "retain" else sample.prob_normalised
    right = None if sample.truth_ratio is None else max(0.0, 1.0 - sample.truth_ratio)
    scores = zip(KEPT_SCORES, (probability, sample.rouge, right), strict=True)
    return {name: value for name, value in scores if value is not None}


def _aggregates(table: Table, retain_model: Table, epsilon: float, with_p: bool = True) -> dict[str, float]:
    """See ``aggregates``; without the p-value of forget quality, the slowest of all, unless ``with_p``."""
    metrics: dict[str, float] = {}
    for name, key in (
        ("exact_memorization", "exact"),
        ("extraction_strength", "strength"),
        ("extraction_strength_strict", "strict_strength"),
        ("forget_Q_A_Prob", "prob"),
        ("forget_Q_A_ROUGE", "rouge"),
    ):
        _put_mean(metrics, name, measured(table, "forget", key))
    ratios, others = (measured(models, "forget", "truth_ratio") for models in (table, retain_model))
    if len(ratios):
        metrics["forget_truth_ratio"] = float(np.mean(closeness(ratios, epsilon)))
        if len(others) and with_p:
            p, d, n = forget_quality(ratios, others)
            metrics |= {"forget_quality": p, "forget_quality_D": d, "forget_quality_n": n}
        elif len(others):
            metrics["forget_quality_D"] = kolmogorov_smirnov(ratios, others)
    areas, retain_areas = _areas(table), _areas(retain_model)
    metrics |= {f"mia_{name}": area for name, area in areas.items()}
    if "min_k" in areas:
        metrics["privleak"] = privleak(areas["min_k"], retain_areas.get("min_k", 0.5))
    return metrics | _utility(table)


def _utility(table: Table) -> dict[str, float]:
    """Means of the kept sets (see ``kept_scores``) and, if all nine exist, their harmonic mean."""
    nine: list[float] = []
    metrics: dict[str, float] = {}
    for part in UTILITY_PARTS:
        probability = measured(table, part, "prob" if part == "retain" else "prob_normalised")
        right = np.maximum(0.0, 1.0 - measured(table, part, "truth_ratio"))
        for name, values in zip(KEPT_SCORES, (probability, measured(table, part, "rouge"), right), strict=True):
            _put_mean(metrics, f"{part}_{name}", values)
            nine += [float(np.mean(values))] if len(values) else []
    if len(nine) == 9:
        metrics["model_utility"] = harmonic_mean(nine)
    return metrics


def _areas(table: Table) -> dict[str, float]:
    areas = {}
    for name in ATTACKS:
        members, others = (measured(table, part, MEMBERSHIP + name) for part in ("forget", "holdout"))
        if len(members) and len(others):
            areas[name] = auc(members, others)
    return areas


def _put_mean(metrics: dict[str, float], name: str, values: Floats) -> None:
    if len(values):
        metrics[name] = float(np.mean(values))
