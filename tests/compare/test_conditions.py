"""Studies with conditions: their spec, the summary across conditions, and how failed and collapsed runs count."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as reference

from rlx.compare.load.results import RunResult, Scores, Study, UnfinishedRun
from rlx.compare.report.conditions import condition_grids, definitions, summary_conclusions
from rlx.compare.report.tables import caption, cautions, conclusions, pairs_grids, scores_grid
from rlx.compare.report.write import RENDERERS
from rlx.compare.statistics.analysis import analyse
from rlx.compare.statistics.comparison import MEAN_OVER_CONDITIONS, Column
from rlx.compare.statistics.conditions import curve_of
from rlx.compare.statistics.exact import clopper_pearson, permutation_p
from rlx.compare.statistics.significance import holm
from rlx.compare.study.runner import plan_runs, read_study
from rlx.errors import UserError
from rlx.specs.study import ConditionAxis, condition_axes, variants

LR = ConditionAxis("optim.lr", ("1e-4", "2e-4", "3e-4"))
PROBLEMS = 30
BASE = {"name": "x", "baseline": "grpo"}


def run(method, seed, value, end, start=0.35, failed=False, key="optim.lr"):
    """A run with the accuracy ``end`` and a score near it, which differs between problems and seeds."""
    difficulty = np.linspace(-0.2, 0.2, PROBLEMS) + 0.01 * np.sin(7 * seed + np.arange(PROBLEMS))
    scores = np.zeros((PROBLEMS, 1)) if failed else np.clip(end + difficulty + 0.005 * seed, 0, 1)[:, None]
    steps = [0] if failed else [0, 10, 20, 30]
    metrics = tuple({"step": s, "eval/sampled_accuracy": start + (end - start) * s / 30} for s in steps)
    ids = tuple(f"p{number}" for number in range(PROBLEMS))
    run_id = f"{method}_{value}_s{seed}"
    name = f"{key}={value}"
    return RunResult(
        run_id, method, seed, "tiny", {}, (Scores("sums", ids, scores),), metrics, None, name, 30, failed=failed
    )


def ladder(ends, seeds=8, axis=LR):
    """A study from each method's final accuracies: a list per condition, repeated over the seeds; None fails."""
    runs = []
    for (method, values), (index, value), seed in itertools.product(ends.items(), enumerate(axis.values), range(seeds)):
        end = values[index][seed % len(values[index])]
        runs.append(run(method, seed, value, 0.0 if end is None else end, failed=end is None))
    return Study("ladder", "grpo", tuple(runs), condition_axes=(axis,))


GOOD, BAD = [0.7, 0.71, 0.69, 0.72], [0.1, 0.12, 0.08, 0.11]
HALF = [0.7, 0.1, 0.7, 0.1]


@pytest.fixture
def study():
    return ladder({"grpo": [GOOD] * 3, "dgpo": [GOOD, GOOD, HALF], "is_pg": [GOOD, HALF, BAD]})


def summary_of(comparison, method):
    return next(summary for summary in comparison.summaries if summary.method == method)


def test_the_interval_of_a_share_is_that_of_scipy():
    for successes, trials in ((0, 8), (4, 8), (8, 8), (3, 20)):
        exact = reference.binomtest(successes, trials).proportion_ci(0.95, method="exact")
        assert clopper_pearson(successes, trials, 0.05) == pytest.approx((exact.low, exact.high))
    assert clopper_pearson(0, 0, 0.05) == (0.0, 1.0)


def test_the_permutation_test_counts_all_divisions_of_the_seeds():
    a, b = [3, 2, 0, 3], [0, 1, 0, 0, 1]
    sums = [sum(part) for part in itertools.combinations([*a, *b], 4)]
    expected = 4 * sum(a + b) / 9
    share = np.mean([abs(s - expected) >= abs(sum(a) - expected) - 1e-9 for s in sums])
    assert permutation_p(a, b) == pytest.approx(share)
    assert permutation_p([0] * 4, [0] * 4) == 1.0


def test_the_permutation_test_of_counts_of_0_and_1_is_fishers():
    for left, right in ((4, 0), (6, 1), (8, 0), (3, 2)):
        table = [[left, 8 - left], [right, 8 - right]]
        a, b = ([1] * count + [0] * (8 - count) for count in (left, right))
        assert permutation_p(a, b) == pytest.approx(reference.fisher_exact(table).pvalue)


