"""RLOO: the baseline of each sample is the mean reward of its group's others."""

from __future__ import annotations

from torch import Tensor

from rlx.methods.policy.grpo import GRPO, grpo
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import register


class RLOO(GRPO):
    """Parameters of ``rloo``: GRPO's."""


@register(
    "policy",
    paper="2402.14740",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_vanilla",
    recipe={"advantage.name": "rloo"},
)
def rloo(logprobs_bt: Tensor, batch: PolicyBatch, hp: RLOO) -> Tokens:
    """GRPO's clipped loss on leave-one-out advantages (RLOO, arXiv 2402.14740); at r = 1 it is REINFORCE.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``RLOO``.
    """
    return grpo(logprobs_bt, batch, hp)
