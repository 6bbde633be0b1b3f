"""The spans of what an answer adds to its question: numbers, names, dates, addresses and terms, each complete.

The answer is divided into units (``text_units.py``). A unit is new if the question does not hold it and it is neither a
function word nor a word that only leads to a value (is called, lives, was diagnosed). Neighbouring new units form one
span. Where the question asks for a number, a name or a place, other new words of the same clause are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlx.unlearning.data.span_words import (
    ABBREVIATIONS,
    AFFIRMATIONS,
    ATTRIBUTE_WORDS,
    CJK_QUESTION_WORDS,
    CONJUNCTIONS,
    CONNECTORS,
    FUNCTION_WORDS,
    GERMAN_WORDS,
    NUMBERED_WORDS,
    OF_WORDS,
    PERSON_TITLES,
    PLACE_CONNECTORS,
    QUESTION_WORDS,
    RELATION_WORDS,
    STREET_WORDS,
)
from rlx.unlearning.data.text_units import Unit, units

BREAK = re.compile(r"[;:!?()\[\]\n。；：！？（），|]")
CJK_NUMERALS = re.compile("[〇零一二三四五六七八九十百千万亿億两]")
POSSESSIVE = re.compile(r"['’](?:s|S)?$")


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
    def named(self) -> bool:
        """Whether it is a number or written like a name."""
        return self.number or self.capitalised or self.unit.kind == "cjk"


def added_spans(question: str, answer: str, known: Sequence[str] = ()) -> list[tuple[int, int]]:
    """Start and end (exclusive) of what the answer adds to the question.

    If it adds no value, the words that name an attribute or a relation are returned (married), and if it adds only its
    yes or no, that word.

    Args:
        question: empty for a plain text.
        answer: the text.
        known: names of the subject, which count as part of the question.
    """
    asked = asked_kinds(question)
    function_words = _function_words(f"{question} {answer}")
    if "where" in asked:
        function_words -= STREET_WORDS
    tokens = _tokens(question, answer, " ".join(known), function_words)
    selected = [index for index, token in enumerate(tokens) if token.role == "new"]
    valued = {tokens[index].sentence for index in selected}
    selected += [i for i, token in enumerate(tokens) if token.role == "relation" and token.sentence not in valued]
    selected = selected or [index for index, token in enumerate(tokens) if token.role == "attribute"]
    if not selected:
        return [(t.unit.start, t.unit.end) for t in tokens[:1] if t.word in AFFIRMATIONS]
    german = any(word in GERMAN_WORDS for word in re.findall(r"\w+", f"{question} {answer}".lower()))
    complete = _completed(tokens, sorted(selected), german)
    runs = _filtered(_runs(tokens, complete, answer, asked), tokens, asked, german)
    return [_edges(run, answer) for run in runs]


def asked_kinds(question: str) -> frozenset[str]:
    """The kinds of value that a question asks for: ``who``, ``where``, ``date``, ``phone``, ``mail``, ``amount``."""
    words = [POSSESSIVE.sub("", word) for word in re.findall(r"[\w'’-]+", question.lower())]
    kinds = {kind for kind, keys in QUESTION_WORDS.items() if keys.intersection(words)}
    kinds |= {kind for kind, keys in CJK_QUESTION_WORDS.items() if any(key in question for key in keys)}
    first = {kind for kind in ("who", "where", "date") if words and words[0] in QUESTION_WORDS[kind]}
    return frozenset(first or (kinds - {"who"} if kinds != {"who"} else kinds))


def _function_words(text: str) -> frozenset[str]:
    """The function words of the text's language, as far as they tell: mes is French for my and Spanish for month."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    hits = {language: sum(word in own for word in words) for language, own in FUNCTION_WORDS.items()}
    best = max(hits.values())
    return frozenset().union(*(FUNCTION_WORDS[language] for language, count in hits.items() if count == best))


