"""rlx eval --data: rows are read like training data, and graders see them."""

from __future__ import annotations

import json

import pytest

from rlx.benchmarks.benchmark import Problem
from rlx.data.response_text import ResponseText
from rlx.errors import UserError
from rlx.evaluation.grading import inputs_of_responses, inputs_of_rows
from rlx.evaluation.problems import problem_sets
from rlx.rewards.reward_set import load_grader
from rlx.specs.evaluate import EvalSpec
from tests.data.test_response_text import tokenizer_with
from tests.evaluation.test_own_questions import questions, rlx_eval, write


def test_questions_are_read_like_training_data_and_left_out_rows_are_reported(tmp_path):
    rows = [{"question": f"{10 + i}+{20 + i}=", "solution": [str(30 + 2 * i), f"0{30 + 2 * i}"]} for i in range(40)]
    rows[2] = {"question": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"},
                            {"role": "user", "content": "2+1="}], "solution": 3}  # fmt: skip
    rows[3]["answer_of"] = "nobody"
    rows[5]["solution"] = None
    path = write(tmp_path / "mine.jsonl", rows)
    (own,) = problem_sets(EvalSpec(model="embedded", data={"source": str(path)}))
    assert len(own.problems) == 39
    assert (own.problems[0].gold, own.problems[0].accepted) == ("30", ("030",))
    assert own.problems[2].history == (("user", "1+1="), ("assistant", "2")) and own.problems[2].text == "2+1="
    assert own.problems[5].location == f"{path} line 7"
    assert any("data.prompt is read from 'question'" in notice for notice in own.notices)
    assert own.notices[-1] == "39 questions; left out: 1 without an answer (line 6)"
    done = rlx_eval(path, tmp_path / "runs", "--grader", "arithmetic", "--limit", "3")
    assert "data_mine: 39 questions; left out: 1 without an answer (line 6)" in done.stderr
    one_answer = [{**row, "solution": row["solution"][0] if isinstance(row["solution"], list) else 3} for row in rows]
    (other,) = problem_sets(
        EvalSpec(model="embedded", data={"source": str(write(tmp_path / "mine.jsonl", one_answer))})
    )
    assert other.data_sha256 != own.data_sha256 and other.sequence_sha256 != own.sequence_sha256


def test_a_grader_sees_the_columns_of_a_question_when_samples_are_fresh_and_when_they_are_graded_again(tmp_path):
    path = write(tmp_path / "mine.jsonl", [{**row, "points": i} for i, row in enumerate(questions(4))])
    grader = tmp_path / "points.py"
    grader.write_text("def points(completion, points): return points / 4\n")
    scores = []
    for more in ([], ["--regrade"]):
        done = rlx_eval(path, tmp_path / "runs", "--grader", f"{grader}:points", "--format", "json", *more)
        scores.append(json.loads(done.stdout)["benchmarks"][0]["summary"]["average"]["value"])
    assert scores == [0.375, 0.375]
    grader.write_text("def points(completion, pints): return pints\n")
    with pytest.raises(
        UserError, match="grader .*parameter 'pints' .* is no column of the data; did you mean 'points'"
    ):
        rlx_eval(path, tmp_path / "runs", "--grader", f"{grader}:points")
    grader.write_text("def points(completion, points): return points\n")
    with pytest.raises(
        UserError, match=r"grader '.*:points' gave [23] to a response to .*line [34]; the scores .* from 0"
    ):
        rlx_eval(path, tmp_path / "runs", "--grader", f"{grader}:points")
    grader.write_text("def points(completion):\n    return None\n")
    with pytest.raises(UserError, match=r"grader '.*' returned None on a response to .*mine.jsonl line 1 .*line 1\)"):
        rlx_eval(path, tmp_path / "runs", "--grader", f"{grader}:points")


def test_a_thought_before_a_special_token_is_stored_and_not_graded():
    tokenizer = tokenizer_with("<think>", "</think>")
    reader = ResponseText(tokenizer, stops=(tokenizer.eos_token_id,))
    problem = Problem("a", "0+1", "1")
    grade = load_grader("boxed", "grader", ())
    for response, score in {r"<think>\boxed{1}</think>\boxed{2}<eos>": 0.0, r"<think>2</think>\boxed{1}": 1.0}.items():
        tokens = tokenizer(response, add_special_tokens=False)["input_ids"]
        text = reader.read(tokens)
        (verdict,) = grade(inputs_of_responses([problem], [text], [tokens]))
        stored = {"problem_id": "a", "gold": "1", "response": text.full, "final": text.final}
        (again,) = grade(inputs_of_rows([stored], [problem]))
        assert verdict.score == again.score == score
    assert inputs_of_rows(
        [{"problem_id": "a", "gold": "1", "response": "an older file has no column final"}], [problem]
    )[0].final
