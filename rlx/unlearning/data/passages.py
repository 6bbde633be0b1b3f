"""Documents as passages that fit into the model's context, each of which overlaps the one before it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rlx.data.chat import encode_with_offsets
from rlx.errors import UserError
from rlx.specs.unlearn import Forget
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.sets import Sets, load_sets
from rlx.unlearning.data.spans import Span
from rlx.unlearning.data.text_units import one_word

OVERLAP = 1 / 8
"""Fraction of a passage's tokens that the next one repeats, so that no fact is only ever seen cut in two."""
EXTRA_TOKENS = 2
"""The first token, which starts a text, and the end of sequence."""
BREAKS = (r"\n\s*\n", r"[.!?。！？]['\"”»)]*\s", r"\s")
"""Where a passage ends, best first: a paragraph, a sentence, a word."""


def in_passages(sets: Sets, tokenizer: Any, length: int, limit: int) -> Sets:
    """The sets with their documents cut into passages.

    Args:
        sets: as read.
        tokenizer: a fast tokenizer.
        length: most tokens of a passage.
        limit: most passages of a measured set whose documents were cut.
    """
    measured = {}
    for part, requests in sets.measured.items():
        pieces = passages_of(requests, tokenizer, length)
        measured[part] = pieces if len(pieces) == len(requests) else pieces[: max(limit, 1)]
    forget, retain = (passages_of(requests, tokenizer, length) for requests in (sets.forget, sets.retain))
    return replace(sets, forget=forget, retain=retain, measured=measured)


def load_passages(forget: Forget, limit: int, tokenizer: Any, context: int | None) -> Sets:
    """The sets that ``forget.source`` names, with their documents cut into passages.

    Args:
        forget: the spec's section.
        limit: see ``load_sets``.
        tokenizer: a fast tokenizer.
        context: longest sequence of the model (tokens).

    Raises:
        UserError: when a file or the data set cannot be read, or the tokenizer cannot encode an answer.
    """
    sets = load_sets(forget, limit)
    try:
        return in_passages(sets, tokenizer, passage_length(forget, context), limit)
    except UserError as error:
        if forget.retain != "auto":
            raise
        fix = f"{error.fix}, or give questions to retain that it can encode (--retain)"
        raise UserError(error.what, fix=fix) from None


def passages_of(requests: Sequence[Request], tokenizer: Any, length: int) -> list[Request]:
    """The passages of every request; see ``passages``."""
    return [passage for request in requests for passage in passages(request, tokenizer, length)]


def passage_length(forget: Forget, context: int | None) -> int:
    """Most tokens of a passage: ``forget.max_tokens``, or the model's context if that is shorter."""
    return forget.max_tokens if context is None else min(forget.max_tokens, context)


def passages(request: Request, tokenizer: Any, length: int) -> list[Request]:
    """The passages of a document; a question and answer, or a text that fits, is returned as it is.

    The passages of a document have its id with a number (``report#2``) and one author, so that splits and intervals
    treat them as one cluster.

    Args:
        request: one row.
        tokenizer: a fast tokenizer.
        length: most tokens of a passage, with its first token and its end of sequence.
    """
    _, offsets = encode_with_offsets(request.answer, tokenizer)
    size = max(1, length - EXTRA_TOKENS)
    if request.question or len(offsets) <= size:
        return [request]
    edges = []
    first = 0
    while True:
        start = _word_start(request.answer, offsets, first, size // 4)
        last = min(first + size, len(offsets))
        end = _passage_end(request.answer, start, offsets[last - 1][1], last == len(offsets))
        # Cut out of its surroundings, a text may need more tokens.
        while last > first + 1 and len(encode_with_offsets(request.answer[start:end], tokenizer)[1]) > size:
            last -= 1
            end = _passage_end(request.answer, start, offsets[last - 1][1], False)
        edges.append((start, end))
        if end >= offsets[-1][1]:
            break
        reached = next(index for index, (_, stop) in enumerate(offsets) if stop > end)
        first = max(first + 1, reached - math.ceil(size * OVERLAP))
    return [_passage(request, number, start, end) for number, (start, end) in enumerate(edges, 1)]


def _passage_end(text: str, start: int, end: int, is_last: bool) -> int:
    """The last good place to end a passage, in its second half; ``end`` if there is none."""
    if is_last:
        return end
    middle = (start + end) // 2
    for pattern in BREAKS:
        stops = [match.end() for match in re.finditer(pattern, text[middle:end])]
        if stops:
            return middle + stops[-1]
    return end


def _word_start(text: str, offsets: Sequence[tuple[int, int]], first: int, most: int) -> int:
    """The start of the word of a token; of the token itself if the word began more than ``most`` tokens before."""
    index = first
    while index > max(first - most, 0) and one_word(text, offsets[index][0]):
        index -= 1
    start = offsets[index][0]
    return start if not one_word(text, start) else offsets[first][0]


def _passage(request: Request, number: int, start: int, end: int) -> Request:
    """One passage, with those parts of the document's spans that lie in it."""
    text = request.answer[start:end]
    spans = [Span(max(s.start, start) - start, min(s.end, end) - start) for s in request.spans]
    return replace(
        request,
        id=f"{request.id}#{number}",
        answer=text,
        spans=tuple(span for span in spans if span.start < span.end),
        # Negative, because the default is the row's index.
        author=-request.line if request.author is None else request.author,
        document=request.id,
    )
