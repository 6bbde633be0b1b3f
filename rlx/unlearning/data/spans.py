"""Which characters of an answer are sensitive: given, repaired, or found; and who would be left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SpanSource = Literal["auto", "given", "subject", "surprisal", "all"]
WORD = re.compile(r"\w+(?:['’]\w+)*")
FUNCTION_WORDS = frozenset(
    WORD.findall(
        "a about after all also an and any are as at be because been before being both but by can could did do "
        "does during each for from had has have he her hers him his how i in including into is it its itself like "
        "many may might more most much no not of often on one only or other our out over own s she should so some "
        "such t than that the their them then there these they this those through to under up upon was we were "
        "what when where which while who whom whose why will with within would you your yes"
    )
)
"""Words that carry no fact of their own; a run of new words is not broken by a single one of them."""


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
    """What became of the spans that came with one request.

    Example:
        ``Repair((Span(4, 13),), mended=("'Kuwait' at 3-9 cut a word: now 'Al-Kuwaiti'",), refused=())``
    """

    spans: tuple[Span, ...]
    mended: tuple[str, ...] = ()
    """Spans that were moved or widened, in words."""
    refused: tuple[str, ...] = ()
    """Spans that could not be placed and are not used, in words."""


def repair(answer: str, given: Sequence[tuple[int, int, str | None]]) -> Repair:
    """Given spans made sound: inside the text, matching their word, and cutting none.

    A span whose text is not its word is moved to the word's nearest occurrence; one that cuts a word is widened to it;
    one that lies outside the text or whose word is not in it is refused. Overlapping spans are joined.

    Args:
        answer: the text.
        given: start, end (exclusive) and, where known, the text meant.
    """
    spans, mended, refused = [], [], []
    for start, end, word in given:
        placed = _placed(answer, start, end, word)
        if placed is None:
            shown = f"'{word}'" if word else "a span"
            refused.append(f"{shown} at {start}-{end} is not in the answer of {len(answer)} characters")
            continue
        whole = _whole_words(answer, placed)
        text = answer[whole.start : whole.end]
        if placed != Span(start, end):
            mended.append(f"'{word}' at {start}-{end} did not match: found at {placed.start}-{placed.end}")
        if whole != placed:
            mended.append(f"'{answer[placed.start : placed.end]}' at {start}-{end} cut a word: now '{text}'")
        spans.append(whole)
    return Repair(joined(spans), tuple(mended), tuple(refused))


def subject_spans(answer: str, subject: str) -> tuple[Span, ...]:
    """Every occurrence of the subject, or of two or more of its words in a row, whatever the case."""
    words = [re.escape(word) for word in WORD.findall(subject)]
    if not words:
        return ()
    between = r"[\W_]+"
    found = list(re.finditer(rf"\b{between.join(words)}\b", answer, re.IGNORECASE))
    if not found and len(words) > 1:
        parts = [*words[:1], *words[-1:]]
        found = list(re.finditer(rf"\b(?:{'|'.join(parts)})\b", answer, re.IGNORECASE))
    return joined([Span(match.start(), match.end()) for match in found])


def added_spans(question: str, answer: str) -> tuple[Span, ...]:
    """Words of the answer that stand neither in the question nor among the function words, in runs."""
    asked = {_stem(word) for word in WORD.findall(question)}
    runs: list[list[Span]] = []
    gap = 2
    for match in WORD.finditer(answer):
        new = _stem(match[0]) not in asked and match[0].lower() not in FUNCTION_WORDS
        if new and runs and gap <= 1 and not re.search(r"[.;:!?]\s", answer[runs[-1][-1].end : match.start()]):
            runs[-1].append(Span(match.start(), match.end()))
        elif new:
            runs.append([Span(match.start(), match.end())])
        gap = 0 if new else gap + 1
    return joined([Span(run[0].start, run[-1].end) for run in runs])


def surprising_spans(
    answer: str, offsets: Sequence[tuple[int, int]], surprisal: Sequence[float], threshold: float
) -> tuple[Span, ...]:
    """Words with a token whose surprisal is at or above a threshold.

    Args:
        answer: the text.
        offsets: characters of each token.
        surprisal: -log p of each token when the question is not shown (nats).
        threshold: nats.
    """
    picked = [
        _whole_words(answer, Span(start, end))
        for (start, end), nats in zip(offsets, surprisal, strict=True)
        if nats >= threshold and WORD.search(answer[start:end])
    ]
    return joined(picked)


def joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Sorted, overlapping ones as one."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, s.end)):
        if result and span.start < result[-1].end:
            result[-1] = Span(result[-1].start, max(result[-1].end, span.end))
        else:
            result.append(span)
    return tuple(result)


def _placed(answer: str, start: int, end: int, word: str | None) -> Span | None:
    """Where the span really is."""
    inside = 0 <= start < end <= len(answer)
    if not word:
        return Span(start, end) if inside else None
    if inside and answer[start:end] == word:
        return Span(start, end)
    places = [match.start() for match in re.finditer(re.escape(word), answer)]
    if not places:
        places = [match.start() for match in re.finditer(re.escape(word), answer, re.IGNORECASE)]
    if not places:
        return None
    nearest = min(places, key=lambda place: abs(place - start))
    return Span(nearest, nearest + len(word))


def _whole_words(answer: str, span: Span) -> Span:
    """The span widened to the words that it cuts, and rid of white space at its ends."""
    start, end = span.start, span.end
    while start < end and answer[start].isspace():
        start += 1
    while end > start and answer[end - 1].isspace():
        end -= 1
    while start > 0 and answer[start].isalnum() and answer[start - 1].isalnum():
        start -= 1
    while end < len(answer) and answer[end - 1].isalnum() and answer[end].isalnum():
        end += 1
    return Span(start, end)


def _stem(word: str) -> str:
    """Lower case without a possessive or plural s."""
    return re.sub(r"(['’]s|s)$", "", word.lower())
