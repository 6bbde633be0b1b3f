"""The user's own questions (``rlx eval --data``) as the problems of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlx.benchmarks.benchmark import Problem
from rlx.data.rows import column, read_rows
from rlx.data.values import as_text, gold
from rlx.errors import UserError
from rlx.files.sources import Source
from rlx.specs.evaluate import EvalData


def read_own_problems(data: EvalData) -> list[Problem]:
    """Every row of ``data.source`` as a problem, in the order of the source.

    The column ``id``, if a row has one with text or a whole number, is the problem's id, else its number; ``subject``
    and ``level`` are stored with the samples.

    Args:
        data: source, columns and format of the gold answer.

    Raises:
        UserError: naming the row, for a missing file or column, or a question or gold answer that is not text or a
            number; or when there is no row.
    """
    problems = []
    for number, source_row in enumerate(read_rows(Source(data.source, data.subset, data.split))):
        row, where = source_row.content, f"{data.source} {source_row.location}"
        question = as_text(column(row, data.prompt, where, "data.prompt"), where, "data.prompt")
        answer = as_text(column(row, data.answer, where, "data.answer"), where, "data.answer")
        problems.append(
            Problem(
                id=problem_id(row, f"{data.benchmark}-{number:04d}"),
                text=question,
                gold=gold(answer, where, data.answer_format),
                subject=str(row.get("subject") or ""),
                level=str(row.get("level") or ""),
            )
        )
    if not problems:
        raise UserError(f"data.source '{data.source}' has no row", fix="give one question with its answer per row")
    return problems


def problem_id(row: Mapping[str, Any], default: str) -> str:
    """The row's id if it is text or a whole number, else the default."""
    name = row.get("id")
    return str(name) if isinstance(name, str | int) and not isinstance(name, bool) and str(name) else default
