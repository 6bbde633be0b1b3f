"""The live view of one benchmark's evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq

from rlx.console import Progress
from rlx.evaluation.loop import EvalTask
from rlx.runs.samples import Row


@cache
def _row_count(part: Path) -> int:
    """Rows of a part file, which does not change once it exists: each is opened once; 0 if it cannot be read."""
    try:
        return int(pq.read_metadata(part).num_rows)
    except (OSError, ValueError):
        return 0


@contextmanager
def show_progress(task: EvalTask, shared: bool = False) -> Iterator[Callable[[Sequence[Row], int], None]]:
    """A function that shows the rows so far, of the total number, while this context lasts.

    Args:
        task: the evaluation of a benchmark.
        shared: other processes write samples too; then theirs are counted, and means are over this process's rows.
    """
    protocol = task.protocol
    view = Progress(f"rlx eval {protocol.benchmark}", protocol.problems * protocol.n, unit="sample")

    def show(rows: Sequence[Row], total: int) -> None:
        facts = {"benchmark": protocol.benchmark}
        if rows:
            facts["right"] = f"{sum(float(row['score'] or 0) for row in rows) / len(rows):.1%}"
            facts["response"] = f"{sum(int(row['tokens'] or 0) for row in rows) / len(rows):.0f} tokens"
            facts["truncated"] = f"{sum(not row['finished'] for row in rows) / len(rows):.0%}"
        stored = sum(map(_row_count, task.folder.parts())) if shared else len(rows)
        view.show(stored, facts)

    try:
        yield show
    finally:
        view.stop()
