import dataclasses

import pytest

from rlx import registry
from rlx.data.arithmetic import rows, solution
from rlx.rewards.arithmetic import arithmetic
from rlx.rewards.verdict import Verdict

CASES = [
    ("7+5=12 4+8=12#132", "132", 1.0, "exact", "132"),
    ("#132", "132", 1.0, "exact", "132"),
    ("7+5=12 4+8=12# 132 \n", "132", 1.0, "exact", "132"),
    ("7+5=12 4+8=12#122", "132", 0.0, "wrong", "122"),
    ("7+5=12 4+8=12#", "132", 0.0, "wrong", ""),
    ("#0132", "132", 0.0, "wrong", "0132"),
    ("#132?", "132", 0.0, "wrong", "132?"),
    ("#1 32", "132", 0.0, "wrong", "1 32"),
    ("#131+1", "132", 0.0, "wrong", "131+1"),
    ("132", "132", 0.0, "no_answer", None),
    ("", "132", 0.0, "no_answer", None),
    ("#132#132", "132", 0.0, "several_answers", None),
    ("#122#132", "132", 0.0, "several_answers", None),
    ("##132", "132", 0.0, "several_answers", None),
]


@pytest.mark.parametrize(("response", "gold", "score", "reason", "extracted"), CASES)
def test_a_response_scores_only_if_the_text_after_its_only_mark_is_the_sum(response, gold, score, reason, extracted):
    assert arithmetic(response, gold) == Verdict(score=score, reason=reason, extracted=extracted)


def test_every_worked_solution_of_the_test_split_scores_one():
    for row in rows("test"):
        assert arithmetic(solution(*map(int, row["id"].split("+"))), row["answer"]).score == 1.0


def test_the_reward_is_found_by_its_name():
    assert "arithmetic" in registry.names("reward")
    assert registry.get("reward", "arithmetic").fn is arithmetic


def test_a_verdict_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        arithmetic("#1", "1").score = 0.0
