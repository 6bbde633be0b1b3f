"""What text alone decides: equal after cleaning, or equal as integers. Also the canonical form for majority votes."""

from __future__ import annotations

import re
from fractions import Fraction

from rlx.rewards.extract import boxed_answer
from rlx.rewards.verdict import Verdict

_SPACES = re.compile(r"\\[,;:! ]|~|\s+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,60}(\.0+)?")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")
_DECIMAL = re.compile(r"[+-]?[0-9]{0,30}\.?[0-9]{1,30}")
_RATIO = re.compile(r"([+-]?)(?:\\frac\{?([0-9]{1,30})\}?\{?([0-9]{1,30})\}?|([0-9]{1,30})/([0-9]{1,30}))")
_FRACTION_OF_ONE = re.compile(r"[+-]?(?:0?\.[0-9]+|[01]|\\frac.*|[0-9]+/[0-9]+)")
_MEANINGFUL_SPACE = re.compile(r"(?<=[0-9])\s+(?=[0-9]+/)|(?<=[0-9],)\s+(?=[0-9]{3}(?![0-9]))")
"""A space that has a meaning: ``2 1/2`` is not 21/2, and ``32, 349`` is not 32,349."""
_IN_BASE = re.compile(r"[0-9a-zA-Z]+_[0-9]+")


def by_text(extracted: str, gold: str) -> Verdict | None:
    r"""The verdict where text or integers decide; None where it takes mathematics.

    Args:
        extracted: the answer without its box.
        gold: the right answer, with or without a box of its own.
    """
    gold = boxed_answer(gold) or gold
    ours, theirs = cleaned(extracted), cleaned(gold)
    if not ours:
        return Verdict(0.0, "empty", extracted)
    if (" " in extracted or " " in gold) and (_MEANINGFUL_SPACE.search(extracted) or _MEANINGFUL_SPACE.search(gold)):
        return None
    if ours == theirs and not ("%" in extracted and "%" not in gold and _FRACTION_OF_ONE.fullmatch(theirs)):
        return Verdict(1.0, "exact", extracted)  # 0.5 is 50 %, and 0.5 % is something else
    number, gold_text = as_integer(ours), as_integer(theirs)
    if number is not None and gold_text is not None and (number == gold_text or "%" not in extracted + gold):
        return Verdict(float(number == gold_text), "int", extracted)
    if _IN_BASE.fullmatch(theirs) and (number is not None or _IN_BASE.fullmatch(ours)):
        return Verdict(0.0, "exact", extracted)  # 52_8 is not 52, and math-verify drops the base
    return None


def cleaned(answer: str) -> str:
    r"""An answer without dollar and percent signs, LaTeX spaces, ``\text`` wrappers and a final full stop.

    Example:
        ``cleaned(r"\$32,\!348.") == "32,348"``
    """
    answer = answer.replace("\\$", "").replace("$", "").replace("\\%", "").replace("%", "")
    answer = re.sub(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}", r"\1", answer)
    answer = re.sub(r"\\(?:left|right)(?![a-z])", "", answer)
    answer = re.sub(r"\\[dt]frac(?![a-z])", r"\\frac", answer)
    answer = re.sub(r"_\{([0-9]+)\}", r"_\1", answer)
    return _SPACES.sub("", answer).rstrip(".")


def integer_in(answer: str) -> int | None:
    """An answer as an integer; None if it is none. ``32, 349`` is two numbers."""
    return None if _MEANINGFUL_SPACE.search(answer) else as_integer(cleaned(answer))


def as_integer(answer: str) -> int | None:
    """A cleaned answer as an integer (thousands separators and a zero fraction allowed); None when it is none."""
    plain = answer.replace(",", "") if _THOUSANDS.fullmatch(answer) else answer
    return int(plain.partition(".")[0]) if _INTEGER.fullmatch(plain) else None


def canonical(extracted: str | None) -> str | None:
    r"""The class of an answer in a vote: one text for ``0.5``, ``1/2`` and ``\frac12``; None for no answer.

    It does not look at the gold, so that a vote could be held without one.

    Args:
        extracted: the answer without its box.
    """
    text = cleaned(extracted) if extracted else ""
    if not text:
        return None
    plain = text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
    ratio = _RATIO.fullmatch(plain)
    if ratio:
        sign, *parts = ratio.groups()
        over, under = [int(part) for part in parts if part is not None]
        return str(Fraction(-over if sign == "-" else over, under)) if under else text
    return str(Fraction(plain)) if _DECIMAL.fullmatch(plain) else text.lower()
