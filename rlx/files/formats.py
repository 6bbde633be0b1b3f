"""Rows of one file: JSON lines, a JSON array, CSV or parquet, each also compressed by gzip."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rlx.errors import UserError

FORMATS = ".jsonl, .json, .csv, .parquet, each also with .gz"
"""For error messages."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, or the reason for which it cannot be read.

    Example:
        ``Row("line 17", 17, {"prompt": "47+85=", "answer": "132"})``
    """

    location: str
    """``line 17`` of a text file, ``row 17`` otherwise; with the file's name before it if a source has several."""
    number: int
    """Line or row number, from 1."""
    content: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    """What is wrong with the row: ``is not JSON (...)``; empty for a row that was read."""
    reason: str = ""
    """The same in two words, by which rows are counted: ``not JSON``."""
    fix: str = ""

    def error(self, source: str) -> UserError:
        """The problem as an error that names the source and the line."""
        return UserError(f"{source} {self.location} {self.problem}", fix=self.fix)


def file_format(path: Path) -> str:
    """``.jsonl``, ``.json``, ``.csv`` or ``.parquet``; empty for any other suffix."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in (".jsonl", ".json", ".csv", ".parquet") if name.endswith(suffix)), "")


def read_file(path: Path) -> Iterator[Row]:
    """Rows of one file, in the file's order; empty lines are skipped.

    Raises:
        UserError: when the file is missing or damaged, or has another format than its suffix says.
    """
    import pyarrow as pa

    reader = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}[file_format(path)]
    try:
        yield from reader(path)
    except FileNotFoundError:
        raise missing_file(str(path)) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"data file {path} is not a complete gzip file ({error})", fix="compress it again, or drop the suffix .gz"
        ) from None
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"data file {path} is not parquet ({reason})", fix="check how it was written") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        fix = "give a .parquet file" if file_format(path) == ".parquet" else "give a text file in UTF-8"
        raise UserError(f"data file {path} cannot be read ({error})", fix=fix) from None


def missing_file(source: str) -> UserError:
    """The error for a file that does not exist."""
    return UserError(f"there is no data file {source}", fix=f"give the path of a file ({FORMATS})")


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _jsonl(path: Path) -> Iterator[Row]:
    """JSON lines. Only a line feed ends a line: JSON strings may hold U+2028 and its like."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(f"line {number}", number, line, json.loads)


def _json_row(location: str, number: int, value: Any, parse: Callable[[Any], Any]) -> Row:
    fix = "write one JSON object a line"
    try:
        content = parse(value)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return Row(location, number, problem=f"is not JSON ({reason})", reason="not JSON", fix=fix)
    if not isinstance(content, dict):
        problem = f"is a {type(content).__name__}, not an object"
        return Row(location, number, problem=problem, reason="not a JSON object", fix="repair that line")
    return Row(location, number, content)


def _json(path: Path) -> Iterator[Row]:
    """A JSON array of objects; a .json file of JSON lines is read as such."""
    with _opened(path) as file:
        text = file.read()
    if not text.lstrip().startswith("["):
        yield from _jsonl(path)
        return
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(
            f"data file {path} is not JSON ({reason})", fix="correct it, or write JSON lines (.jsonl)"
        ) from None
    for number, value in enumerate(rows, 1):
        yield _json_row(f"row {number}", number, value, lambda row: row)


def _csv(path: Path) -> Iterator[Row]:
    """CSV with a header; an empty cell is None, every other cell is text."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _opened(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next((cells for cells in reader if cells), [])
            _check_header(path, header)
            start = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield _csv_row(start, header, cells)
                start = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"{path} line {reader.line_num} is not CSV ({error})", fix="close its quotes and double those inside"
            ) from None


def _check_header(path: Path, header: list[str]) -> None:
    """Refuse a header that names a column twice or no column; an empty file has no header and no rows."""
    names = [name for name in header if name.strip()]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise UserError(f"{path} has the column '{repeated}' twice", fix="rename or remove one of them in the header")
    if header and not names:
        raise UserError(f"{path} names no column in its header", fix="name the columns in the first line")


def _csv_row(number: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        problem = f"has {len(cells)} cells, and the header has {len(header)} columns"
        fix = "put quotes around text that contains commas"
        return Row(f"line {number}", number, problem=problem, reason="with a wrong number of cells", fix=fix)
    # pandas writes its index as a column without a name.
    content = {name: cell or None for name, cell in zip(header, cells, strict=True) if name.strip()}
    return Row(f"line {number}", number, content)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.name.lower().endswith(".gz"):
        with gzip.open(path) as file:
            table = pq.read_table(pa.BufferReader(file.read()))
    else:
        with path.open("rb") as file:
            table = pq.read_table(file)
    repeated = next((name for name in table.column_names if table.column_names.count(name) > 1), None)
    if repeated:
        raise UserError(f"{path} has the column '{repeated}' twice", fix="rename or remove one of them")
    yield from table_rows(table)


def table_rows(table: Any) -> Iterator[Row]:
    """Rows of a pyarrow table, converted in batches so that a large table is not held twice."""
    number = 0
    for batch in table.to_batches():
        for content in batch.to_pylist():
            number += 1
            yield Row(f"row {number}", number, content)
