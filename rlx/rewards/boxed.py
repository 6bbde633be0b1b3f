r"""Reward for answers in ``\boxed{}`` or behind ``####``: equal as text or as integers."""

from __future__ import annotations

import re

from rlx.registry import register
from rlx.rewards.extract import last_boxed, last_hash
from rlx.rewards.verdict import Verdict

_SPACES = re.compile(r"\\[,;:! ]|~|\s+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,60}(\.0+)?")


@register("reward", paper="no paper: exact and integer equality, the first two steps of every math grader")
def boxed(response: str, gold: str) -> Verdict:
    r"""1 if the last ``\boxed{}``, or else what follows the last ``####``, equals the gold as text or as an integer.

    Args:
        response: generated text.
        gold: the right answer, with or without a box of its own.
    """
    extracted = last_boxed(response)
    extracted = last_hash(response) if extracted is None else extracted
    if extracted is None:
        return Verdict(0.0, "no_answer", None)
    ours, theirs = cleaned(extracted), cleaned(last_boxed(gold) or gold)
    if not ours:
        return Verdict(0.0, "empty", extracted)
    if ours == theirs:
        return Verdict(1.0, "exact", extracted)
    number = integer(ours)
    if number is not None and number == integer(theirs):
        return Verdict(1.0, "int", extracted)
    return Verdict(0.0, "wrong", extracted)


def cleaned(answer: str) -> str:
    r"""An answer without dollar and percent signs, LaTeX spaces, ``\text`` wrappers and a final full stop.

    Example:
        ``cleaned(r"\$32,\!348.") == "32,348"``
    """
    answer = answer.replace("\\$", "").replace("$", "").replace("\\%", "").replace("%", "")
    answer = re.sub(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}", r"\1", answer)
    answer = re.sub(r"\\(?:left|right)(?![a-z])", "", answer)
    answer = re.sub(r"\\[dt]frac(?![a-z])", r"\\frac", answer)
    return _SPACES.sub("", answer).rstrip(".")


def integer(answer: str) -> int | None:
    """A cleaned answer as an integer (thousands separators and a zero fraction allowed); None when it is none."""
    plain = answer.replace(",", "") if re.fullmatch(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.0+)?", answer) else answer
    return int(plain.partition(".")[0]) if _INTEGER.fullmatch(plain) else None
