"""Rows of a file or a hub data set, each with its location for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError, did_you_mean

Row = tuple[str, Mapping[str, Any]]
"""Location (``line 17``, ``row 17``) and content."""


def read_rows(source: str, subset: str | None, split: str, revision: str | None = None) -> Iterator[Row]:
    """Rows of a .jsonl file, a .parquet file or a hub data set.

    Raises:
        UserError: when it is missing, unreadable, or one line is broken (named by its number).
    """
    path = Path(source)
    if path.is_dir():
        raise UserError(f"data.source '{source}' is a folder", fix="name a .jsonl or .parquet file in it")
    if path.suffix in (".jsonl", ".json"):
        return _jsonl(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.exists():
        raise UserError(
            f"data.source '{source}' is neither .jsonl nor .parquet", fix="convert it or name a hub data set"
        )
    return _hub(source, subset, split, revision)


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


def _jsonl(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", _parsed(path, number, line)
    except FileNotFoundError:
        raise UserError(f"there is no data file {path}", fix="give the path of a .jsonl or .parquet file") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        raise UserError(f"data file {path} cannot be read ({error})", fix="give a .jsonl file in UTF-8") from None


def _parsed(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{path} line {number} is not JSON ({reason})", fix="write one JSON object a line") from None
    if not isinstance(row, dict):
        raise UserError(f"{path} line {number} is a {type(row).__name__}, not an object", fix="mend that line")
    return row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"there is no data file {path}", fix="give the path of a .jsonl or .parquet file") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"data file {path} is not parquet ({str(error).splitlines()[0]})", fix="check it") from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row


def _hub(source: str, subset: str | None, split: str, revision: str | None) -> Iterator[Row]:
    import datasets

    try:
        rows = datasets.load_dataset(source, subset, split=split, revision=revision)
    except Exception as error:  # datasets raises a dozen unrelated kinds for a missing name, split or network
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"data.source '{source}' (subset {subset}, split {split}) does not load ({reason})",
            fix="check the name and the network, or give a local .jsonl or .parquet file",
            exit_code=1,
        ) from None
    for number, row in enumerate(rows, 1):
        yield f"row {number}", row
