"""Part files of one parquet data set of sampled texts, each with its hash next to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rlx.runs.integrity import Damaged, check_file, hash_file, replace_with_hash

Row = dict[str, str | int | float | bool | None]
"""One sample: column name to value."""


def write_samples(rows: Sequence[Row], part: Path) -> None:
    """Write one part file completely or not at all; write none if there are no rows."""
    if rows:
        part.parent.mkdir(parents=True, exist_ok=True)
        temporary = part.with_name("." + part.name)
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
        replace_with_hash(temporary, part)


def read_samples(part: Path) -> list[Row]:
    """The rows of one part file.

    Raises:
        Damaged: when the file is missing, cannot be read or differs from what was written.
    """
    check_file(part)
    try:
        rows: list[Row] = pq.read_table(part).to_pylist()
    except (OSError, ValueError) as error:
        raise Damaged(f"{part.name} cannot be read ({str(error).splitlines()[0]})") from None
    return rows


def remove_samples(part: Path) -> None:
    """Remove a part file whose steps are computed again."""
    part.unlink(missing_ok=True)
    hash_file(part).unlink(missing_ok=True)
