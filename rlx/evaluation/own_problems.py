"""The user's own questions (``rlx eval --data``) as the problems of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlx.benchmarks.benchmark import Problem
from rlx.data.examples import read_examples
from rlx.data.left_out import LeftOut, in_words
from rlx.errors import UserError
from rlx.specs.data import Data
from rlx.specs.evaluate import EvalData


@dataclass(frozen=True, slots=True)
class OwnProblems:
    """Questions of the user's own.

    Example:
        ``OwnProblems([Problem("sum-1", "47+85=", "132")], notices=("19 questions; left out: 1 not JSON (line 2)",))``
    """

    problems: list[Problem]
    notices: tuple[str, ...] = ()
    """What was left out, and what was read in another way than the spec says, one sentence each."""


def read_own_problems(keys: EvalData) -> OwnProblems:
    """The rows of ``data.source`` as problems, in the order of the source, read as training data is.

    The column ``id``, if a row has one with text or a whole number, is the problem's id, else its number; ``subject``
    and ``level`` are stored with the samples. Repeated questions remain, and a row that cannot be used is left out.

    Args:
        keys: source, columns and format of the gold answer.

    Raises:
        UserError: for a missing file or column, or when more than ``data.max_left_out`` of the rows cannot be used.
    """
    data = Data(**keys.model_dump())
    left_out, notices = LeftOut(), list[str]()
    rows, examples = read_examples(data, left_out, notices)
    problems = [
        Problem(
            id=problem_id(example.row, f"{keys.benchmark}-{number:04d}"),
            text=example.question.text,
            gold=example.answers[0],
            subject=label(example.row, "subject"),
            level=label(example.row, "level"),
            accepted=example.answers[1:],
            system=example.question.system,
            history=example.question.history,
            row=example.row,
            conversation=example.conversation,
            location=f"{data.source} {example.location}",
        )
        for number, example in enumerate(examples)
    ]
    left_out.check(rows, data.max_left_out)
    if not problems:
        raise UserError(f"data.source '{data.source}' has no row", fix="give one question with its answer per row")
    if left_out.counts:
        notices.append(f"{len(problems)} questions; left out: {in_words(left_out.counts, left_out.named)}")
    return OwnProblems(problems, tuple(notices))


def problem_id(row: Mapping[str, Any], default: str) -> str:
    """The row's id if it is text or a whole number, else the default."""
    name = row.get("id")
    return str(name) if isinstance(name, str | int) and not isinstance(name, bool) and str(name) else default


def label(row: Mapping[str, Any], key: str) -> str:
    """A column as text; empty if there is none."""
    value = row.get(key)
    return "" if value is None else str(value)
