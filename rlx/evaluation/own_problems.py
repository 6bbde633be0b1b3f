"""The user's own questions (``rlx eval --data``) as the problems of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rlx.benchmarks.benchmark import Problem
from rlx.data.rows import column, read_rows
from rlx.errors import UserError
from rlx.rewards.extract import last_boxed, last_hash
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
    for number, (location, row) in enumerate(read_rows(data.source, data.subset, data.split)):
        where = f"{data.source} {location}"
        question = column_text(column(row, data.prompt, where, "data.prompt"), where, f"data.prompt '{data.prompt}'")
        answer = column_text(column(row, data.answer, where, "data.answer"), where, f"data.answer '{data.answer}'")
        problems.append(
            Problem(
                id=problem_id(row, f"{data.benchmark}-{number:04d}"),
                text=question,
                gold=_gold(answer, data, where),
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


def column_text(value: Any, where: str, name: str) -> str:
    """A text, or a finite number as text without a zero fraction (72.0 is 72).

    Args:
        value: the value of a column.
        where: source and location of the row, for the message.
        name: the column, for the message.

    Raises:
        UserError: for any other value, and for text without a visible character.
    """
    text = value if isinstance(value, str) else _number(value)
    if not text.strip() or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{where}: {name} holds {value!r:.80}", fix="it must hold text or a number; correct that row")
    return text


def _number(value: Any) -> str:
    """A finite number as text; empty for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) else str(value)


def _gold(answer: str, data: EvalData, where: str) -> str:
    """The gold answer in its format."""
    if data.answer_format == "raw":
        return answer.strip()
    gold = last_boxed(answer) if data.answer_format == "last_boxed" else (last_hash(answer) or "").replace(",", "")
    if not gold:
        marker = "\\boxed{...}" if data.answer_format == "last_boxed" else "'#### ...'"
        raise UserError(
            f"{where}: the answer has no {marker}, which data.answer_format={data.answer_format} reads",
            fix="choices for data.answer_format: raw, last_boxed, gsm8k_hash",
        )
    return gold
