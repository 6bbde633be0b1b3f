"""What a model that does not know a request would say: the same request with its names exchanged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import Literal

from rlx.unlearning.data.requests import Request

BaselineSource = Literal["retain model", "names exchanged", "other questions", "none"]
VARIANTS = 3
"""Exchanged requests whose mean score is the baseline."""
INVENTED_NAMES = (("Maren", "Holtby"), ("Teodor", "Vance"), ("Ilse", "Karlow"))
"""Given and family names, used where the data have too few other names of two words."""


def exchanged(request: Request, others: Sequence[Request], pool: Sequence[str]) -> tuple[BaselineSource, list[Request]]:
    """Requests whose scores under the original model are the baseline of a request.

    The names are exchanged in the question and in the answer, so that only their association with the rest of the
    answer is removed: a model that copies the name from the question copies the other name as well. Without a name the
    answer is scored after the questions of other requests.

    Args:
        request: with its subject, if it has one.
        others: all requests, of which those with another answer lend their questions.
        pool: names of other persons in the data, whose parts replace the request's (see ``name_pool``).

    Returns:
        How the baseline is made, and up to three requests without paraphrases and wrong answers.
    """
    bare = replace(request, paraphrase=None, question_paraphrase=None, wrong=(), alternate=None, spans=())
    variants: list[Request] = []
    names = _names(request)
    for words in _other_names(names, pool):
        swap = _swaps(names, words[0], words[-1])
        variant = replace(bare, question=_replaced(bare.question, swap), answer=_replaced(bare.answer, swap))
        if (variant.question, variant.answer) != (bare.question, bare.answer) and variant.answer.strip():
            variants.append(variant)
    if variants:
        return "names exchanged", variants[:VARIANTS]
    lent = _lent_questions(request, others) if request.question else []
    return ("other questions" if lent else "none"), [replace(bare, question=question) for question in lent]


def name_pool(requests: Sequence[Request], retain: Sequence[Request]) -> list[str]:
    """Names of persons in the data: subjects of forget requests, then those of retained rows, or names in them."""
    pool: dict[str, None] = {request.subject: None for request in requests if request.subject}
    for row in retain:
        pool |= dict.fromkeys([row.subject] if row.subject else _capitalised(row.question))
    return list(pool)


def _lent_questions(request: Request, others: Sequence[Request]) -> list[str]:
    """The first questions of requests with another answer."""
    questions: dict[str, None] = {}
    for other in others:
        if other.question and other.answer != request.answer and other.question != request.question:
            questions[other.question] = None
        if len(questions) == VARIANTS:
            break
    return list(questions)


def _other_names(names: Sequence[str], pool: Sequence[str]) -> list[list[str]]:
    """Given and family names of persons whom the model does not know, none of them a word of the request's own names.

    A given name of one person with the family name of another is in the vocabulary of any model that read the data,
    and is nobody of whom it could know another answer.
    """
    own = {word.lower() for name in names for word in name.split()}
    several = (words for words in (name.split() for name in pool) if len(words) > 1)
    usable = (words for words in several if own.isdisjoint(word.lower() for word in words))
    combined = ([one[0], other[-1]] for one, other in pairwise(usable) if one[-1] != other[-1])
    return [*islice(combined, VARIANTS), *(list(words) for words in INVENTED_NAMES)]


def _names(request: Request) -> list[str]:
    """The request's names, longest first: its subject and aliases, or else words with a capital inside a sentence."""
    names = [name for name in (request.subject, *request.aliases) if name and name.strip()]
    return sorted(names or _capitalised(request.question or request.answer), key=len, reverse=True)


def _capitalised(text: str) -> list[str]:
    """Runs of words with a capital first letter, except a word that starts a sentence."""
    names: list[list[str]] = []
    previous_end = -1
    for match in re.finditer(r"[^\W\d_][\w'’-]*", text):
        starts_sentence = not text[: match.start()].strip() or text[: match.start()].rstrip()[-1] in '.!?:¿¡"«„“'
        word = re.sub(r"['’]s?$", "", match.group())
        if word[0].isupper() and word != "I" and not starts_sentence:
            adjacent = bool(names) and text[previous_end : match.start()].isspace()
            if adjacent:
                names[-1].append(word)
            else:
                names.append([word])
            previous_end = match.end()
    return [" ".join(words) for words in names]


def _swaps(names: Sequence[str], given: str, family: str) -> dict[str, str]:
    """Each name, and each of its capitalised words, with what replaces it."""
    swaps: dict[str, str] = {}
    for name in names:
        words = name.split()
        swaps[name] = given if len(words) == 1 else f"{given} {family}"
        if len(words) > 1:
            parts = [word for word in words if word[0].isupper() and len(word) > 1]
            swaps |= {word: given if index == 0 else family for index, word in enumerate(parts) if word not in swaps}
    return swaps


def _replaced(text: str, swaps: Mapping[str, str]) -> str:
    """The text with every name replaced; a possessive s stays."""
    if not swaps:
        return text
    pattern = "|".join(_pattern(name) for name in sorted(swaps, key=len, reverse=True))
    lowered = {name.lower(): other for name, other in swaps.items()}
    return re.sub(pattern, lambda match: lowered[match.group().lower()], text, flags=re.IGNORECASE)


def _pattern(name: str) -> str:
    """A name as a pattern; scripts without capitals do not separate words, so it may be inside one there."""
    words = r"\s+".join(re.escape(word) for word in name.split())
    return rf"(?<!\w){words}(?=s?(?!\w))" if name.upper() != name.lower() else words
