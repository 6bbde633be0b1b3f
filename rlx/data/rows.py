"""Rows in which every problem is an error, for unlearning and evaluation, and the columns of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlx.errors import UserError, did_you_mean
from rlx.files.formats import Row
from rlx.files.sources import Source, read_source

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("question", "problem", "messages"),
    "answer": ("solution", "ground_truth", "reward_model.ground_truth"),
}
"""Columns that are read where the default column does not exist, if only one of them does."""


def read_rows(source: Source) -> Iterator[Row]:
    """Rows of a source, of which every one must be readable.

    Raises:
        UserError: when the source is missing or damaged, or for its first row that cannot be read.
    """
    for row in read_source(source):
        if row.problem:
            raise row.error(source.name)
        yield row


def column(row: Mapping[str, Any], key: str, location: str, name: str) -> Any:
    """The value at a dotted path of a row.

    Args:
        row: the row.
        key: dotted path, such as ``reward_model.ground_truth``, or a name that holds a dot itself.
        location: where the row is, for messages.
        name: the spec key that holds the path.

    Raises:
        UserError: when there is none, with the columns that there are.
    """
    if key in row:
        return row[key]
    value: Any = row
    walked = ""
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            choices = [f"{walked}{existing}" for existing in value] if isinstance(value, Mapping) else [walked[:-1]]
            raise UserError(
                f"{name} is '{key}', and {location} has no such column", fix=did_you_mean(f"{walked}{part}", choices)
            )
        value = value[part]
        walked += f"{part}."
    return value


def find_column(rows: Sequence[Row], key: str, source: str, name: str) -> str:
    """The column to read: ``key``, or, where no row has that default column, the only usual name that exists.

    Args:
        rows: rows of one source.
        key: the spec's value, a dotted path.
        source: for error messages.
        name: the spec's key, ``data.prompt`` or ``data.answer``.

    Raises:
        UserError: when no row has the column, or several usual names exist.
    """
    readable = [row for row in rows if not row.problem]
    if not readable or _in_any(readable, key):
        return key
    usual = USUAL_NAMES.get(key, ()) if name == f"data.{key}" else ()
    matches = [choice for choice in usual if _in_any(readable, choice)]
    if len(matches) > 1:
        raise UserError(
            f"{name} is '{key}', and {source} has no such column, but {' and '.join(matches)}",
            fix=f"set {name} to one of them",
        )
    if not matches:
        column(readable[0].content, key, f"{source} {readable[0].location}", name)
    return matches[0] if matches else key


def _in_any(rows: Sequence[Row], key: str) -> bool:
    return any(has_column(row.content, key) for row in rows)


def has_column(row: Mapping[str, Any], key: str) -> bool:
    """Whether a row has a value, which may be None, at a dotted path."""
    if key in row:
        return True
    value: Any = row
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True
