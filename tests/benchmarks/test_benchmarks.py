"""Every benchmark's data, and the metrics of graded samples by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlx.benchmarks.benchmark import Problem, fingerprint, known_fingerprints, overlap_warnings, overlaps, set_hash
from rlx.benchmarks.summary import averages, from_json, powers, problem_scores, summarised
from rlx.data import arithmetic
from rlx.evaluation.check import unfit_golds
from rlx.evaluation.problems import load_problems
from rlx.registry import get, names

DATA = Path("../shared/data/bench")
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not on this machine")


def row(problem, sample, score, extracted, reason="exact", tokens=10, finished=True):
    return {
        "problem_id": problem,
        "sample": sample,
        "score": score,
        "extracted": extracted,
        "reason": reason,
        "tokens": tokens,
        "finished": finished,
        "subject": "",
        "level": "",
    }


ROWS = [
    row("a", 0, 1.0, "7"),
    row("a", 1, 1.0, "7.0", "int", tokens=30),
    row("a", 2, 0.0, "8", "int"),
    row("a", 3, 0.0, None, "no_box", tokens=50, finished=False),
    row("b", 0, 0.0, "1/2", "math_verify"),
    row("b", 1, 0.0, "0.5", "math_verify"),
    row("b", 2, 1.0, "3"),
    row("b", 3, 0.0, "9", "timeout"),
]


def test_the_metrics_of_two_problems_are_as_worked_by_hand():
    summary = summarised("made", ROWS)
    assert (summary.problems, summary.n) == (2, 4)
    assert summary.average.value == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert summary.pass_at[2].value == pytest.approx(((1 - 1 / 6) + (1 - 3 / 6)) / 2)
    assert summary.pass_hat[2] == pytest.approx((1 / 6 + 0) / 2)
    assert summary.majority[4] == pytest.approx(0.5)  # a: 7 beats 8; b: 1/2 twice beats 3
    assert summary.best_at_n == pytest.approx(((1 - 0.5**4) + (1 - 0.75**4)) / 2)
    assert summary.tokens == pytest.approx((10 + 30 + 10 + 50 + 40) / 8)
    assert (summary.truncated, summary.no_answer, summary.timed_out) == (0.125, 0.125, 0.125)
    assert summary.reasons == {"exact": 2, "int": 2, "math_verify": 2, "no_box": 1, "timeout": 1}


def test_a_summary_comes_back_from_its_file():
    summary, scores = summarised("made", ROWS), problem_scores(ROWS)
    from rlx.benchmarks.summary import as_json

    assert from_json(json.loads(json.dumps(as_json(summary, scores)))) == (summary, scores)


def test_macro_counts_benchmarks_and_weighted_counts_problems():
    one = summarised("one", [row("a", 0, 1.0, "1")])
    three = summarised("three", [row(name, 0, 0.0, "1") for name in "abc"])
    made = averages([one, three])
    assert made["macro"].value == pytest.approx(0.5)
    assert made["weighted"].value == pytest.approx(0.25)


def test_powers_end_with_n():
    assert (powers(1), powers(2), powers(6), powers(32)) == ([1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16, 32])


def test_typesetting_order_and_ids_do_not_change_a_sets_hash_but_an_answer_does():
    one = [Problem("a", "Find $x + 1$.", "7"), Problem("b", "Find  \\(y\\).", "\\frac{1}{2}")]
    same = [Problem("9", "find (y)", "\\dfrac12".replace("12", "{1}{2}")), Problem("8", "Find x+1", "7.")]
    assert set_hash(one) == set_hash(same)
    assert set_hash(one) != set_hash([one[0], Problem("b", "Find  \\(y\\).", "2")])
    assert fingerprint("Find x+1") != fingerprint("Find x+2")


def test_benchmarks_are_found_by_file_and_their_graders_exist():
    every = names("benchmark")
    assert {"aime24", "aime25", "aime26", "amc23", "math500", "minerva", "olympiadbench", "hmmt25", "gsm8k"} < set(
        every
    )
    for name in every:
        made = get("benchmark", name).fn()
        assert made.grader in names("reward") and "{problem}" in made.prompt
        assert name == "arithmetic" or len(known_fingerprints()[name]) == made.rows


def test_the_embedded_benchmark_is_the_held_out_split():
    problems, _ = load_problems("arithmetic", None)
    assert [problem.id for problem in problems] == [row["id"] for row in arithmetic.rows("test")]


@needs_data
@pytest.mark.parametrize("name", [name for name in names("benchmark") if name != "arithmetic"])
def test_the_reviewed_rows_load_and_hash_as_pinned(name):
    problems, mark = load_problems(name, str(DATA))
    made = get("benchmark", name).fn()
    assert (len(problems), mark) == (made.rows, made.sha256)
    assert {fingerprint(problem.text) for problem in problems} == known_fingerprints()[name]


@needs_data
def test_math500_keeps_subject_and_level():
    problems, _ = load_problems("math500", str(DATA))
    assert (problems[0].subject, problems[0].level) == ("Precalculus", "2")


@needs_data
@pytest.mark.parametrize("name", ["aime24", "hmmt25", "hmmt25_nov", "math500"])
def test_golds_grade_as_right_against_themselves(name):
    assert unfit_golds(load_problems(name, str(DATA))[0]) == []


def test_a_gold_that_does_not_parse_is_found():
    assert [p.id for p in unfit_golds([Problem("a", "?", "\\frac{1}{2}"), Problem("b", "?", "$")])] == ["b"]


@needs_data
def test_six_old_aime_problems_stand_inside_math500_and_are_warned_of():
    lines = (DATA / "aime_train_1983_2023.jsonl").read_text().splitlines()
    texts = [json.loads(line)["problem"] for line in lines]
    assert overlaps(texts) == {"math500": 6}
    (sentence,) = overlap_warnings(texts, ["aime24", "math500"])
    assert "6 of the training prompts stand in benchmark math500" in sentence