def test_the_area_is_the_mean_height_of_the_curve_and_a_failed_run_is_0_after_its_last_point():
    metrics = ({"step": 0, "a": 0.2}, {"step": 10, "a": 0.6}, {"step": 15}, {"step": 30, "a": 0.6})
    finished = replace(run("grpo", 0, "1e-4", 0.6), metrics=metrics)
    assert curve_of(finished, "a").area == pytest.approx((10 * 0.4 + 20 * 0.6) / 30)
    failed = replace(finished, metrics=metrics[:2], failed=True, steps=30)
    assert curve_of(failed, "a").area == pytest.approx(10 * 0.4 / 30)
    assert curve_of(replace(failed, metrics=()), "a").area == 0.0


def test_every_condition_has_its_table_and_the_last_column_is_their_mean(study):
    comparison = analyse(study)
    names = [column.condition for column in comparison.columns]
    assert names == ["optim.lr=1e-4", "optim.lr=2e-4", "optim.lr=3e-4", MEAN_OVER_CONDITIONS]
    assert list(scores_grid(comparison).header[2:]) == names
    assert [len(grid.rows) for grid in pairs_grids(comparison)] == [2] * 4
    for method in comparison.methods:
        single = [comparison.cell(Column("tiny", "sums", name), method).score.mean for name in names[:3]]
        mean = comparison.cell(Column("tiny", "sums", MEAN_OVER_CONDITIONS), method)
        assert mean.score.mean == pytest.approx(np.mean(single)) and mean.pass_at == {}


def test_one_holm_correction_covers_all_conditions_and_the_summary(study):
    comparison = analyse(study)
    tests = [(pair.p, pair.p_holm) for pair in comparison.pairs]
    for summary in comparison.summaries:
        area = [summary.area_test] if summary.area_test else []
        tests += [(test.p, test.p_holm) for test in [*area, *summary.collapse_tests]]
    assert len(tests) == 4 * 2 + 2 + (2 + 3) == len(comparison.pairs) + comparison.summary_tests
    assert [p for _, p in tests] == pytest.approx(holm(np.array([p for p, _ in tests])).tolist())
    assert "over 15 tests: 8 comparisons with grpo" in caption(comparison)


def test_collapses_are_counted_by_condition_and_by_seed(study):
    is_pg = summary_of(analyse(study), "is_pg")
    assert [(count.collapsed, count.above, count.runs) for count in is_pg.counts] == [(0, 8, 8), (4, 4, 8), (8, 0, 8)]
    assert is_pg.counts[1].interval == pytest.approx((0.157, 0.843), abs=1e-3)
    assert is_pg.seeds_collapsed == 8 and is_pg.seeds == 8
    against = {test.comparison: test.p for test in is_pg.collapse_tests}
    assert against["against grpo"] == pytest.approx(2 / 12870), "all 8 seeds of one group of 16"
    assert against["against all others"] < 1e-4


def test_a_run_that_ends_at_its_start_has_neither_collapsed_nor_survived():
    flat = summary_of(analyse(ladder({"grpo": [GOOD] * 3, "dgpo": [[0.35] * 4] * 3})), "dgpo")
    assert [(count.collapsed, count.above) for count in flat.counts] == [(0, 0)] * 3
    assert flat.survived[0].value is None


@pytest.mark.parametrize(("seeds", "below", "survives"), [(8, 1, True), (8, 2, False), (4, 1, False), (16, 2, True)])
def test_a_condition_is_survived_if_seven_of_eight_seeds_end_above_their_start(seeds, below, survives):
    ends = [0.1] * below + [0.7] * (seeds - below)
    axis = ConditionAxis("optim.lr", ("1e-4", "2e-4"))
    runs = [run("grpo", s, value, end) for value in axis.values for s, end in enumerate(ends)]
    summary = summary_of(analyse(Study("x", "grpo", tuple(runs), condition_axes=(axis,))), "grpo")
    assert summary.survived[0].value == ("2e-4" if survives else None)


def test_the_largest_condition_survived_names_smaller_ones_that_were_not(study):
    comparison = analyse(study)
    largest = {summary.method: summary.survived[0].value for summary in comparison.summaries}
    assert largest == {"grpo": "3e-4", "dgpo": "2e-4", "is_pg": "1e-4"}
    gap = analyse(ladder({"grpo": [GOOD] * 3, "dgpo": [GOOD, HALF, GOOD]}))
    text = [cell.text for row in condition_grids(gap)[2].rows for cell in row]
    assert "3e-4 (but not 2e-4)" in text
    assert "8/8 [63, 100]" in text


