"""GSM8K's own format: the number after the last ``####``."""

from __future__ import annotations

from rlx.registry import register
from rlx.rewards.by_text import by_text
from rlx.rewards.extract import last_hash
from rlx.rewards.verdict import Verdict


@register("reward", paper="2110.14168 (GSM8K), its mark of a final answer")
def gsm8k_hash(response: str, gold: str) -> Verdict:
    """1 if the text after the last ``####`` equals the gold as text or as an integer.

    Args:
        response: generated text.
        gold: the right answer, with or without ``####`` of its own.
    """
    extracted = last_hash(response)
    if extracted is None:
        return Verdict(0.0, "no_answer", None)
    return by_text(extracted, last_hash(gold) or gold) or Verdict(0.0, "wrong", extracted)
