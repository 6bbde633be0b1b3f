"""Part files of one parquet data set of sampled texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, str | int | float | bool | None]
"""One sample: column name to value."""


def write_samples(rows: Sequence[Row], part: Path) -> None:
    """Write one part file completely or not at all; write none if there are no rows."""
    if rows:
        part.parent.mkdir(parents=True, exist_ok=True)
        temporary = part.with_name("." + part.name)
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
        temporary.replace(part)