def test_a_failed_run_counts_as_collapsed_with_the_score_0_in_every_format():
    failing = ladder({"grpo": [GOOD] * 3, "dgpo": [GOOD, GOOD, [0.7, None, 0.7, 0.7]]})
    runs = [r.run_id for r in failing.runs if r.failed]
    assert len(runs) == 2
    study = replace(failing, missing=dict.fromkeys(runs, "train: loss is not finite"))
    comparison = analyse(study)
    last = summary_of(comparison, "dgpo").counts[2]
    assert (last.runs, last.collapsed, last.failed, last.survived) == (8, 2, 2, False)
    cell = comparison.cell(Column("tiny", "sums", "optim.lr=3e-4"), "dgpo")
    assert len(cell.seeds) == 8 and sum(score == 0 for score in cell.by_seed) == 2
    assert all("counts as collapsed, with the score 0" in text for text in cautions(comparison)[:2])
    for name, render in RENDERERS.items():
        text = render(comparison).replace("\\", "")
        assert "2 failed" in text or name in ("report.csv", "report.json"), name
        assert "counts as collapsed" in text, name


def test_unfinished_runs_are_shown_and_do_not_survive():
    full = ladder({"grpo": [GOOD] * 3, "dgpo": [GOOD] * 3})
    lost = [r for r in full.runs if (r.method, r.condition) == ("dgpo", "optim.lr=3e-4") and r.seed < 2]
    unfinished = tuple(UnfinishedRun(r.method, r.model, r.seed, r.condition) for r in lost)
    study = replace(
        full,
        runs=tuple(r for r in full.runs if r not in lost),
        unfinished=unfinished,
        missing={r.run_id: "cut off" for r in lost},
    )
    comparison = analyse(study)
    summary = summary_of(comparison, "dgpo")
    assert summary.seeds == 6, "the summary compares seeds that have all conditions"
    assert (summary.counts[2].runs, summary.counts[2].unfinished, summary.counts[2].survived) == (6, 2, False)
    assert summary.survived[0].value == "2e-4"
    assert "6/6 [54, 100], 2 unfinished" in RENDERERS["report.md"](comparison)
    assert sum("missing:" in text for text in cautions(comparison)) == 2


def test_with_few_seeds_nothing_is_tested_in_the_summary():
    comparison = analyse(ladder({"grpo": [GOOD] * 3, "dgpo": [BAD] * 3}, seeds=2))
    assert comparison.summary_tests == 0 and summary_of(comparison, "dgpo").counts[0].collapsed == 2


def test_runs_without_a_curve_have_tables_and_no_summary(study):
    bare = analyse(replace(study, runs=tuple(replace(r, metrics=()) for r in study.runs)))
    assert not bare.summaries and len(pairs_grids(bare)) == 4
    assert "not every finished run has a learning curve" in definitions(bare)
    by_reward = tuple(
        replace(
            r, metrics=tuple({"step": m["step"] + 1, "train/reward": m["eval/sampled_accuracy"]} for m in r.metrics)
        )
        for r in study.runs
    )
    assert analyse(replace(study, runs=by_reward)).summaries[0].metric == "train/reward"


def test_two_axes_give_the_largest_value_of_each_for_every_value_of_the_other():
    axes = (LR, ConditionAxis("batch.updates_per_rollout", ("4", "16")))
    ends = {("1e-4", "4"): 0.7, ("2e-4", "4"): 0.7, ("3e-4", "4"): 0.1, ("1e-4", "16"): 0.7}
    runs = []
    for (lr, updates), method, seed in itertools.product(
        itertools.product(LR.values, axes[1].values), ("grpo", "dgpo"), range(4)
    ):
        one = run(method, seed, lr, ends.get((lr, updates), 0.1))
        name = f"optim.lr={lr}, batch.updates_per_rollout={updates}"
        runs.append(replace(one, run_id=f"{one.run_id}_{updates}", condition=name))
    comparison = analyse(Study("x", "grpo", tuple(runs), condition_axes=axes))
    survived = {(s.axis, s.at): s.value for s in summary_of(comparison, "dgpo").survived}
    assert survived == {
        ("optim.lr", "batch.updates_per_rollout=4"): "2e-4",
        ("optim.lr", "batch.updates_per_rollout=16"): "1e-4",
        ("batch.updates_per_rollout", "optim.lr=1e-4"): "16",
        ("batch.updates_per_rollout", "optim.lr=2e-4"): "4",
        ("batch.updates_per_rollout", "optim.lr=3e-4"): None,
    }
    labels = re.findall(r"\\label\{(.*?)\}", RENDERERS["report.tex"](comparison))
    assert len(labels) == len(set(labels)) == 1 + 3 + 7


def test_every_format_shows_the_conditions(study):
    comparison = analyse(study)
    page = RENDERERS["report.html"](comparison)
    assert page.count("<h3>optim.lr=2e-4</h3>") == 1, "small multiples: one panel per condition of the only metric"
    for format_name in ("report.md", "report.tex", "report.html"):
        text = RENDERERS[format_name](comparison)
        assert "Collapsed runs" in text and "Largest condition survived" in text and "4/8 [16, 84]" in text
    rows = list(csv.DictReader(io.StringIO(RENDERERS["report.csv"](comparison))))
    counted = [r for r in rows if (r["kind"], r["name"], r["condition"]) == ("summary", "collapsed", "optim.lr=2e-4")]
    assert [(r["method"], r["value"]) for r in counted] == [("grpo", "0"), ("dgpo", "0"), ("is_pg", "4")]
    content = json.loads(RENDERERS["report.json"](comparison))
    assert [s["survived"][0]["value"] for s in content["summaries"]] == ["3e-4", "2e-4", "1e-4"]


