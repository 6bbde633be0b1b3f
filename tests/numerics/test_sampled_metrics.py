"""Metrics of sampled answers against brute force, and intervals against simulation."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlx.numerics.intervals import bootstrap, of_average, over_problems, over_samples, wilson
from rlx.numerics.sampled import best_at_k, maj_at_k, pass_at_k, pass_hat_k


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_and_pass_hat_k_are_shares_of_all_subsets(n):
    for correct in range(n + 1):
        samples = [1] * correct + [0] * (n - correct)
        for k in range(1, n + 1):
            subsets = list(combinations(samples, k))
            assert pass_at_k(n, correct, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets), abs=1e-12)
            assert pass_hat_k(n, correct, k) == pytest.approx(sum(all(s) for s in subsets) / len(subsets), abs=1e-12)


@pytest.mark.parametrize("n", range(1, 6))
def test_best_at_k_is_the_share_of_all_draws_with_replacement(n):
    for correct in range(n + 1):
        samples = [1] * correct + [0] * (n - correct)
        for k in range(1, 4):
            draws = list(product(samples, repeat=k))
            assert best_at_k(n, correct, k) == pytest.approx(sum(any(d) for d in draws) / len(draws), abs=1e-12)


def vote(answers, scores, chosen):
    counts = Counter(answers[i] for i in chosen if answers[i] is not None)
    if not counts:
        return 0.0
    top = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == top]
    return sum(max(s for a, s in zip(answers, scores, strict=True) if a == winner) for winner in winners) / len(winners)


@given(st.lists(st.sampled_from(["right", "also right", "wrong", "worse", None]), min_size=1, max_size=6), st.data())
def test_maj_at_k_is_the_mean_over_all_subsets_with_ties_split(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    scores = [float(answer is not None and "right" in answer) for answer in answers]
    subsets = list(combinations(range(len(answers)), k))
    expected = sum(vote(answers, scores, subset) for subset in subsets) / comb(len(answers), k)
    assert maj_at_k(answers, scores, k) == pytest.approx(expected, abs=1e-12)


def test_one_sample_is_the_same_under_every_name():
    for correct in range(9):
        average = correct / 8
        answers = ["7"] * correct + [str(n + 10) for n in range(8 - correct)]
        scores = [float(answer == "7") for answer in answers]
        assert pass_at_k(8, correct, 1) == pytest.approx(average)
        assert pass_hat_k(8, correct, 1) == pytest.approx(average)
        assert best_at_k(8, correct, 1) == pytest.approx(average)
        assert maj_at_k(answers, scores, 1) == pytest.approx(average)


def test_the_amc23_case_shows_how_the_papers_figure_differs_from_pass_at_32():
    correct = [32] * 38 + [1, 0]
    assert f"{100 * sum(best_at_k(32, c, 32) for c in correct) / 40:.1f}" == "96.6"
    assert f"{100 * sum(pass_at_k(32, c, 32) for c in correct) / 40:.1f}" == "97.5"


def test_a_vote_of_many_samples_takes_no_time_and_stays_a_probability():
    answers = [str(n % 40) for n in range(128)]
    scores = [float(answer == "3") for answer in answers]
    assert 0 < maj_at_k(answers, scores, 64) < 1


def test_the_interval_over_problems_is_students_by_hand():
    # mean .5, s = .5774, t(3) = 3.182: half-width .9187, clipped
    assert over_problems([0.0, 0.0, 1.0, 1.0]) == (0.0, 1.0)
    low, high = over_problems([0.4, 0.5, 0.5, 0.6])
    assert (low, high) == pytest.approx((0.5 - 3.18245 * 0.0408248, 0.5 + 3.18245 * 0.0408248), abs=1e-5)


def test_scores_that_are_all_alike_still_have_an_interval():
    assert over_problems([0.0] * 30) == pytest.approx(wilson(0, 30))
    assert over_problems([1.0] * 30) == pytest.approx(wilson(30, 30))


def test_samples_of_problems_without_doubt_leave_none():
    assert over_samples([8, 0, 8], 8) == pytest.approx((2 / 3, 2 / 3))
    low, high = over_samples([4, 4], 8)  # variance .25 / 7 / 2, t(14) = 2.1448
    assert (high - low) / 2 == pytest.approx(2.14479 * (0.25 / 7 / 2) ** 0.5, abs=1e-5)


def test_an_average_of_two_equal_intervals_is_narrower_by_root_two():
    low, high = of_average([(0.4, 0.6), (0.4, 0.6)], [0.5, 0.5])
    assert (low, high) == pytest.approx((0.5 - 0.1 / 2**0.5, 0.5 + 0.1 / 2**0.5))


def covered(interval, problems, rng, truth, trials):
    hits = 0
    for _ in range(trials):
        chances = rng.beta(0.5, 0.7, size=problems)  # hard and easy problems, few between: AIME's shape
        scores = rng.binomial(8, chances) / 8
        low, high = interval(scores.tolist())
        hits += low <= truth <= high
    return hits / trials


@pytest.mark.slow
@pytest.mark.parametrize("problems", [30, 90, 500])
@pytest.mark.parametrize("interval", [over_problems, lambda scores: bootstrap(scores, draws=600)])
def test_intervals_over_problems_cover_as_declared(interval, problems):
    rng = np.random.Generator(np.random.Philox(problems))
    assert covered(interval, problems, rng, 0.5 / 1.2, 1500) == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("problems", [30, 90, 500])
def test_intervals_over_samples_cover_as_declared(problems):
    rng = np.random.Generator(np.random.Philox(problems))
    chances = rng.beta(0.5, 0.7, size=problems)
    truth = chances.mean()
    hits = 0
    for _ in range(1500):
        low, high = over_samples(rng.binomial(8, chances).tolist(), 8)
        hits += low <= truth <= high
    assert hits / 1500 == pytest.approx(0.95, abs=0.02)
