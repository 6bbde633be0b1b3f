r"""Answers to multiple-choice questions: a letter, its text, or both, as in ``\textbf{(B)}\ 12``."""

from __future__ import annotations

import re

from rlx.rewards.notation import WORD

_LETTER = re.compile(r"\s*\(?\s*([A-J])\s*\)?\s*\.?\s*")
_LABELLED = re.compile(
    r"\s*(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*)?"
    r"(?:\(\s*(?P<inner>[A-J])\s*\)|(?P<outer>[A-J])\s*(?:\)|[.:](?!\d)|$|\\q?quad|(?=\\text)))\s*[.:]?\s*(?P<text>.*)",
    re.DOTALL | re.IGNORECASE,
)


def split_choice(gold: str, answer: str) -> tuple[bool | None, str, str]:
    """The verdict where letters decide, else None; and both answers, without the letter where its text decides.

    Args:
        gold: the right answer, from ``plain_latex``.
        answer: the answer, from ``plain_latex``.
    """
    left, right = gold.replace(WORD, " "), answer.replace(WORD, " ")
    gold_letter, gold_text = _label(left)
    letter, text = _label(right)
    if gold_letter is None and letter is None:
        return None, gold, answer
    if gold_letter and letter:
        if gold_letter != letter or not (gold_text and text):
            return gold_letter == letter, gold, answer
        return None, gold_text, text
    if gold_letter and gold_text:
        return None, gold_text, answer
    if letter and text and not _LETTER.match(left):
        return None, gold, text
    return None, gold, answer


def _label(answer: str) -> tuple[str | None, str]:
    """The letter in front of a choice and the choice's text; (None, "") for other answers."""
    match = _LABELLED.fullmatch(answer)
    if match is None:
        return None, ""
    letter = match["inner"] or match["outer"]
    # f(x) = (a) b is no choice, nor is a product such as (A)(B) or a pair
    if not letter.isupper() or re.match(r"[(^_+\-*/=,!]|\\cdot|\\times|\\cup|\\cap", match["text"]):
        return None, ""
    return letter, match["text"].strip()
