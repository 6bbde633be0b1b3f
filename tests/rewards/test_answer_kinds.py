"""Answers are equal by their kinds: tuples, sets, equations, ratios, percents, units, words, several boxes."""

from __future__ import annotations

import importlib.util
import itertools
import random
from fractions import Fraction
from pathlib import Path

import pytest

from rlx.rewards.by_text import by_text
from rlx.rewards.extract import boxed_answer
from rlx.rewards.grade import VERSION
from rlx.rewards.rlx import rlx
from rlx.rewards.symbolic import compared, same_latex
from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict

_spec = importlib.util.spec_from_file_location("answer_pairs", Path(__file__).parent / "answer_pairs.py")
_pairs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pairs)


def right(response, gold):
    """Whether the grader rlx says that a response is right, compared in this process."""
    verdict = rlx(response, gold)
    return bool((compared(verdict) if isinstance(verdict, NeedsSymbolicCheck) else verdict).score)


@pytest.mark.parametrize(("gold", "answer", "expected"), _pairs.PAIRS)
def test_an_answer_equals_the_gold_where_a_person_says_so(gold, answer, expected):
    assert same_latex(gold, answer) is expected
    assert right(f"So the answer is \\boxed{{{answer}}}.", gold) is expected


@pytest.mark.parametrize(("gold", "response", "expected"), _pairs.RESPONSES)
def test_boxes_of_one_sentence_are_one_answer_and_guesses_are_not_paid(gold, response, expected):
    assert right(response, gold) is expected


def test_boxes_are_joined_within_a_sentence_and_replaced_by_a_later_one():
    assert boxed_answer(r"So $a=\boxed{3}$ and $b=\boxed{4}$.") == "a=3, b=4"
    assert boxed_answer(r"It is \boxed{5}. No, it is \boxed{6}.") == "6"
    assert boxed_answer("It is \\boxed{5}\n\n\\boxed{6}") == "6"
    assert boxed_answer("\\[\\boxed{5}\\]\n\\[\\boxed{6}\\]") == "5, 6"
    assert boxed_answer("It is \\boxed{5}\nLet us check that again: \\boxed{6}") == "6"
    assert boxed_answer(r"2+a=\boxed{3}, b=\boxed{4}") == "3, b=4"
    assert boxed_answer(r"<think>\boxed{1} and \boxed{2}</think> none") is None
    assert boxed_answer(r"\boxed{\boxed{5}}") == "5"


def written(value, rng):
    """A number in one of the notations of models."""
    sign, positive = ("-" if value < 0 else ""), abs(value)
    over, under = positive.numerator, positive.denominator
    forms = [
        f"{sign}\\frac{{{over}}}{{{under}}}",
        f"{sign}{over}/{under}",
        f"{sign}\\dfrac{{{2 * over}}}{{{2 * under}}}",
    ]
    decimals = Fraction(over * 10**12, under)
    if decimals.denominator == 1:
        digits = str(int(decimals)).rjust(13, "0")
        forms.append(f"{sign}{digits[:-12]}.{digits[-12:]}".rstrip("0").rstrip("."))
        forms.append(f"{sign}{int(decimals)}\\times 10^{{-12}}")
    if under == 1:
        forms += [f"{sign}{over:,}", f"{sign}{over}.0"]
    return rng.choice(forms)


def test_no_two_numbers_that_differ_by_more_than_a_millionth_are_equal():
    rng = random.Random(0)
    for _ in range(400):
        value = Fraction(rng.randint(-(10**6), 10**6), rng.choice([1, 2, 3, 7, 8, 10, 1000, 99991]))
        gap = Fraction(rng.choice([2, 5, 40, 900]), 10**6) * rng.choice([-1, 1])
        gold, answer = written(value, rng), written(value * (1 + gap), rng)
        if value:
            assert not same_latex(gold, answer), (gold, answer)
            assert not same_latex(answer, gold), (gold, answer)
        assert same_latex(gold, written(value, rng)), gold


