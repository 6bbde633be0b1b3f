"""The values of a request row's keys; a ValueError describes what is wrong with one."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

ALIAS_SEPARATOR = ";"
"""Between the aliases of one cell of a CSV file."""


def text_of(row: Mapping[str, Any], key: str) -> str | None:
    """The text at a key, or None."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"'{key}' is {value!r}, not a text")
    return value


def texts_of(row: Mapping[str, Any], key: str) -> list[str]:
    """The list of texts at a key, empty if it is missing."""
    value = row.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"'{key}' is not a list of texts")
    return value


def aliases_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The subject's other names: a list, or the text of a CSV cell with ``;`` between them."""
    value = row.get("aliases") or []
    names = value.split(ALIAS_SEPARATOR) if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"'aliases' is {value!r}, not a list of names")
    return tuple(name.strip() for name in names if name.strip())


def date_of(row: Mapping[str, Any], key: str) -> str | None:
    """The text of a date; a parquet file may hold it as a date."""
    value = row.get(key)
    return value.isoformat() if isinstance(value, datetime.date) else text_of(row, key)


def author_of(row: Mapping[str, Any]) -> int | None:
    """The number of the author, or None."""
    author = row.get("author")
    if isinstance(author, str) and author.isdecimal():
        author = int(author)  # CSV has text only
    if author is not None and (not isinstance(author, int) or isinstance(author, bool)):
        raise ValueError(f"'author' is {author!r}, not a whole number")
    return author


def spans_of(row: Mapping[str, Any]) -> list[tuple[int, int, str | None]]:
    """The given spans: start, end (exclusive) and, if given, the word."""
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
