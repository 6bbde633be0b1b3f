"""Clip-Higher: GRPO whose upper clip is wider, and nothing else of DAPO."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.methods.policy.grpo import GRPO, grpo
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import register


class ClipHigher(GRPO):
    """Parameters of ``clip_higher``: GRPO's with another default."""

    clip_high: float = Field(default=0.28, ge=0)
    """The ratio is clipped from above at 1 + clip_high."""


@register(
    "policy",
    paper="2503.14476",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_vanilla",
)
def clip_higher(logprobs_bt: Tensor, batch: PolicyBatch, hp: ClipHigher) -> Tokens:
    """GRPO's clipped loss with clip_high .28 (DAPO, arXiv 2503.14476, section 3.1); a baseline of the MASPO paper.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``ClipHigher``.
    """
    return grpo(logprobs_bt, batch, hp)
