"""Words of common languages that distinguish the parts of an answer, read from ``assets/span_words.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LISTS: Mapping[str, Any] = json.loads(
    (Path(__file__).parents[2] / "assets" / "span_words.json").read_text(encoding="utf-8")
)


def _words(lines: Sequence[str]) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


def _by_key(lists: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    return {key: _words(lines) for key, lines in lists.items()}


FUNCTION_WORDS = _by_key(_LISTS["function_words"])
"""By language: words that carry no fact of their own."""
AFFIRMATIONS = _words(_LISTS["affirmations"])
"""What an answer adds to a question that holds everything else: yes, no."""
ATTRIBUTE_WORDS = _words(_LISTS["attribute_words"])
"""Words that name an attribute or say that somebody has it; they lead to a value and are marked only without one."""
RELATION_WORDS = _words(_LISTS["relation_words"])
"""Attribute words of family and friendship; where a sentence adds nothing else, they are its fact."""
CONNECTORS = _words(_LISTS["connectors"])
"""Function words inside names, dates and amounts: University of Lima, 4 de julio de 1985, 900 euros a month."""
OF_WORDS = _words(_LISTS["of_words"])
PLACE_CONNECTORS = _words(_LISTS["place_connectors"])
"""Function words inside an address: Lindenstraße 5 in 10115 Berlin."""
CONJUNCTIONS = _words(_LISTS["conjunctions"])
STREET_WORDS = _words(_LISTS["street_words"])
"""Words that belong to an address though they are written in lower case."""
NUMBERED_WORDS = _words(_LISTS["numbered_words"])
"""Words that form one term with the number after them and the word after that: type 2 diabetes."""
TERM_WORDS = _words(_LISTS["term_words"])
"""Words that complete the name of an illness: Parkinson's disease, maladie de Parkinson."""
PERSON_TITLES = _words(_LISTS["person_titles"])
GERMAN_WORDS = _words(_LISTS["german_words"])
"""Words that only German has; it writes every noun like a name."""
ABBREVIATIONS = _words(_LISTS["abbreviations"])
"""Words whose full stop does not end a sentence."""
QUESTION_WORDS = _by_key(_LISTS["question_words"])
"""By kind of value: words of a question that asks for it."""
CJK_QUESTION_WORDS = _by_key(_LISTS["cjk_question_words"])
CJK_ATTRIBUTE_WORDS = tuple(sorted(_words(_LISTS["cjk_attribute_words"]), key=lambda word: (-len(word), word)))
"""The attribute words of Chinese and Japanese, longest first."""
CJK_RELATION_WORDS = _words(_LISTS["cjk_relation_words"])
CJK_FUNCTION_CHARACTERS = frozenset("的是了在为於于和與与及跟被也都就很地得把从從对對这那其我你他她它们們吗呢吧")
CJK_PLACE_SUFFIXES = frozenset("省市区區县縣镇鎮乡村路街巷号號楼都府町丁")
"""Characters that end the name of a place; such a name is never cut before them."""
