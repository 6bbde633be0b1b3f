"""An answer's units with their part in it: new, known from the question, or a word that only leads to a value."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rlx.unlearning.data.span_words import (
    ABBREVIATIONS,
    ATTRIBUTE_WORDS,
    CJK_QUESTION_WORDS,
    CONJUNCTIONS,
    FUNCTION_WORDS,
    GERMAN_WORDS,
    PERSON_TITLES,
    QUESTION_WORDS,
    RELATION_WORDS,
    STREET_WORDS,
)
from rlx.unlearning.data.text_units import HANGUL, Unit, units

CJK_NUMERALS = re.compile("[〇零一二三四五六七八九十百千万亿億两]")
POSSESSIVE = re.compile(r"['’](?:s|S|[dt][ae]n?|y[aeıiuü]|n?[ıiuü]n)?$")
"""English 's, and the endings that Turkish sets off from a name."""
COMMA = re.compile("[,،、]")


@dataclass(slots=True)
class Token:
    """A unit with its part in the answer.

    Example:
        ``Token(Unit(26, 34, "number"), "555-0199", role="new", sentence=0, clause=0, starts=False)``
    """

    unit: Unit
    text: str
    role: str
    """``new``, ``known`` (in the question), ``function``, ``attribute`` or ``relation``."""
    sentence: int
    clause: int
    starts: bool
    """Whether it is the first word of its sentence."""
    name_in_question: bool = False
    """Whether the question holds it in the same letters, as a name that is no part of the new one."""

    @property
    def word(self) -> str:
        """Lower case without a possessive ending."""
        return POSSESSIVE.sub("", self.text.lower())

    @property
    def number(self) -> bool:
        """Whether it holds a digit."""
        return self.unit.kind == "number"

    @property
    def capitalised(self) -> bool:
        """Whether it is written like a name."""
        return self.unit.kind == "word" and self.text[:1].isupper()

    @property
    def lower(self) -> bool:
        """Whether it is a word in lower case; scripts without case have none."""
        return self.unit.kind == "word" and self.text[:1].islower()

    @property
    def uncased(self) -> bool:
        """Whether it is a word of a script without capitals."""
        return self.unit.kind == "word" and not self.text[:1].isupper() and not self.text[:1].islower()

    @property
    def named(self) -> bool:
        """Whether it is a number or may be a name by its writing."""
        return self.number or self.capitalised or self.unit.kind == "cjk" or self.uncased


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as tokens, and what its question asks for.

    Example:
        ``Reading(tokens, value_kinds=frozenset({"phone"}), german=False)``
    """

    tokens: list[Token]
    value_kinds: frozenset[str]
    """Kinds of value: ``who``, ``where``, ``date``, ``phone``, ``mail``, ``amount``; empty for any other question."""
    german: bool
    """German writes every noun like a name."""


def read_answer(question: str, answer: str, names: str) -> Reading:
    """The tokens of an answer.

    Args:
        question: empty for a plain text.
        answer: the text.
        names: those that count as part of the question.
    """
    words = re.findall(r"[^\W\d_]+", f"{question} {answer}".lower())
    german = any(word in GERMAN_WORDS for word in words)
    languages = _languages(words)
    value_kinds = _asked_kinds(question, not german and "dutch" in languages)
    function_words = frozenset().union(*(FUNCTION_WORDS[language] for language in languages))
    if "where" in value_kinds:
        function_words -= STREET_WORDS
    context = f"{question} {names}"
    in_question = {
        POSSESSIVE.sub("", question[u.start : u.end].lower()) for u in units(question, "") if u.kind != "quoted"
    }
    in_question = {_stem(word) for word in in_question} | {_stem(word) for word in re.findall(r"\w+", context.lower())}
    tokens: list[Token] = []
    sentence = clause = 0
    for unit in units(answer, context):
        text = answer[unit.start : unit.end]
        before = answer[tokens[-1].unit.end if tokens else 0 : unit.start]
        starts = not tokens or _ends_sentence(tokens[-1], before)
        if tokens and (starts or re.search("[。；，]", before)):
            sentence, clause = sentence + ("，" not in before), clause + 1
        elif tokens and ((COMMA.search(before) and text[:1].islower()) or tokens[-1].word in CONJUNCTIONS):
            clause += 1
        token = Token(unit, text, "new", sentence, clause, starts)
        token.name_in_question = token.capitalised and POSSESSIVE.sub("", text) in context
        token.role = _role(token, in_question, context, function_words)
        tokens.append(token)
    return Reading(tokens, value_kinds, german)


def _asked_kinds(question: str, dutch: bool) -> frozenset[str]:
    """The kinds of value that a question asks for."""
    original = [POSSESSIVE.sub("", word) for word in re.findall(r"[\w'’-]+", question)]
    words = [word.lower() for word in original]
    kinds = {kind for kind, keys in QUESTION_WORDS.items() if keys.intersection(words)}
    kinds |= {kind for kind, keys in CJK_QUESTION_WORDS.items() if any(key in question for key in keys)}
    if words and any(words[0] in QUESTION_WORDS[kind] for kind in ("who", "where", "date")):
        kinds = {kind for kind in ("who", "where", "date") if words[0] in QUESTION_WORDS[kind]}
    elif dutch and words and words[0] == "wie":
        kinds = {"who"}
    elif kinds != {"who"}:
        kinds -= {"who"}
    # "Who is Bob Miller?" asks for anything that is known about him, "Who is Bob's wife?" for a name.
    contents = [w for w in original[1:] if w[:1].islower() and not any(w in own for own in FUNCTION_WORDS.values())]
    cased = any(word[:1].islower() for word in original)
    if kinds == {"who"} and cased and not contents and not RELATION_WORDS.intersection(words):
        kinds = set()
    return frozenset(kinds)


def _languages(words: list[str]) -> list[str]:
    """The languages most of whose function words occur: mes is French for my and Spanish for month."""
    hits = {language: sum(word in own for word in words) for language, own in FUNCTION_WORDS.items()}
    return [language for language, count in hits.items() if count == max(hits.values())]


def _role(token: Token, in_question: set[str], context: str, function_words: frozenset[str]) -> str:
    kind, word = token.unit.kind, token.word
    if kind in ("cjk_known", "cjk_attribute", "cjk_relation"):
        return kind.removeprefix("cjk_")
    if kind in ("link", "quoted", "number"):
        return "known" if token.text.lower() in context.lower() else "new"
    if kind == "cjk":
        return "new"
    if _stem(word) in in_question or (not _needs_exact_match(token) and _has_relative(word, in_question)):
        return "function" if word in function_words else "known"
    if word in function_words or word.rstrip("'’") in ("l", "d", "n", "s", "qu", "c", "j", "m", "t"):
        return "new" if token.capitalised and not token.starts and word not in PERSON_TITLES else "function"
    if word in RELATION_WORDS:
        return "relation"
    return "attribute" if word in ATTRIBUTE_WORDS else "new"


def _needs_exact_match(token: Token) -> bool:
    """Whether another ending makes another name (Maria, Marie); Cyrillic names are declined."""
    return token.capitalised and not token.starts and not "\u0400" <= token.text[0] <= "\u04ff"


def _has_relative(word: str, in_question: set[str]) -> bool:
    """Whether a word of the question differs from this one by its ending only: wohnt, wohnen."""
    for other in in_question:
        if re.fullmatch(f"[{HANGUL}]{{2,}}", word) and word[:-1] == other[:-1]:  # another particle
            return True
        stem = max(4, min(len(word), len(other)) - 1, max(len(word), len(other)) - 3)
        if len(word) >= stem and len(other) >= stem and word[:stem] == other[:stem] and not other[:1].isdigit():
            return True
    return False


def _stem(word: str) -> str:
    """Lower case without a possessive or plural s."""
    return re.sub(r"(?:['’]s?|s)$", "", word.lower()) or word.lower()


def _ends_sentence(token: Token, gap: str) -> bool:
    if re.search(r"[!?\n。！？]|\.{3}|…", gap):
        return True
    if not re.match(r"[\"'’”»)]*\.(?:\s|$|[\"”»])", gap):
        return False
    short = len(token.text) <= 1 and token.capitalised
    return not (
        short or token.word in ABBREVIATIONS or token.word.endswith("str") or (token.number and len(token.text) <= 2)
    )