def test_numbers_with_roots_and_powers_that_differ_are_never_equal():
    rng = random.Random(1)
    for _ in range(60):
        a, b = rng.randint(1, 50), rng.choice([2, 3, 5, 7])
        shift = rng.choice(["0.01", "0.002"])
        gold = f"{a}\\sqrt{{{b}}}+\\pi"
        assert not same_latex(gold, f"{a}\\sqrt{{{b}}}+\\pi+{shift}"), gold
        assert not same_latex(f"{a}^{{{b * 40}}}", f"{a + 1}^{{{b * 40}}}")
        assert not same_latex(f"10^{{{a}}}", f"10^{{{a}}}+1")
        assert same_latex(gold, f"\\pi+\\sqrt{{{b * a * a}}}")


def test_order_matters_in_tuples_and_never_in_sets():
    items = ["1", "-2", r"\frac{1}{2}", r"\sqrt{2}", "x"]
    for chosen in itertools.permutations(items, 3):
        ordered, swapped = "(" + ", ".join(chosen) + ")", "(" + ", ".join(sorted(chosen)) + ")"
        assert same_latex(ordered, swapped) is (list(chosen) == sorted(chosen))
        braces = "\\{" + ", ".join(chosen) + "\\}"
        assert same_latex(braces, "\\{" + ", ".join(sorted(chosen)) + "\\}")
        assert not same_latex(ordered, braces) and not same_latex(braces, ordered)


@pytest.mark.parametrize(
    "wrapped",
    [
        "{box}",
        "The answer is {box}",
        "After some algebra we get ${box}$. I hope it is correct.",
        "**Final answer:**\n\n\\[\n{box}\n\\]\n\nThis completes the solution.",
        "We tried \\boxed{{99}} first.\n\nBut it is {box}",
        "<think>\\boxed{{99}}</think>So, {box}!",
    ],
)
def test_text_around_an_answer_changes_no_verdict(wrapped):
    for gold, answer, expected in _pairs.PAIRS[::3]:
        assert right(wrapped.format(box=f"\\boxed{{{answer}}}"), gold) is expected, (gold, answer)


@pytest.mark.parametrize(
    "wrapped", ["{}", "\\text{{The answer is }}{}", "\\text{{The answer is }} {} \\text{{ apples}}", "{}."]
)
def test_text_around_a_value_in_the_box_changes_no_verdict(wrapped):
    values = ["5", "-3", r"\frac{1}{2}", "2.5", r"3\sqrt{2}", "1,234", r"\pi", "2^{10}", "x+1"]
    for gold, answer in itertools.product(values, values):
        assert right(f"\\boxed{{{wrapped.format(answer)}}}", gold) is (gold == answer), (gold, answer)


def test_a_list_of_guesses_is_never_paid_for_one_of_them():
    rng = random.Random(2)
    for _ in range(100):
        guesses = [str(number) for number in rng.sample(range(100), rng.randint(2, 6))]
        gold = rng.choice(guesses)
        boxes = [f"\\boxed{{{guess}}}" for guess in guesses]
        for response in (
            " or ".join(boxes),
            ", ".join(boxes),
            "\n".join(boxes),
            "It is " + ", or maybe ".join(boxes) + ".",
            f"\\boxed{{{', '.join(guesses)}}}",
            f"\\boxed{{{' or '.join(guesses)}}}",
            "\\boxed{" + "\\text{ or }".join(guesses) + "}",
            f"\\boxed{{{'='.join(guesses)}}}",
            f"\\boxed{{x={'='.join(guesses)}}}",
        ):
            assert not right(response, gold), (response, gold)


def test_spaces_that_have_a_meaning_are_not_decided_by_text():
    assert by_text("32, 349", "32349") is None and by_text("2 1/2", "21/2") is None
    assert by_text("0.5%", "0.5") is None and by_text("28%", "28") == Verdict(1.0, "exact", "28%")


def test_the_version_of_the_grading_rules_was_raised_with_them():
    assert VERSION.startswith("2, math-verify ")
