"""Every statistic against brute force, closed forms, published values or simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from rlx.compare.load.results import RunResult, Scores, Study
from rlx.compare.statistics.analysis import analyse
from rlx.compare.statistics.comparison import Column
from rlx.compare.statistics.significance import (
    holm,
    paired_p,
    sign_flip_p,
    smallest_detectable,
    student_p,
    two_level_bootstrap,
    welch,
)
from rlx.errors import UserError


def run(method, seed, scores_pn, benchmark="aime24", protocol=None):
    ids = tuple(f"p{i:03d}" for i in range(len(scores_pn)))
    scores = (Scores(benchmark, ids, np.asarray(scores_pn, dtype=float)),)
    return RunResult(f"{method}_s{seed}", method, seed, "m", protocol or {}, scores)


def test_sign_flips_of_few_problems_are_the_share_of_all_assignments():
    diffs = np.array([0.5, -0.25, 0.75, 0.5, 0.0, 0.125])
    means = [abs(np.mean(diffs * signs)) for signs in itertools.product((1, -1), repeat=len(diffs))]
    expected = np.mean([mean >= abs(diffs.mean()) - 1e-12 for mean in means])
    assert sign_flip_p(diffs[:, None], np.random.default_rng(0))[0] == pytest.approx(expected, abs=1e-12)


def test_sampled_sign_flips_agree_with_the_exact_distribution():
    rng = np.random.default_rng(1)
    diffs = rng.normal(0.12, 0.3, size=16)
    signs = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)
    exact = np.mean(np.abs(signs @ diffs) >= abs(diffs.sum()) - 1e-12)
    assert sign_flip_p(diffs[:, None], rng)[0] == pytest.approx(exact, abs=0.01)


def test_no_difference_on_any_problem_is_a_p_value_of_one():
    assert sign_flip_p(np.zeros((30, 1)), np.random.default_rng(0))[0] == 1
    assert paired_p(np.zeros((300, 1)), np.random.default_rng(0))[0] == 1


def test_many_problems_take_the_paired_t_test_of_scipy():
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 400))
    expected = reference.ttest_rel(a, b).pvalue
    assert paired_p((a - b)[:, None], rng)[0] == pytest.approx(expected, rel=1e-9)


def test_welch_is_that_of_scipy():
    a, b = np.array([0.61, 0.66, 0.58, 0.63, 0.64]), np.array([0.55, 0.60, 0.41])
    error, freedom = welch(a, b)
    expected = reference.ttest_ind(a, b, equal_var=False)
    assert freedom == pytest.approx(expected.df, rel=1e-12)
    assert student_p(a.mean() - b.mean(), error, freedom) == pytest.approx(expected.pvalue, rel=1e-9)


def test_holm_equals_statsmodels():
    # statsmodels.stats.multitest.multipletests(p, method="holm")[1], statsmodels 0.15.0
    given = np.array([0.01, 0.04, 0.03, 0.005, 0.5, 0.03])
    expected = [0.05, 0.12, 0.12, 0.03, 0.5, 0.12]
    assert holm(given) == pytest.approx(expected, abs=1e-12)
    assert holm(np.array([0.2, 0.9, 0.6])) == pytest.approx([0.6, 1.0, 1.0], abs=1e-12)
    assert len(holm(np.array([]))) == 0


def test_the_smallest_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(3)
    difference = smallest_detectable(0.3 / np.sqrt(25), 24, 0.05)
    samples = rng.normal(difference, 0.3, size=(20_000, 25))
    assert np.mean(reference.ttest_1samp(samples, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.015)


def test_the_bootstrap_of_one_seed_has_the_standard_error_of_the_mean():
    means = np.random.default_rng(4).random((1, 60))
    replicates = two_level_bootstrap([means], np.random.default_rng(0))[:, 0]
    assert replicates.std() == pytest.approx(means.std() / np.sqrt(60), rel=0.03)
    assert replicates.mean() == pytest.approx(means.mean(), abs=0.002)


def test_the_bootstrap_of_seeds_has_welchs_error_where_problems_do_not_matter():
    seeds = np.array([[0.61, 0.66, 0.58, 0.63, 0.64], [0.55, 0.60, 0.41, 0.52, 0.57]])
    replicates = two_level_bootstrap([np.repeat(row[:, None], 4, axis=1) for row in seeds], np.random.default_rng(0))
    assert (replicates[:, 0] - replicates[:, 1]).std() == pytest.approx(welch(*seeds)[0], rel=0.03)


def test_the_bootstrap_pairs_methods_by_problem():
    hard = np.linspace(0, 1, 50)[None]
    replicates = two_level_bootstrap([hard, hard + 0.1], np.random.default_rng(0))
    assert (replicates[:, 1] - replicates[:, 0]) == pytest.approx(0.1, abs=1e-12)
    assert replicates[:, 0].std() > 0.03


def test_one_seed_is_a_question_about_checkpoints_and_three_are_one_about_methods():
    rng = np.random.default_rng(5)
    for seeds, question in ((1, "checkpoints"), (2, "checkpoints"), (3, "methods")):
        runs = [run(m, s, rng.random((20, 4)).round()) for m in ("grpo", "dgpo") for s in range(seeds)]
        (pair,) = analyse(Study("x", "grpo", tuple(runs))).pairs
        assert pair.question == question


def test_wins_losses_ties_and_the_problems_that_flipped_are_counted_by_problem():
    base, other = np.zeros((6, 2)), np.zeros((6, 2))
    other[0], other[1, 0], base[5] = 1, 1, 1
    (pair,) = analyse(Study("x", "grpo", (run("grpo", 0, base), run("dgpo", 0, other)))).pairs
    assert pair.won == (2, 1, 3)
    assert [(f.problem_id, f.method, f.baseline) for f in pair.flipped] == [
        ("p000", 1, 0),
        ("p005", 0, 1),
        ("p001", 0.5, 0),
    ]
    assert pair.difference.mean == pytest.approx(0.5 / 6)


def test_a_clear_difference_is_declared_and_only_its_winner_is_best():
    rng = np.random.default_rng(6)
    hard = rng.random((40, 1))
    runs = [run(m, s, rng.random((40, 16)) < hard * f) for m, f in (("grpo", 0.5), ("dgpo", 0.95)) for s in range(4)]
    comparison = analyse(Study("x", "grpo", tuple(runs)))
    (pair,) = comparison.pairs
    assert pair.verdict == "better" and pair.p_holm < 0.01 and pair.difference.low > 0
    assert [cell.method for cell in comparison.cells if cell.best] == ["dgpo"]


def test_methods_that_are_not_distinguishable_are_all_best():
    rng = np.random.default_rng(7)
    runs = [run(m, 0, rng.random((30, 4)) < 0.5) for m in ("grpo", "dgpo", "maspo")]
    comparison = analyse(Study("x", "grpo", tuple(runs)))
    assert all(cell.best for cell in comparison.cells)
    assert {pair.verdict for pair in comparison.pairs} == {"not distinguishable"}
    assert all(pair.detectable > abs(pair.difference.mean) for pair in comparison.pairs)


def test_holm_runs_over_every_pair_of_the_table():
    rng = np.random.default_rng(8)
    pairs = analyse(
        Study(
            "x", "grpo", tuple(run(m, 0, rng.random((30, 8)) < f) for m, f in (("grpo", 0.4), ("a", 0.5), ("b", 0.6)))
        )
    ).pairs
    assert [pair.p_holm for pair in pairs] == pytest.approx(holm(np.array([pair.p for pair in pairs])))


def test_problems_in_another_order_are_aligned_and_other_problems_refused():
    base = run("grpo", 0, np.array([[0.0], [1.0], [0.0]]))
    turned = Scores("aime24", ("p002", "p001", "p000"), np.array([[0.0], [1.0], [1.0]]))
    runs = (base, RunResult("d", "dgpo", 0, "m", {}, (turned,)))
    comparison = analyse(Study("x", "grpo", runs))
    assert comparison.cell(Column("m", "aime24"), "dgpo").by_problem.tolist() == [1.0, 1.0, 0.0]
    other = Scores("aime24", ("p002", "p001", "p009"), np.ones((3, 1)))
    with pytest.raises(UserError, match="run d has other problems of aime24"):
        analyse(Study("x", "grpo", (base, RunResult("d", "dgpo", 0, "m", {}, (other,)))))


def test_a_baseline_that_no_run_has_is_refused_with_the_choices():
    with pytest.raises(UserError, match="baseline 'ppo' .* dgpo"):
        analyse(Study("x", "ppo", (run("dgpo", 0, np.ones((3, 1))),)))


def test_pass_at_k_rises_to_the_share_of_problems_ever_solved():
    scores = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    (cell,) = analyse(Study("x", "grpo", (run("grpo", 0, scores),))).cells
    assert cell.pass_at == pytest.approx({1: 5 / 12, 2: (0.5 + 1) / 3, 4: 2 / 3})


def simulated(rng, repeats, problems, samples, gain, wobble=0.0):
    """[repeats, p] mean scores of two models on problems of very unequal difficulty (Beta(.4, .6))."""
    chance = rng.beta(0.4, 0.6, size=(repeats, problems))
    moved = np.clip(chance + gain + wobble * rng.normal(size=chance.shape), 0, 1)
    return tuple(rng.binomial(samples, c) / samples for c in (chance, moved))


@pytest.mark.slow
@pytest.mark.parametrize("problems", [30, 500])
def test_without_a_true_difference_one_test_in_twenty_declares_one(problems):
    rng = np.random.default_rng(9)
    a, b = simulated(rng, 2000, problems, 32, gain=0.0)
    rate = np.mean(paired_p((a - b).T, rng) < 0.05)
    assert 0.03 <= rate <= 0.07, rate


@pytest.mark.slow
def test_without_a_true_difference_five_seeds_declare_one_at_most_eight_times_in_a_hundred():
    rng = np.random.default_rng(10)
    declared = []
    for _ in range(300):
        chance = rng.beta(0.4, 0.6, size=30)
        runs = []
        for method in ("grpo", "dgpo"):
            for seed in range(5):
                able = np.clip(chance + rng.normal(0, 0.04) + rng.normal(0, 0.05, size=30), 0, 1)
                runs.append(run(method, seed, rng.random((30, 8)) < able[:, None]))
        (pair,) = analyse(Study("x", "grpo", tuple(runs))).pairs
        declared.append(pair.verdict != "not distinguishable")
    assert 0.005 <= np.mean(declared) <= 0.08, np.mean(declared)


@pytest.mark.slow
def test_power_on_simulated_aime_is_three_times_that_of_an_unpaired_z_test():
    rng = np.random.default_rng(11)
    a, b = simulated(rng, 1000, 30, 32, gain=0.08, wobble=0.1)
    paired = np.mean(paired_p((b - a).T, rng) < 0.05)
    errors = np.sqrt((a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)) / 30)
    unpaired = np.mean(np.abs(b.mean(axis=1) - a.mean(axis=1)) / errors > 1.96)
    assert paired >= 3 * unpaired and paired > 0.6, (paired, unpaired)
