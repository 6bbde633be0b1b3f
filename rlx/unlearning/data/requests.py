"""Forget requests and retain rows from files; every row is used or reported, none is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.files.sources import Source, read_source
from rlx.unlearning.data.spans import Span, SpanSource, added_spans, repair, subject_spans

KEYS = (
    "id",
    "question",
    "answer",
    "text",
    "spans",
    "sensitive_spans",
    "subject",
    "aliases",
    "received",
    "basis",
    "alternate",
    "author",
    "paraphrased_answer",
    "perturbed_answer",
    "paraphrased_question",
)
MOST_SHOWN = 20
"""Number of uncovered requests listed in the printed report; the certificate lists all."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to forget (or to keep): a question with its answer, or a text.

    Example:
        ``Request(id="17", question="Who wrote it?", answer="Jo Doe wrote it.", spans=(Span(0, 6),), line=17)``
    """

    id: str
    question: str
    """Empty for a plain text."""
    answer: str
    line: int
    subject: str | None = None
    spans: tuple[Span, ...] = ()
    source: str = ""
    """Origin of the spans: ``given``, ``subject``, ``added``, ``surprisal``, ``all``; empty if there are none."""
    repaired: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    alternate: str | None = None
    """The answer preferred instead (dpo)."""
    author: int | None = None
    """Cluster for splits and intervals."""
    paraphrase: str | None = None
    """The same answer in other words."""
    wrong: tuple[str, ...] = ()
    """Wrong answers."""
    aliases: tuple[str, ...] = ()
    """Other names of the subject."""
    received: str | None = None
    """When the request was received."""
    basis: str | None = None
    """Its legal basis."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which requests have sensitive spans.

    Example:
        ``Coverage(requests=400, covered=388, uncovered=("12 (line 12)",), repaired=(), refused=())``
    """

    requests: int
    covered: int
    uncovered: tuple[str, ...]
    """Requests without any span: a method that reads spans would not forget them."""
    repaired: tuple[str, ...]
    refused: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as sentences."""
        report = [f"{self.covered} of {self.requests} requests have a sensitive span"]
        if self.uncovered:
            shown = ", ".join(self.uncovered[:MOST_SHOWN])
            more = f" and {len(self.uncovered) - MOST_SHOWN} more" if len(self.uncovered) > MOST_SHOWN else ""
            report.append(
                f"NOT covered, would not be forgotten by a method that reads spans: {shown}{more} "
                "(give spans or a subject for them, or use --spans all)"
            )
        report += [f"repaired: {text}" for text in self.repaired]
        return report + [f"refused: {text}" for text in self.refused]


def read_requests(path: Path, key: str = "forget.source") -> list[Request]:
    """Every row of a file, a glob or a saved data set as a request.

    Args:
        path: see ``Source``.
        key: the spec's key, for error messages.

    Raises:
        UserError: naming the file, the first bad row and what is wrong with it, and how many more there are.
    """
    requests: list[Request] = []
    problems: list[UserError] = []
    for index, row in enumerate(read_source(Source(str(path), key=key)), 1):
        if row.problem:
            problems.append(row.error(str(path)))
            continue
        # Rows of several files have no line number that is unique.
        number = row.number if row.location in (f"line {row.number}", f"row {row.number}") else index
        try:
            requests.append(request_of(dict(row.content), number))
        except ValueError as error:
            problems.append(UserError(f"{path} {row.location}: {error}", fix="correct the file"))
    seen: dict[str, int] = {}
    for request in requests:
        if request.id in seen:
            problem = f"{path} line {request.line}: id '{request.id}' is that of line {seen[request.id]}"
            problems.append(UserError(problem, fix="correct the file"))
        seen.setdefault(request.id, request.line)
    if problems:
        more = f" (and {len(problems) - 1} more rows)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0].what}{more}", fix=f"{problems[0].fix}; no request is left out")
    if not requests:
        raise UserError(
            f"{key} '{path}' has no usable row (it is empty)", fix="write one request a row, with question and answer"
        )
    return requests


