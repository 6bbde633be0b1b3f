"""Sampled texts for a person to read, as part files of one parquet data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rlx.loops.rollouts import Graded

Row = dict[str, str | int | float | bool | None]


def sample_rows(graded: Graded, step: int, prompts: int) -> list[Row]:
    """One row for every sample of the rollout's first ``prompts`` groups of this process."""
    sampled = graded.sampled
    return [
        {
            "step": step,
            "prompt_id": sampled.prompts[b // sampled.samples].id,
            "sample": b % sampled.samples,
            "prompt": sampled.prompts[b // sampled.samples].question,
            "response": graded.texts[b],
            "gold": sampled.prompts[b // sampled.samples].answer,
            "reward": graded.verdicts[b].score,
            "reason": graded.verdicts[b].reason,
            "extracted": graded.verdicts[b].extracted,
            "tokens": len(sampled.responses[b].tokens),
            "finished": sampled.responses[b].finished,
            "advantage": float(graded.adv_b[b]),
        }
        for b in range(min(prompts * sampled.samples, len(graded.texts)))
    ]


def write_samples(rows: Sequence[Row], part: Path) -> None:
    """Write one part file so that it stands whole or not at all; none for no rows."""
    if rows:
        part.parent.mkdir(parents=True, exist_ok=True)
        temporary = part.with_name("." + part.name)
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
        temporary.replace(part)
