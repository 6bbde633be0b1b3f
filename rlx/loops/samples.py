"""Sampled texts for a person to read, as part files of one parquet data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from rlx.loops.rollouts import Graded

Row = dict[str, str | int | float | bool | None]


def sample_rows(graded: Graded, adv_b: Tensor, step: int, prompts: int) -> list[Row]:
    """One row for every sample of the rollout's first ``prompts`` groups of this process."""
    return [
        {
            "step": step,
            "prompt_id": graded.prompts[b // graded.samples].id,
            "sample": b % graded.samples,
            "prompt": graded.prompts[b // graded.samples].question,
            "response": graded.texts[b],
            "gold": graded.prompts[b // graded.samples].answer,
            "score": graded.verdicts[b].score,
            "reason": graded.verdicts[b].reason,
            "extracted": graded.verdicts[b].extracted,
            "reward": float(graded.rewards_b[b]),
            "advantage": float(adv_b[b]),
            "tokens": len(graded.responses[b].tokens),
            "finished": graded.responses[b].finished,
        }
        for b in range(min(prompts * graded.samples, len(graded.texts)))
    ]


def write_samples(rows: Sequence[Row], part: Path) -> None:
    """Write one part file so that it stands whole or not at all; none for no rows."""
    if rows:
        part.parent.mkdir(parents=True, exist_ok=True)
        temporary = part.with_name("." + part.name)
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
        temporary.replace(part)
