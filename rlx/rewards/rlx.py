r"""The default grader: the last balanced box as text, as an integer, and then as mathematics."""

from __future__ import annotations

from rlx.registry import register
from rlx.rewards.by_text import by_text
from rlx.rewards.extract import boxed_answer
from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict


@register("reward", paper="no paper: text and integers first, then math-verify 0.9.0 (huggingface/Math-Verify)")
def rlx(response: str, gold: str) -> Verdict | NeedsSymbolicCheck:
    r"""1 if the last ``\boxed{}`` after the last ``</think>`` equals the gold; without a box 0.

    Boxes of one sentence are one answer: all of them must be right, and together they give all solutions.

    Args:
        response: generated text.
        gold: the right answer, with or without a box of its own.
    """
    extracted = boxed_answer(response)
    if extracted is None:
        return Verdict(0.0, "no_box", None)
    return by_text(extracted, gold) or in_boxes(extracted, gold)


def in_boxes(extracted: str, gold: str) -> NeedsSymbolicCheck:
    r"""The check whether two answers are mathematically equal.

    Both stand in boxes, since math-verify reads a bare ``\$5`` or a set in other ways than the boxed one.
    """
    gold = boxed_answer(gold) or gold
    return NeedsSymbolicCheck(f"\\boxed{{{gold}}}", f"\\boxed{{{extracted}}}", extracted)
