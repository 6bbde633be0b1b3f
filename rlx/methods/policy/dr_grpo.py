"""Dr. GRPO: GRPO without its two biases, the group's deviation and the response's length."""

from __future__ import annotations

from torch import Tensor

from rlx.methods.policy.grpo import GRPO, grpo
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import register


class DrGRPO(GRPO):
    """Parameters of ``dr_grpo``: GRPO's."""


@register(
    "policy",
    paper="2503.20783",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_vanilla",
    recipe={"advantage.name": "dr_grpo", "algorithm.reduction": "seq-mean-token-sum-norm"},
)
def dr_grpo(logprobs_bt: Tensor, batch: PolicyBatch, hp: DrGRPO) -> Tokens:
    """GRPO's clipped loss; the recipe takes advantages without deviation and a constant length (arXiv 2503.20783).

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``DrGRPO``.
    """
    return grpo(logprobs_bt, batch, hp)
