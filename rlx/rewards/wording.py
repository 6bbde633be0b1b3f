"""Equality of answers in words: ``No solutions`` is the empty set, ``True`` is ``yes``."""

from __future__ import annotations

import re

from rlx.rewards.kinds import Answer, Unordered, Value, Words

_NO_SOLUTION = re.compile(
    r"(?:there (?:is|are) )?(?:no|has no|have no)(?: such| real| valid| possible)?"
    r" (?:solutions?|roots?|values?|numbers?|integers?)(?: exists?)?|none|(?:empty|null) set"
)
_SYNONYMS = {"true": "yes", "false": "no", "dne": "does not exist"}
_ARTICLES = frozenset(["the", "a", "an"])


def same_words(gold: Answer, answer: Answer) -> bool:
    """Return whether two answers of which at least one is in words mean the same."""
    if _is_empty_set(gold) and _is_empty_set(answer):
        return True
    texts = [_text(gold), _text(answer)]
    if "" in texts:
        return False
    one, other = (_SYNONYMS.get(text, text) for text in texts)
    return one == other or (
        isinstance(gold, Words) and isinstance(answer, Words) and _same_product(gold.text, answer.text)
    )


def _is_empty_set(answer: Answer) -> bool:
    if isinstance(answer, Unordered):
        return not answer.items
    return isinstance(answer, Words) and bool(_NO_SOLUTION.fullmatch(_text(answer)))


def _text(answer: Answer) -> str:
    """The words of an answer in lower case, without articles and punctuation."""
    text = answer.text if isinstance(answer, Words) else answer.latex if isinstance(answer, Value) else ""
    words = re.sub(r"[^\w\\+\-*/=<>.%]+", " ", text.lower()).strip(" .").split()
    return " ".join(word for word in words if word not in _ARTICLES)


def _same_product(gold: str, answer: str) -> bool:
    """``abc`` may be a product of variables, and then its factors may change places."""
    short = all(re.fullmatch(r"[a-z]{3,4}", text) and len(set(text)) == len(text) for text in (gold, answer))
    return short and sorted(gold) == sorted(answer)