def _tokens(question: str, answer: str, known: str, function_words: frozenset[str]) -> list[Token]:
    known_words = [
        POSSESSIVE.sub("", question[u.start : u.end].lower()) for u in units(question, "") if u.kind != "quoted"
    ]
    known_words += [word.lower() for word in re.findall(r"[\w'’-]+", known)]
    context = f"{question} {known}"
    in_question = {_stem(word) for word in known_words} | {_stem(w) for w in re.findall(r"\w+", context.lower())}
    tokens: list[Token] = []
    sentence = clause = 0
    for unit in units(answer, context):
        text = answer[unit.start : unit.end]
        before = answer[tokens[-1].unit.end if tokens else 0 : unit.start]
        starts = not tokens or _ends_sentence(tokens[-1], before)
        if tokens and (starts or "。" in before or "；" in before or "，" in before):
            sentence, clause = sentence + ("，" not in before), clause + 1
        elif tokens and (("," in before and text[:1].islower()) or tokens[-1].word in CONJUNCTIONS):
            clause += 1
        token = Token(unit, text, "new", sentence, clause, starts)
        token.name_in_question = token.capitalised and POSSESSIVE.sub("", text) in context
        token.role = _role(token, in_question, context, function_words)
        tokens.append(token)
    return tokens


def _role(token: Token, in_question: set[str], context: str, function_words: frozenset[str]) -> str:
    kind, word = token.unit.kind, token.word
    if kind == "cjk_known":
        return "known"
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
    return not (short or token.word in ABBREVIATIONS or (token.number and len(token.text) <= 2))


def _completed(tokens: Sequence[Token], selected: list[int], german: bool) -> set[int]:
    """The selected tokens with those that complete a name or a numbered term although the question holds them."""
    result = set(selected)
    for index in selected:
        token = tokens[index]
        for step in (-1, 1):
            other = index + step
            while 0 <= other < len(tokens) and _belongs(token, tokens[other], german) and _touch(tokens, other, step):
                result.add(other)
                other += step
        if token.number and index and tokens[index - 1].word in NUMBERED_WORDS:
            after = tokens[index + 1 : index + 2]
            result |= {index - 1} | {index + 1 for t in after if t.lower and t.role in ("known", "new")}
    return result


def _belongs(token: Token, other: Token, german: bool) -> bool:
    """Whether a token that is not new is part of the same name, as City in Kuwait City."""
    if other.role not in ("known", "attribute", "relation") or not token.named or other.name_in_question:
        return False
    if other.word in STREET_WORDS and not other.starts:
        return True
    return token.capitalised and other.capitalised and not (token.starts or other.starts or german)


def _touch(tokens: Sequence[Token], index: int, step: int) -> bool:
    """Whether only a space lies between a token and the one before it in the given direction."""
    first, second = sorted((index, index - step))
    return tokens[second].unit.start - tokens[first].unit.end <= 1 and not POSSESSIVE.search(tokens[first].text)


def _runs(tokens: Sequence[Token], selected: set[int], answer: str, asked: frozenset[str]) -> list[list[Token]]:
    """Neighbouring selected tokens."""
    runs: list[list[int]] = []
    for index in sorted(selected):
        if runs and _joins(tokens, runs[-1], index, answer, asked):
            runs[-1].append(index)
        else:
            runs.append([index])
    return [[tokens[index] for index in run] for run in runs]


