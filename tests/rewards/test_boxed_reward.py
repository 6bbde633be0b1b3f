r"""Answers in \boxed{} or behind ####: cases are data."""

from __future__ import annotations

import pytest

from rlx.rewards.boxed import boxed
from rlx.rewards.extract import last_boxed, last_hash

CASES = [
    ("so \\boxed{72}", "72", 1.0, "exact"),
    ("\\boxed{1} then \\boxed{72}", "72", 1.0, "exact"),
    ("\\boxed{72} then \\boxed{1}", "72", 0.0, "int"),
    ("\\boxed{ 072 }", "72", 1.0, "int"),
    ("\\boxed{+72.0}", "72", 1.0, "int"),
    ("\\boxed{1,234}", "1234", 1.0, "int"),
    ("\\boxed{12,34}", "1234", 0.0, "wrong"),
    ("\\boxed{\\$72.}", "72", 1.0, "exact"),
    ("\\boxed{72\\%}", "72", 1.0, "exact"),
    ("\\boxed{\\dfrac{1}{2}}", "\\frac{1}{2}", 1.0, "exact"),
    ("\\boxed{\\text{Monday}}", "Monday", 1.0, "exact"),
    ("\\boxed{\\left( 1,\\! 2 \\right)}", "(1,2)", 1.0, "exact"),
    ("\\boxed{72", "72", 0.0, "no_answer"),
    ("\\boxed{}", "72", 0.0, "empty"),
    ("it is 72", "72", 0.0, "no_answer"),
    ("#### 72", "72", 1.0, "exact"),
    ("#### 1,072\nmore", "1072", 1.0, "int"),
    ("#### 5 \\boxed{72}", "72", 1.0, "exact"),
    ("\\boxed{72}</think> hm", "72", 0.0, "no_answer"),
    ("\\boxed{1}</think>\\boxed{72}", "72", 1.0, "exact"),
    ("\\boxed{72}", "\\boxed{72}", 1.0, "exact"),
    ("\\boxed{" + "9" * 100 + "}", "9" * 99 + "8", 0.0, "wrong"),
    ("\\boxed{٣}", "3", 0.0, "wrong"),
    ("", "72", 0.0, "no_answer"),
]


@pytest.mark.parametrize(("response", "gold", "score", "reason"), CASES)
def test_the_verdict_is_as_judged_by_hand(response, gold, score, reason):
    verdict = boxed(response, gold)
    assert (verdict.score, verdict.reason) == (score, reason)


def test_the_last_balanced_box_is_read_with_nested_and_escaped_braces():
    assert last_boxed("\\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert last_boxed("\\boxed{\\{1, 2\\}}") == "\\{1, 2\\}"
    assert last_boxed("\\boxed{3} and \\boxed{4") == "3"
    assert last_boxed("\\fbox{5}") == "5"
    assert last_boxed("\\boxed 6.") == "6"
    assert last_boxed("boxed{7}") is None


def test_a_thousand_open_boxes_take_no_time():
    assert last_boxed("\\boxed{" * 2000) is None


def test_what_follows_the_last_hash_mark_ends_with_its_line():
    assert last_hash("a #### 1\n#### 2 \nb") == "2"
    assert last_hash("####") is None
    assert last_hash("## 3") is None