def test_panels_of_one_metric_have_the_same_axis(study):
    page = RENDERERS["report.html"](analyse(study))
    panels = re.findall(r"<h3>optim\.lr=.e-4</h3>(<svg.*?</svg>)", page)
    ticks = [re.findall(r'<text class="tick"[^>]*>([^<]*)</text>', panel) for panel in panels]
    assert len(ticks) == 3 and ticks[0] == ticks[1] == ticks[2]


def test_sentences_name_what_is_declared_and_count_the_rest(study):
    comparison = analyse(study)
    sentences = summary_conclusions(comparison)
    assert any(
        s.startswith("is_pg collapses more often than all other methods together: 12 of 24 runs") for s in sentences
    )
    undeclared = sum(
        pair.verdict == "not distinguishable" and pair.column.condition != MEAN_OVER_CONDITIONS
        for pair in comparison.pairs
    )
    assert (
        f"Under single conditions {undeclared} of 6 comparisons are not distinguishable" in conclusions(comparison)[-1]
    )
    same = analyse(ladder({"grpo": [GOOD] * 3, "dgpo": [GOOD] * 3}))
    assert summary_conclusions(same)[-1].startswith("The methods are not distinguishable in the number of collapsed")


def spec(**changes):
    axes = {"seed": [0, 1], "optim.lr": ["2e-4", 1e-4], "algorithm.name": ["grpo", "dgpo"]}
    return read_study({**BASE, "axes": axes, "conditions": ["optim.lr"], **changes})


def test_conditions_are_no_part_of_a_methods_name_and_numbers_are_in_order(tmp_path):
    study = spec()
    assert condition_axes(study) == (ConditionAxis("optim.lr", ("0.0001", "2e-4")),)
    runs = plan_runs(study, tmp_path)
    assert {run.method for run in runs} == {"grpo", "dgpo"} and {run.condition for run in runs} == {
        ("0.0001",),
        ("2e-4",),
    }
    assert {run.method for run in plan_runs(spec(conditions=[], baseline="grpo optim.lr=0.0001"), tmp_path)} == {
        f"{name} optim.lr={lr}" for name in ("grpo", "dgpo") for lr in ("0.0001", "0.0002")
    }


def test_a_condition_may_set_several_keys_and_be_named_by_a_label(tmp_path):
    strong = {"label": "strong", "optim.lr": 3e-4, "batch.updates_per_rollout": 8}
    weak = {"label": "weak", "optim.lr": 1e-4, "batch.updates_per_rollout": 1}
    settings = {"staleness": [strong, weak], "algorithm.name": ["grpo", {"label": "soft", "algorithm.name": "dgpo"}]}
    study = spec(axes=settings, conditions=["staleness"])
    assert condition_axes(study) == (ConditionAxis("staleness", ("strong", "weak")),)
    assert [(v.label, v.condition) for v in variants(study)][:2] == [("", ("strong",)), ("soft", ("strong",))]
    assert {run.method for run in plan_runs(study, tmp_path)} == {"grpo", "soft"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": ["optim.rl"]}, "conditions has 'optim.rl', which is not an axis; did you mean 'optim.lr'"),
        ({"conditions": ["seed"]}, "sets seed, but a condition is neither the method nor the seed"),
        ({"conditions": ["algorithm.name"]}, "sets algorithm.name, but a condition"),
        ({"conditions": ["optim.lr", "optim.lr"]}, "repeats an axis"),
        ({"conditions": "optim.lr"}, "conditions is 'optim.lr'"),
        (
            {"axes": {"optim.lr": [1e-4, "0.0001"], "algorithm.name": ["grpo"]}},
            "axes.optim.lr is a condition and has '0.0001' more than once",
        ),
        (
            {"axes": {"optim.lr": [1e-4], "algorithm.name": ["grpo", {"algorithm.name": "dgpo", "optim.lr": 1e-3}]}},
            "axes.algorithm.name sets optim.lr, which an axis of conditions sets too",
        ),
        ({"command": "unlearn", "baseline": "palu"}, "but command is unlearn"),
    ],
)
def test_a_mistake_in_the_conditions_is_reported_in_one_sentence(changes, message, tmp_path):
    with pytest.raises(UserError) as caught:
        plan_runs(spec(**changes), tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