def _joins(tokens: Sequence[Token], run: Sequence[int], index: int, answer: str, asked: frozenset[str]) -> bool:
    """Whether a token continues a run."""
    last, token, between = tokens[run[-1]], tokens[index], tokens[run[-1] + 1 : index]
    gap = answer[last.unit.end : token.unit.start]
    if BREAK.search(gap) or token.starts or "quoted" in (last.unit.kind, token.unit.kind) or len(between) > 2:
        return False
    if any(t.role != "function" for t in between) or POSSESSIVE.search(last.text):
        return False
    numbered = token.number or any(tokens[i].number for i in run)
    if "," in gap or "、" in gap:
        if "、" in gap or (between and not ("where" in asked and all(t.word in PLACE_CONNECTORS for t in between))):
            return False
        named = token.named or token.word in STREET_WORDS
        return (numbered and last.named and (named or "where" in asked)) or (
            last.named and named and ("where" in asked or not _enumerated(tokens, run[0], index, answer))
        )
    if not between:
        return not gap.strip(" \u00a0\u202f-‐–/'’.&")
    words = {t.word.rstrip("'’") for t in between}
    if "where" in asked and words <= PLACE_CONNECTORS | CONNECTORS and last.named and token.named:
        return True
    return words <= CONNECTORS and (numbered or (last.named and token.named) or words <= OF_WORDS)


def _enumerated(tokens: Sequence[Token], first: int, index: int, answer: str) -> bool:
    """Whether a comma between two names separates items of a list: more commas or a conjunction are near."""
    before = answer[tokens[first - 1].unit.end : tokens[first].unit.start] if first else ""
    following = tokens[index + 1 : index + 3]
    after = answer[tokens[index].unit.end : following[-1].unit.end if following else len(answer)]
    return "," in before or "," in after or any(t.word in CONJUNCTIONS for t in following[:1])


def _filtered(
    runs: list[list[Token]], tokens: Sequence[Token], asked: frozenset[str], german: bool
) -> list[list[Token]]:
    """Runs without the words that only lead to a value of the kind that the question asks for."""
    is_value = _value_test(asked)
    # Only in the clause that gives the value asked for; what a later clause adds is another fact.
    valued = set([token.clause for run in runs for token in run if is_value(token)][:1])
    result = []
    for run in runs:
        if not {token.clause for token in run} & valued:
            result.append(run)
        elif any(is_value(token) or token.number or token.unit.kind in ("link", "quoted") for token in run):
            result.append(_trimmed(run, is_value, asked))
        elif any(token.capitalised and not token.starts for token in run) and (
            not german or _follows_place_word(run[0], tokens)
        ):
            result.append(run)
    return [run for run in result if run]


def _value_test(asked: frozenset[str]) -> Callable[[Token], bool]:
    def is_value(token: Token) -> bool:
        cased = (
            token.capitalised or token.unit.kind in ("cjk", "quoted") or (token.unit.kind == "word" and not token.lower)
        )
        return (
            ("phone" in asked and token.number and sum(letter.isdigit() for letter in token.text) >= 3)
            or ("mail" in asked and token.unit.kind == "link")
            or (bool(asked & {"date", "amount"}) and (token.number or bool(CJK_NUMERALS.search(token.text))))
            or ("where" in asked and (cased or token.number))
            or ("who" in asked and cased)
        )

    return is_value


def _trimmed(run: list[Token], is_value: Callable[[Token], bool], asked: frozenset[str]) -> list[Token]:
    """A run without words in lower case before its value, and after it unless they are its unit or month."""
    own = [index for index, token in enumerate(run) if is_value(token) or token.number or not token.lower]
    if not own:
        return run
    first, last = own[0], own[-1]
    while first and (
        run[first - 1].word in STREET_WORDS or (run[first].number and run[first - 1].word in NUMBERED_WORDS)
    ):
        first -= 1
    end = last + 1 if asked & {"phone", "mail", "who"} and not asked & {"date", "amount", "where"} else len(run)
    return run[first:end]


def _follows_place_word(token: Token, tokens: Sequence[Token]) -> bool:
    index = next(i for i, other in enumerate(tokens) if other is token)
    return index > 0 and tokens[index - 1].word in ("in", "aus", "nach")


def _edges(run: Sequence[Token], answer: str) -> tuple[int, int]:
    """Start and end of a run without a possessive ending."""
    start, end = run[0].unit.start, run[-1].unit.end
    possessive = POSSESSIVE.search(answer, start, end)
    return start, possessive.start() if possessive and run[-1].unit.kind == "word" else end
