"""REINFORCE++ with a group baseline: advantages whitened over the tokens of the whole batch."""

from __future__ import annotations

from torch import Tensor

from rlx.methods.policy.grpo import GRPO, grpo
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import register


class ReinforcePP(GRPO):
    """Parameters of ``reinforce_pp``: GRPO's."""


@register(
    "policy",
    paper="2501.03262",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_vanilla",
    recipe={"advantage.name": "reinforce_pp"},
)
def reinforce_pp(logprobs_bt: Tensor, batch: PolicyBatch, hp: ReinforcePP) -> Tokens:
    """GRPO's clipped loss on rewards less their group's mean, whitened over the batch's tokens (arXiv 2501.03262).

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``ReinforcePP``.
    """
    return grpo(logprobs_bt, batch, hp)
