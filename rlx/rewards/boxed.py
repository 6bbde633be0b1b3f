r"""Reward for answers in ``\boxed{}`` or behind ``####``: equal as text or as integers."""

from __future__ import annotations

from rlx.registry import register
from rlx.rewards.by_text import by_text
from rlx.rewards.extract import boxed_answer, last_hash
from rlx.rewards.verdict import Verdict


@register("reward", paper="no paper: exact and integer equality, the first two steps of every math grader")
def boxed(response: str, gold: str) -> Verdict:
    r"""1 if the last ``\boxed{}``, or else what follows the last ``####``, equals the gold as text or as an integer.

    Boxes of one sentence are one answer, which is their list.

    Args:
        response: generated text.
        gold: the right answer, with or without a box of its own.
    """
    extracted = boxed_answer(response)
    extracted = last_hash(response) if extracted is None else extracted
    if extracted is None:
        return Verdict(0.0, "no_answer", None)
    return by_text(extracted, gold) or Verdict(0.0, "wrong", extracted)