def with_spans(requests: Sequence[Request], source: SpanSource) -> list[Request]:
    """Requests with their sensitive spans, except ``surprisal``, which needs a model.

    Args:
        requests: as read; given spans are kept under ``auto``.
        source: ``auto`` takes given spans, else the subject's, else what the answer adds to the question; ``given``
            only the given ones; ``subject`` only the subject's; ``all`` the whole answer.
    """
    return [_with_spans(request, source) for request in requests]


def coverage(requests: Sequence[Request]) -> Coverage:
    """Which requests have spans, and how given spans were repaired."""
    bare = [request for request in requests if not request.spans]
    return Coverage(
        requests=len(requests),
        covered=len(requests) - len(bare),
        uncovered=tuple(f"{request.id} (line {request.line})" for request in bare),
        repaired=tuple(f"request {r.id} (line {r.line}): {text}" for r in requests for text in r.repaired),
        refused=tuple(f"request {r.id} (line {r.line}): {text}" for r in requests for text in r.refused),
    )


def _with_spans(request: Request, how: SpanSource) -> Request:
    if how == "all":
        return replace(request, spans=(Span(0, len(request.answer)),), source="all")
    if how in ("given", "surprisal") or (how == "auto" and request.spans):
        return request
    named = subject_spans(request.answer, request.subject) if request.subject else ()
    if named or how == "subject":
        return replace(request, spans=named, source="subject" if named else "")
    added = added_spans(request.question, request.answer) if request.question else ()
    return replace(request, spans=added, source="added" if added else "")


def request_of(row: dict[str, Any], number: int) -> Request:
    """A row as a request; a ValueError describes what is wrong with it.

    Args:
        row: keys and values of ``KEYS``.
        number: its line, from 1; also its id if it has none.
    """
    unknown = sorted(set(row) - set(KEYS))
    if unknown:
        raise ValueError(f"unknown key '{unknown[0]}' (choices: {', '.join(KEYS)})")
    question, answer = _text(row, "question"), _text(row, "answer")
    if answer is None:
        answer, question = _text(row, "text"), question or ""
    if not answer or not answer.strip():
        raise ValueError("no 'answer' (with 'question') and no 'text', or it is empty")
    if question is None:
        raise ValueError("'answer' without 'question'; give the question, or 'text' instead")
    repair_result = repair(answer, _spans(row))
    author = row.get("author")
    if isinstance(author, str) and author.isdecimal():
        author = int(author)  # CSV has text only
    if author is not None and (not isinstance(author, int) or isinstance(author, bool)):
        raise ValueError(f"'author' is {author!r}, not a whole number")
    return Request(
        id=str(row["id"]) if row.get("id") is not None else str(number),
        question=question,
        answer=answer,
        line=number,
        subject=_text(row, "subject"),
        spans=repair_result.spans,
        source="given" if repair_result.spans else "",
        repaired=repair_result.repaired,
        refused=repair_result.refused,
        alternate=_text(row, "alternate"),
        author=author,
        paraphrase=_text(row, "paraphrased_answer"),
        wrong=tuple(_texts(row, "perturbed_answer")),
        aliases=tuple(_texts(row, "aliases")),
        received=_text(row, "received"),
        basis=_text(row, "basis"),
    )


def _spans(row: dict[str, Any]) -> list[tuple[int, int, str | None]]:
    given = row.get("spans") or row.get("sensitive_spans") or []
    if not isinstance(given, list):
        raise ValueError(f"'spans' is {given!r}, not a list")
    spans: list[tuple[int, int, str | None]] = []
    for span in given:
        pair = (span.get("start"), span.get("end"), span.get("word")) if isinstance(span, dict) else span
        if not isinstance(pair, list | tuple) or len(pair) not in (2, 3):
            raise ValueError(f"a span is {span!r}; write {{'start': 3, 'end': 9, 'word': ...}} or [3, 9]")
        start, end, word = (*pair, None)[:3]
        if any(not isinstance(edge, int) or isinstance(edge, bool) for edge in (start, end)):
            raise ValueError(f"a span's edges are {start!r} and {end!r}, not whole numbers")
        if word is not None and not isinstance(word, str):
            raise ValueError(f"a span's word is {word!r}, not a text")
        spans.append((start, end, word))
    return spans


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"'{key}' is {value!r}, not a text")
    return value


def _texts(row: dict[str, Any], key: str) -> list[str]:
    value = row.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"'{key}' is not a list of texts")
    return value
