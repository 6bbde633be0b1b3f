"""A hash of the rows of a local source: the same rows have the same hash in every format."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlx.files.sources import Source, local_files, read_source


def source_hash(source: Source) -> str | None:
    """The hash of a local source's rows; None for a hub data set, and for a path that does not exist.

    Numbers are hashed as their text and missing values not at all, since CSV has text only, and parquet and CSV have a
    cell for every column. Lines that cannot be read are hashed by their problem.

    Raises:
        UserError: when the source exists and cannot be read.
    """
    if not _exists(source.name):
        return None
    files = local_files(source)
    if files is None:
        return None
    contents = [file for path in files for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    state = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in contents)
    return _hash(source, state)


def number_text(value: Any) -> str:
    """A finite number as text without a zero fraction (72.0 is 72); empty for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return ""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) else str(value)


@lru_cache(maxsize=64)
def _hash(source: Source, state: tuple[tuple[str, int, int], ...]) -> str:
    """``state`` (path, time in ns, bytes of each file) makes a changed file another entry of the cache."""
    digest = hashlib.sha256()
    for row in read_source(source):
        content = _normalised(row.content) if not row.problem else [row.problem]
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
    return "rows-sha256:" + digest.hexdigest()[:32]


def _normalised(value: Any) -> Any:
    """A value in which equal content is equal, whatever the format it was read from."""
    if isinstance(value, Mapping):
        entries = {str(key): _normalised(inner) for key, inner in value.items()}
        return {key: inner for key, inner in entries.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_normalised(inner) for inner in value]
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else number_text(value) or str(value)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists() or any(letter in name for letter in "*?[")
    except (OSError, ValueError):
        return False
