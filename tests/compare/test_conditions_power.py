"""Simulated studies with a known truth: declared errors without a difference, and the power to find a collapse."""

from __future__ import annotations

import numpy as np
import pytest

from rlx.compare.load.results import RunResult, Scores, Study
from rlx.compare.statistics import significance
from rlx.compare.statistics.analysis import analyse
from rlx.specs.study import ConditionAxis

LR = ConditionAxis("optim.lr", ("1e-4", "2e-4", "3e-4", "4e-4", "5e-4"))
PROBLEMS, SAMPLES, SEEDS = 50, 2, 8


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch):
    """Bootstrap replicates determine the intervals of scores only, not the tests."""
    monkeypatch.setattr(significance, "REPLICATES", 20)


def one_run(rng, method, seed, value, chance, collapses):
    start = 0.35 + rng.normal(0, 0.02)
    end = rng.uniform(0, 0.1) if collapses else 0.7 - 0.03 * LR.values.index(value) + rng.normal(0, 0.04)
    scores = rng.random((PROBLEMS, SAMPLES)) < np.clip(chance + end - chance.mean(), 0, 1)[:, None]
    between = rng.normal(0, 0.01, size=2)
    curve = [start, *(start + (end - start) * np.array([1, 2]) / 3 + between), scores.mean()]
    metrics = tuple({"step": 10 * i, "eval/sampled_accuracy": float(y)} for i, y in enumerate(curve))
    ids = tuple(f"p{number}" for number in range(PROBLEMS))
    name = f"optim.lr={value}"
    return RunResult(
        f"{method}{seed}{value}", method, seed, "tiny", {}, (Scores("sums", ids, scores.astype(float)),), metrics,
        condition=name, steps=30,
    )  # fmt: skip


def simulated(rng, shares, by_seed=False):
    """A study whose methods collapse in these shares of runs; with ``by_seed`` a seed collapses everywhere or nowhere.

    A share is a number for all conditions, or one number per condition.
    """
    chance = rng.beta(2, 2, size=PROBLEMS)
    runs = []
    for method, share in shares.items():
        per_condition = np.broadcast_to(share, len(LR.values))
        for seed in range(SEEDS):
            common = rng.random()
            for value, probability in zip(LR.values, per_condition, strict=True):
                collapses = (common if by_seed else rng.random()) < probability
                runs.append(one_run(rng, method, seed, value, chance, collapses))
    return Study("simulated", "grpo", tuple(runs), condition_axes=(LR,))


def declared(comparison):
    """Whether any difference is declared: in a score, an area or a number of collapsed runs."""
    alpha = comparison.study.alpha
    summary = [t for s in comparison.summaries for t in (s.area_test, *s.collapse_tests) if t is not None]
    return any(t.p_holm < alpha for t in summary) or any(p.verdict != "not distinguishable" for p in comparison.pairs)


def collapse_declared(comparison, method):
    (summary,) = (s for s in comparison.summaries if s.method == method)
    return any(test.p_holm < comparison.study.alpha and test.more for test in summary.collapse_tests)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "studies"), [(0.0, 300), (0.1, 300), (0.5, 1000)])
def test_without_a_difference_at_most_one_study_in_twenty_declares_one(share, studies):
    rng = np.random.default_rng(77)
    methods = dict.fromkeys(("grpo", "dgpo", "maspo"), share)
    errors = [declared(analyse(simulated(rng, methods))) for _ in range(studies)]
    assert np.mean(errors) <= 0.05, np.mean(errors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "share", "by_seed", "power"),
    [
        (3, 0.5, False, 0.95),  # half of the runs of every condition
        (3, [0, 0, 0, 0.5, 0.5], False, 0.7),  # half of the runs of the two largest learning rates
        (13, 0.5, True, 0.7),  # the same seeds in every condition, as many methods as the staleness ladder
    ],
)
def test_a_method_that_collapses_in_half_of_its_seeds_is_found_with_eight_seeds(methods, share, by_seed, power):
    rng = np.random.default_rng(32)
    names = ["grpo", *(f"m{number}" for number in range(methods - 1))]
    shares = {**dict.fromkeys(names, 0.0), names[-1]: share}
    studies = [analyse(simulated(rng, shares, by_seed)) for _ in range(40 if methods > 3 else 100)]
    found = np.mean([collapse_declared(study, names[-1]) for study in studies])
    wrong = np.mean([any(collapse_declared(study, name) for name in names[:-1]) for study in studies])
    assert found >= power and wrong <= 0.05, (found, wrong)
