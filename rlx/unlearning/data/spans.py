"""The sensitive characters of an answer: given spans and their repair, and spans found by rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlx.unlearning.data.text_units import CJK, HANGUL, one_word

SpanSource = Literal["auto", "given", "subject", "surprisal", "all"]
WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` (exclusive) of an answer.

    Example:
        ``Span(26, 39)``
    """

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Repair:
    """The repaired spans of one request.

    Example:
        ``Repair((Span(4, 13),), repaired=("'Kuwait' at 3-9 cut a word: now 'Al-Kuwaiti'",), refused=())``
    """

    spans: tuple[Span, ...]
    repaired: tuple[str, ...] = ()
    """Descriptions of spans that were moved or widened."""
    refused: tuple[str, ...] = ()
    """Descriptions of spans that could not be located and are not used."""


def repair(answer: str, given: Sequence[tuple[int, int, str | None]]) -> Repair:
    """Repair given spans: inside the text, equal to their word, and not cutting a word.

    A span whose text is not its word is moved to the word's nearest occurrence; one that cuts a word is widened to it;
    one that lies outside the text or whose word is not in it is refused. Overlapping spans are joined.

    Args:
        answer: the text.
        given: start, end (exclusive) and, if given, the text of the span.
    """
    spans, repaired, refused = [], [], []
    for start, end, word in given:
        located = _located(answer, start, end, word)
        if located is None:
            description = f"'{word}'" if word else "a span"
            refused.append(f"{description} at {start}-{end} is not in the answer of {len(answer)} characters")
            continue
        widened = _widen_to_words(answer, located)
        text = answer[widened.start : widened.end]
        if located != Span(start, end):
            repaired.append(f"'{word}' at {start}-{end} did not match: found at {located.start}-{located.end}")
        if widened != located:
            repaired.append(f"'{answer[located.start : located.end]}' at {start}-{end} cut a word: now '{text}'")
        spans.append(widened)
    return Repair(joined(spans), tuple(repaired), tuple(refused))


def name_spans(answer: str, names: Sequence[str]) -> tuple[Span, ...]:
    """Every occurrence of the names, ignoring case; for a name that does not occur, of its first and last word."""
    return joined([span for name in names for span in _occurrences(answer, name)])


def holds_name(question: str, name: str) -> bool:
    """Whether a question holds a name, or its first or last word."""
    return bool(_occurrences(question, name))


def _occurrences(text: str, name: str) -> list[Span]:
    words = [re.escape(word) for word in WORD.findall(name)]
    if not words:
        return []
    # A name in a script without spaces is not bounded by anything.
    bounded = not re.search(f"[{CJK}{HANGUL}]", name)
    start, end = (r"(?<!\w)", r"(?!\w)") if bounded else ("", "")
    genitive = "s?" if bounded else ""
    matches = list(re.finditer(rf"{start}{'[^0-9A-Za-z]+'.join(words)}(?={genitive}{end})", text, re.IGNORECASE))
    if not matches and len(words) > 1:
        parts = sorted({words[0], words[-1]}, key=len, reverse=True)
        matches = list(re.finditer(rf"{start}(?:{'|'.join(parts)})(?={genitive}{end})", text, re.IGNORECASE))
    return [Span(match.start(), match.end()) for match in matches]


def surprising_spans(
    answer: str, offsets: Sequence[tuple[int, int]], surprisal: Sequence[float], threshold: float
) -> tuple[Span, ...]:
    """Words that have a token whose surprisal is at or above a threshold.

    Args:
        answer: the text.
        offsets: characters of each token.
        surprisal: -log p of each token when the question is not shown (nats).
        threshold: nats.
    """
    picked = [
        _widen_to_words(answer, Span(start, end))
        for (start, end), nats in zip(offsets, surprisal, strict=True)
        if nats >= threshold and WORD.search(answer[start:end])
    ]
    return joined(picked)


def joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Sorted spans, with overlapping ones joined."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, s.end)):
        if result and span.start < result[-1].end:
            result[-1] = Span(result[-1].start, max(result[-1].end, span.end))
        else:
            result.append(span)
    return tuple(result)


def _located(answer: str, start: int, end: int, word: str | None) -> Span | None:
    """The span at which the text is found; None if it is not in the answer."""
    inside = 0 <= start < end <= len(answer)
    if not word:
        return Span(start, end) if inside else None
    if inside and answer[start:end] == word:
        return Span(start, end)
    starts = [match.start() for match in re.finditer(re.escape(word), answer)]
    if not starts:
        starts = [match.start() for match in re.finditer(re.escape(word), answer, re.IGNORECASE)]
    if not starts:
        return None
    nearest = min(starts, key=lambda start_index: abs(start_index - start))
    return Span(nearest, nearest + len(word))


def _widen_to_words(answer: str, span: Span) -> Span:
    """The span widened to complete words, without white space at its ends."""
    start, end = span.start, span.end
    while start < end and answer[start].isspace():
        start += 1
    while end > start and answer[end - 1].isspace():
        end -= 1
    while 0 < start < end and one_word(answer, start):
        start -= 1
    while start < end < len(answer) and one_word(answer, end):
        end += 1
    return Span(start, end)
