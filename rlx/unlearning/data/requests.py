"""Forget requests and retain rows from files; every row is used or reported, none is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.files.sources import Source, read_source
from rlx.unlearning.data.added_spans import added_spans
from rlx.unlearning.data.request_fields import aliases_of, author_of, date_of, spans_of, text_of, texts_of
from rlx.unlearning.data.spans import Span, SpanSource, holds_name, joined, name_spans, repair

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
    aliases: tuple[str, ...] = ()
    """Other names of the subject."""
    spans: tuple[Span, ...] = ()
    source: str = ""
    """Origin of the spans: ``given``, ``subject``, ``added``, ``surprisal``, ``all``; empty if there are none."""
    repaired: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    received: str | None = None
    """Date on which the request came in, as written in it."""
    basis: str | None = None
    """Legal basis of the request, as written in it."""
    document: str | None = None
    """Id of the document that this passage was cut from."""
    alternate: str | None = None
    """The answer preferred instead (dpo)."""
    author: int | None = None
    """Cluster for splits and intervals."""
    paraphrase: str | None = None
    """The same answer in other words."""
    question_paraphrase: str | None = None
    """The same question in other words."""
    wrong: tuple[str, ...] = ()
    """Wrong answers."""


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
        fix = "write one request a row, with question and answer"
        if key == "forget.retain":
            fix += ", or leave out forget.retain: general questions are retained then"
        raise UserError(f"{key} '{path}' has no usable row (it is empty)", fix=fix)
    return requests


def with_spans(requests: Sequence[Request], source: SpanSource) -> list[Request]:
    """Requests with their sensitive spans, except ``surprisal``, which needs a model.

    Args:
        requests: as read; given spans are kept under ``auto``.
        source: ``auto`` takes given spans, else what the answer adds to the question, with the subject where the
            question does not hold it; ``given`` only the given ones; ``subject`` only the subject and its aliases;
            ``all`` the complete answer.
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
    names = [name for name in (request.subject, *request.aliases) if name]
    named = name_spans(request.answer, names)
    if how == "subject":
        return replace(request, spans=named, source="subject" if named else "")
    # The question is the attacker's key: a name that it holds is not a secret. A plain text is about its subject.
    subject_in_question = not request.question or any(holds_name(request.question, name) for name in names)
    added = tuple(Span(start, end) for start, end in added_spans(request.question, request.answer, names))
    if not added:
        return replace(request, spans=named, source="subject" if named else "")
    return replace(request, spans=added if subject_in_question else joined([*named, *added]), source="added")


def request_of(row: dict[str, Any], number: int) -> Request:
    """A row as a request; a ValueError describes what is wrong with it.

    Args:
        row: keys and values of ``KEYS``.
        number: its line, from 1; also its id if it has none.
    """
    unknown = sorted(set(row) - set(KEYS))
    if unknown:
        raise ValueError(f"unknown key '{unknown[0]}' (choices: {', '.join(KEYS)})")
    question, answer, text = text_of(row, "question"), text_of(row, "answer"), text_of(row, "text")
    if answer is not None and text is not None:
        raise ValueError("both 'answer' and 'text'; give the question with its answer, or the text alone")
    if answer is None:
        answer, question = text, question or ""
    if not answer or not answer.strip():
        raise ValueError("no 'answer' (with 'question') and no 'text', or it is empty")
    if question is None:
        raise ValueError("'answer' without 'question'; give the question, or 'text' instead")
    repair_result = repair(answer, spans_of(row))
    return Request(
        id=str(row["id"]) if row.get("id") is not None else str(number),
        question=question,
        answer=answer,
        line=number,
        subject=text_of(row, "subject"),
        aliases=aliases_of(row),
        spans=repair_result.spans,
        source="given" if repair_result.spans else "",
        repaired=repair_result.repaired,
        refused=repair_result.refused,
        received=date_of(row, "received"),
        basis=text_of(row, "basis"),
        alternate=text_of(row, "alternate"),
        author=author_of(row),
        paraphrase=text_of(row, "paraphrased_answer"),
        question_paraphrase=text_of(row, "paraphrased_question"),
        wrong=tuple(texts_of(row, "perturbed_answer")),
    )
