"""Rows of a data source as questions with their gold answers, for training and for ``rlx eval --data``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, cast

from rlx.data import arithmetic
from rlx.data.left_out import LeftOut
from rlx.data.rows import column, find_column, has_column
from rlx.data.values import Question, as_answers, as_question, as_text, ends_with_hash
from rlx.errors import UserError, did_you_mean
from rlx.files.formats import Row
from rlx.files.sources import Source, read_source
from rlx.specs.data import Data


@dataclass(frozen=True, slots=True)
class Example:
    """A row's question and answers.

    Example:
        ``Example("line 17", "47+85", Question("47+85="), ("132",))``
    """

    location: str
    id: str
    question: Question
    answers: tuple[str, ...]
    row: Mapping[str, Any] = field(default_factory=dict)
    """All columns."""
    conversation: tuple[Mapping[str, Any], ...] = ()
    """The messages of the prompt's column, if it holds a conversation."""


def read_examples(data: Data, left_out: LeftOut, notices: list[str]) -> tuple[int, Iterator[Example]]:
    """Number of rows of one source, and its rows with a question and an answer.

    Args:
        data: one source with its columns and its answer format.
        left_out: counts the other rows, as the iterator reaches them.
        notices: gets a sentence for everything that is read in another way than the spec says.

    Raises:
        UserError: for a missing source or column.
    """
    if data.source == "arithmetic":
        embedded = arithmetic.rows(_embedded_split(data.split))[: data.limit]
        return len(embedded), (
            Example(row["id"], row["id"], Question(row["prompt"]), (row["answer"],), row) for row in embedded
        )
    rows = list(islice(read_source(Source(data.source, data.subset, data.split)), data.limit))
    keys = _found_columns(rows, data)
    for key, name in _columns(data).items():
        if keys[key] != name:
            notices.append(f"{data.source} has no column '{name}': data.{key} is read from '{keys[key]}'")
    if data.answer_format == "raw" and any(ends_with_hash(_cell(row, keys["answer"])) for row in rows):
        notices.append(f"{data.source}: an answer that ends with '#### 7' is read as 7 (data.answer_format=gsm8k_hash)")
    return len(rows), _usable(rows, data, keys, left_out)


def _found_columns(rows: Sequence[Row], data: Data) -> dict[str, str]:
    """The column of each key; see ``find_column``.

    Raises:
        UserError: for a missing column, unless so many rows cannot be read that the others say nothing about columns.
    """
    try:
        return {key: find_column(rows, name, data.source, f"data.{key}") for key, name in _columns(data).items()}
    except UserError:
        unreadable = LeftOut()
        for row in rows:
            if row.problem:
                unreadable.add(row.reason, row.location, row.error(data.source))
        unreadable.check(len(rows), data.max_left_out)
        raise


def _columns(data: Data) -> dict[str, str]:
    system = {} if data.system_column is None else {"system_column": data.system_column}
    return {"prompt": data.prompt, "answer": data.answer, **system}


def _cell(row: Row, key: str) -> Any:
    return column(row.content, key, "", "") if has_column(row.content, key) else None


def _usable(rows: Sequence[Row], data: Data, keys: Mapping[str, str], left_out: LeftOut) -> Iterator[Example]:
    for row in rows:
        where, reason = f"{data.source} {row.location}", row.reason
        try:
            if row.problem:
                raise row.error(data.source)
            reason = "without a prompt"
            cell = column(row.content, keys["prompt"], where, "data.prompt")
            question = as_question(cell, where, "data.prompt")
            reason = "without an answer"
            answer = column(row.content, keys["answer"], where, "data.answer")
            answers = as_answers(answer, where, "data.answer", data.answer_format)
            reason = "with an unreadable system prompt"
            system = _cell(row, keys["system_column"]) if "system_column" in keys else None
            if system is not None:
                question = replace(question, system=as_text(system, where, "data.system_column"))
        except UserError as error:
            left_out.add(reason, row.location, error)
            continue
        name = row.content.get("id")
        label = str(name) if isinstance(name, (str, int)) else ""
        messages = tuple(cell) if isinstance(cell, list) else ()
        yield Example(row.location, label, question, answers, row.content, messages)


def _embedded_split(split: str) -> Literal["train", "test"]:
    if split not in ("train", "test"):
        raise UserError(f"split '{split}' is not one of the embedded task", fix=did_you_mean(split, ["train", "test"]))
    return cast(Literal["train", "test"], split)
