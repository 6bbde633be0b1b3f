"""Aggregates of unlearning samples: the two real logs to 1e-12, and each score by hand."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlx.benchmarks.tofu import scores
from rlx.benchmarks.tofu.log import EPSILON, read_log, samples_of
from rlx.benchmarks.tofu.scores import Sample, aggregates, intervals
from rlx.errors import UserError
from rlx.unlearning.tofu_log_report import print_log

LOGS = Path(__file__).parents[3] / "../shared/data/tofu_logs"
STEMS = ("tofu_Llama-3.2-1B-Instruct_full_evals_forget01", "tofu_Llama-3.2-1B-Instruct_retain99")
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the real evaluation logs are not on this machine")


@needs_logs
@pytest.mark.parametrize("stem", STEMS)
def test_every_number_of_the_official_summary_follows_from_the_per_sample_values(stem: str) -> None:
    samples = samples_of(read_log(LOGS / f"{stem}_EVAL.json"))
    retain = samples_of(read_log(LOGS / f"{STEMS[1]}_EVAL.json"))
    ours = aggregates(samples, retain if stem == STEMS[0] else (), EPSILON)
    official = json.loads((LOGS / f"{stem}_SUMMARY.json").read_text())
    assert set(official) <= set(ours)
    for name, value in official.items():
        assert abs(ours[name] - value) < 1e-12, name
    if stem == STEMS[0]:
        assert ours["forget_quality_n"] == 40 and 0 < ours["forget_quality_D"] < 1


@needs_logs
def test_intervals_hold_the_value_and_treat_an_author_as_one() -> None:
    samples = [s for s in samples_of(read_log(LOGS / f"{STEMS[0]}_EVAL.json")) if s.part in ("forget", "retain")]
    clustered = intervals(samples, epsilon=EPSILON)["retain_Prob"]
    alone = [Sample(s.part, s.index, s.index, prob=s.prob) for s in samples]
    free = intervals(alone, epsilon=EPSILON)["retain_Prob"]
    assert clustered.low < clustered.value < clustered.high
    assert clustered.value == pytest.approx(free.value)
    assert clustered.high - clustered.low != pytest.approx(free.high - free.low, rel=1e-3)


def test_truth_ratio_is_the_geometric_mean_of_the_wrong_over_the_right() -> None:
    assert scores.truth_ratio(math.log(2), [math.log(4), math.log(16)]) == pytest.approx(2 / 8)
    assert scores.truth_ratio(2000.0, [0.0]) > 1e300
    ratios = np.array([0.5, 2.0, 1.0])
    assert scores.closeness(ratios).tolist() == [0.5, 0.5, 1.0]


def test_a_kept_sample_counts_with_the_scores_that_its_set_has() -> None:
    sample = Sample("retain", 0, 0, prob=0.8, prob_normalised=0.9, rouge=0.7, truth_ratio=0.25)
    assert scores.kept_scores(sample) == {"Prob": 0.8, "ROUGE": 0.7, "Truth_Ratio": 0.75}
    assert scores.kept_scores(replace(sample, part="world_facts"))["Prob"] == 0.9
    assert scores.kept_scores(replace(sample, rouge=None, truth_ratio=2.0)) == {"Prob": 0.8, "Truth_Ratio": 0.0}


@pytest.mark.parametrize(
    ("predicted", "strength", "strict", "exact"),
    [
        ([1, 2, 3, 4], 1.0, 1.0, 1.0),
        ([1, 9, 3, 4], 0.5, 0.5, 0.75),
        ([9, 9, 9, 4], 0.25, 0.25, 0.25),
        ([1, 2, 3, 9], 0.25, 0.0, 0.75),
        ([9, 9, 9, 9], 0.25, 0.0, 0.0),
    ],
)
def test_extraction_strength_is_the_share_of_the_tail_that_is_right(
    predicted: list[int], strength: float, strict: float, exact: float
) -> None:
    assert scores.extraction_strength(predicted, [1, 2, 3, 4]) == strength
    assert scores.strict_extraction_strength(predicted, [1, 2, 3, 4]) == strict
    assert scores.exact_memorisation(predicted, [1, 2, 3, 4]) == exact


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_extraction_strength_is_that_of_a_search_over_every_prefix(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = [list(side) for side in zip(*pairs, strict=True)]
    n = len(labels)
    fitting = [k for k in range(n) if predicted[k:] == labels[k:]]
    assert scores.extraction_strength(predicted, labels) == 1 - min(fitting, default=n - 1) / n
    assert scores.strict_extraction_strength(predicted, labels) == 1 - min(fitting, default=n) / n


def test_auc_counts_ties_half() -> None:
    assert scores.auc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx((2 + 1.5) / 4)
    assert scores.privleak(0.5, 0.5) == 0.0


def test_utility_is_zero_when_one_of_its_nine_parts_is() -> None:
    def sample(part: str, ratio: float) -> Sample:
        return Sample(part, 0, 0, prob=0.5, prob_normalised=0.5, rouge=0.5, truth_ratio=ratio)

    fine = [sample(part, 0.5) for part in scores.UTILITY_PARTS]
    assert aggregates(fine)["model_utility"] == pytest.approx(0.5)
    assert aggregates([sample("retain", 1.5), *fine[1:]])["model_utility"] == 0.0
    assert "model_utility" not in aggregates(fine[:2])


def test_a_file_that_is_no_log_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("{", "[]", '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"TOFU_EVAL\.json"):
            read_log(path)


@needs_logs
def test_the_command_aggregates_a_log_anew_with_intervals() -> None:
    logs = [str(LOGS / f"{stem}_EVAL.json") for stem in STEMS]
    command = [sys.executable, "-m", "rlx.cli", "eval", "--from-log", logs[0], "--retain-log", logs[1]]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["samples"]["forget"] == 40
    official = json.loads((LOGS / f"{STEMS[0]}_SUMMARY.json").read_text())
    for name, value in official.items():
        found = record["aggregates"][name]
        assert abs(found["value"] - value) < 1e-12, name
        assert found["low"] - 1e-9 <= value <= found["high"] + 1e-9, name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2", "cannot be read"),
        ("{}", "holds no entry such as forget_Q_A_Prob"),
        ('{"forget_Q_A_Prob": {"value_by_index": {"a": 3}}}', "another shape"),
        ('{"forget_Q_A_Prob": 5}', "another shape"),
    ],
)
def test_a_broken_log_ends_the_command_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    log = tmp_path / "TOFU_EVAL.json"
    log.write_text(text)
    with pytest.raises(UserError, match=said):
        print_log(log, None, 0, "table")


def test_privleak_does_not_exist_where_the_retain_model_tells_the_sets_apart_entirely() -> None:
    assert math.isnan(scores.privleak(0.9, 1.0))
    assert scores.privleak(0.75) == pytest.approx(-50)
