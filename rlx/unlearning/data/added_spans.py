"""The spans of what an answer adds to its question: numbers, names, dates, addresses and terms, each complete.

The answer is divided into units (``text_units.py``). A unit is new if the question does not hold it and it is neither a
function word nor a word that only leads to a value (is called, lives, was diagnosed). Neighbouring new units form one
span. Where the question asks for a number, a name or a place, other new words of the same clause are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rlx.unlearning.data.answer_tokens import CJK_NUMERALS, COMMA, POSSESSIVE, Reading, Token, read_answer
from rlx.unlearning.data.span_words import (
    AFFIRMATIONS,
    CONJUNCTIONS,
    CONNECTORS,
    NUMBERED_WORDS,
    OF_WORDS,
    PLACE_CONNECTORS,
    STREET_WORDS,
    TERM_WORDS,
)

BREAK = re.compile(r"[;:!?()\[\]\n。；：！？（），|]")


def added_spans(question: str, answer: str, subject_names: Sequence[str] = ()) -> list[tuple[int, int]]:
    """Start and end (exclusive) of what the answer adds to the question.

    If it adds no value, the words that name an attribute or a relation are returned (married). The yes or no at the
    start of an answer that repeats its question is returned too: it is what the answer adds.

    Args:
        question: empty for a plain text.
        answer: the text.
        subject_names: names of the subject, which count as part of the question.
    """
    reading = read_answer(question, answer, " ".join(subject_names))
    tokens = reading.tokens
    selected = [index for index, token in enumerate(tokens) if token.role == "new"]
    valued = {tokens[index].sentence for index in selected}
    selected += [i for i, token in enumerate(tokens) if token.role == "relation" and token.sentence not in valued]
    confirmed = _confirmation(tokens, question)
    if question:
        selected = selected or confirmed or [index for index, token in enumerate(tokens) if token.role == "attribute"]
    complete = _completed(reading, sorted(selected))
    runs = _filtered(_runs(reading, complete, answer), reading)
    edges = [_edges(run, answer) for run in runs]
    return sorted({*edges, *((tokens[i].unit.start, tokens[i].unit.end) for i in confirmed)})


def _confirmation(tokens: Sequence[Token], question: str) -> list[int]:
    """The index of a leading yes or no, if its sentence repeats more of the question than names."""
    if not question or not tokens or tokens[0].word not in AFFIRMATIONS:
        return []
    repeated = [t for t in tokens[1:] if t.sentence == 0 and t.role == "known" and not t.capitalised]
    return [0] if repeated or len(tokens) == 1 else []


def _completed(reading: Reading, selected: list[int]) -> set[int]:
    """The selected tokens with those that complete a name or a numbered term although the question holds them."""
    tokens, result = reading.tokens, set(selected)
    for index in selected:
        token = tokens[index]
        for step in (-1, 1):
            other = index + step
            while (
                0 <= other < len(tokens)
                and _belongs(token, tokens[other], step, reading.german)
                and (_touch(tokens, other, step))
            ):
                result.add(other)
                other += step
        following = tokens[index + 1 : index + 2]
        result |= {index + 1 for other in following if other.word in TERM_WORDS and _near(token, other)}
        if index > 1 and tokens[index - 1].word.rstrip("'’") in OF_WORDS and tokens[index - 2].word in TERM_WORDS:
            result.add(index - 2)
        if token.number and index and tokens[index - 1].word in NUMBERED_WORDS:
            after = tokens[index + 1 : index + 2]
            result |= {index - 1} | {index + 1 for t in after if t.lower and t.role in ("known", "new")}
    return result


def _belongs(token: Token, other: Token, step: int, german: bool) -> bool:
    """Whether a token that is not new is part of the same name, as City in Kuwait City."""
    if other.role not in ("known", "attribute", "relation") or not token.named:
        return False
    if other.name_in_question:  # a surname after a new first name, but not a known name before a new word
        return step > 0 and token.capitalised and not token.name_in_question
    if other.word in STREET_WORDS and not other.starts:
        return True
    return token.capitalised and other.capitalised and not (token.starts or other.starts or german)


def _touch(tokens: Sequence[Token], index: int, step: int) -> bool:
    """Whether only a space lies between a token and the one before it in the given direction."""
    first, second = (tokens[i] for i in sorted((index, index - step)))
    return _near(first, second) and not POSSESSIVE.search(first.text)


def _near(first: Token, second: Token) -> bool:
    return second.unit.start - first.unit.end <= 1


def _runs(reading: Reading, selected: set[int], answer: str) -> list[list[Token]]:
    """Neighbouring selected tokens."""
    runs: list[list[int]] = []
    for index in sorted(selected):
        if runs and _joins(reading, runs[-1], index, answer):
            runs[-1].append(index)
        else:
            runs.append([index])
    return [[reading.tokens[index] for index in run] for run in runs]


def _joins(reading: Reading, run: Sequence[int], index: int, answer: str) -> bool:
    """Whether a token continues a run."""
    tokens, value_kinds = reading.tokens, reading.value_kinds
    last, token, between = tokens[run[-1]], tokens[index], tokens[run[-1] + 1 : index]
    gap = answer[last.unit.end : token.unit.start]
    if BREAK.search(gap) or token.starts or "quoted" in (last.unit.kind, token.unit.kind) or len(between) > 2:
        return False
    if any(t.role != "function" for t in between):
        return False
    numbered = token.number or any(tokens[i].number for i in run)
    if COMMA.search(gap):
        if "、" in gap or (
            between and not ("where" in value_kinds and all(t.word in PLACE_CONNECTORS for t in between))
        ):
            return False
        named = token.named or token.word in STREET_WORDS
        return (numbered and last.named and (named or "where" in value_kinds)) or (
            last.named and named and ("where" in value_kinds or not _enumerated(tokens, run[0], index, answer))
        )
    if not between:
        return not gap.strip(" \u00a0\u202f-‐–/'’.&")
    words = {t.word.rstrip("'’") for t in between}
    if "where" in value_kinds and words <= PLACE_CONNECTORS | CONNECTORS and last.named and token.named:
        return True
    return words <= CONNECTORS and (numbered or (last.named and token.named) or words <= OF_WORDS)


def _enumerated(tokens: Sequence[Token], first: int, index: int, answer: str) -> bool:
    """Whether a comma between two names separates items of a list: more commas or a conjunction are near."""
    before = answer[tokens[first - 1].unit.end : tokens[first].unit.start] if first else ""
    following = tokens[index + 1 : index + 3]
    after = answer[tokens[index].unit.end : following[-1].unit.end if following else len(answer)]
    return "," in before or "," in after or any(t.word in CONJUNCTIONS for t in following[:1])


def _filtered(runs: list[list[Token]], reading: Reading) -> list[list[Token]]:
    """Runs without the words that only lead to a value of the kind that the question asks for."""
    is_value = _value_test(reading.value_kinds)
    # Only in the clause that gives the value asked for; what a later clause adds is another fact.
    valued = set([token.clause for run in runs for token in run if is_value(token)][:1])
    result = []
    for run in runs:
        if not {token.clause for token in run} & valued:
            result.append(run)
        elif any(is_value(token) or token.number or token.unit.kind in ("link", "quoted") for token in run):
            result.append(_trimmed(run, is_value, reading.value_kinds))
        elif any(token.capitalised and not token.starts for token in run) and (
            not reading.german or _follows_place_word(run[0], reading.tokens)
        ):
            result.append(run)
    return [run for run in result if run]


def _value_test(value_kinds: frozenset[str]) -> Callable[[Token], bool]:
    def is_value(token: Token) -> bool:
        cased = token.capitalised or token.uncased or token.unit.kind in ("cjk", "quoted")
        return (
            ("phone" in value_kinds and token.number and sum(letter.isdigit() for letter in token.text) >= 3)
            or ("mail" in value_kinds and token.unit.kind == "link")
            or (bool(value_kinds & {"date", "amount"}) and (token.number or bool(CJK_NUMERALS.search(token.text))))
            or ("where" in value_kinds and (cased or token.number))
            or ("who" in value_kinds and cased)
        )

    return is_value


def _trimmed(run: list[Token], is_value: Callable[[Token], bool], value_kinds: frozenset[str]) -> list[Token]:
    """A run without words in lower case before its value, and after it unless they are its unit or month."""
    own = [index for index, token in enumerate(run) if is_value(token) or token.number or not token.lower]
    if not own:
        return run
    first, last = own[0], own[-1]
    while first and (
        run[first - 1].word in STREET_WORDS or (run[first].number and run[first - 1].word in NUMBERED_WORDS)
    ):
        first -= 1
    end = (
        last + 1
        if value_kinds & {"phone", "mail", "who"} and not value_kinds & {"date", "amount", "where"}
        else len(run)
    )
    return run[first:end]


def _follows_place_word(token: Token, tokens: Sequence[Token]) -> bool:
    index = next(i for i, other in enumerate(tokens) if other is token)
    return index > 0 and tokens[index - 1].word in ("in", "aus", "nach")


def _edges(run: Sequence[Token], answer: str) -> tuple[int, int]:
    """Start and end of a run without a possessive ending."""
    start, end = run[0].unit.start, run[-1].unit.end
    possessive = POSSESSIVE.search(answer, start, end)
    return start, possessive.start() if possessive and run[-1].unit.kind == "word" else end
