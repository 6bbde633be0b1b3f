"""Rows of samples.parquet from a graded rollout."""

from __future__ import annotations

from torch import Tensor

from rlx.rl.rollouts import Graded
from rlx.runs.samples import Row


def sample_rows(graded: Graded, adv_b: Tensor, step: int, prompts: int) -> list[Row]:
    """One row per sample of this process's first ``prompts`` groups of the rollout."""
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
            **{f"reward/{label}": verdicts[b].score for label, verdicts in graded.by_reward.items()},
        }
        for b in range(min(prompts * graded.samples, len(graded.texts)))
    ]
