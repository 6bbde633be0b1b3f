"""Integer answers only: for contests with integer answers, and for models that do not box their answers."""

from __future__ import annotations

import re

from rlx.registry import register
from rlx.rewards.by_text import integer_in
from rlx.rewards.extract import after_thinking, boxed_answer
from rlx.rewards.verdict import Verdict

_NUMBER = re.compile(r"(?<![\w.])-?[0-9]{1,60}(?:,[0-9]{3})*(?![\w]|\.[0-9])")


@register("reward", paper="no paper: the last integer, as AIME answer sheets take it")
def integer(response: str, gold: str) -> Verdict:
    """1 if the last box, or without any box the last integer of the response, is the gold integer.

    Args:
        response: generated text.
        gold: an integer, with or without a box of its own.
    """
    gold_integer = integer_in(boxed_answer(gold) or gold)
    if gold_integer is None:
        return Verdict(0.0, "gold_unparseable", None)
    extracted = boxed_answer(response)
    if extracted is None:
        numbers = _NUMBER.findall(after_thinking(response))
        extracted = numbers[-1] if numbers else None
    if extracted is None:
        return Verdict(0.0, "no_answer", None)
    number = integer_in(extracted)
    return Verdict(float(number == gold_integer), "int" if number is not None else "wrong", extracted)
