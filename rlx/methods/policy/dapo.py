"""DAPO: Clip-Higher, token-mean, dynamic sampling and overlong shaping, all switched on."""

from __future__ import annotations

from torch import Tensor

from rlx.methods.policy.clip_higher import ClipHigher
from rlx.methods.policy.grpo import grpo
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import register


class DAPO(ClipHigher):
    """Parameters of ``dapo``: those of ``clip_higher``."""


@register(
    "policy",
    paper="2503.14476",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_vanilla",
    recipe={
        "algorithm.reduction": "token-mean",
        "rollout.dynamic_sampling": True,
        "reward.overlong_buffer": 0.2,
    },
)
def dapo(logprobs_bt: Tensor, batch: PolicyBatch, hp: DAPO) -> Tokens:
    """GRPO's clipped loss with clip_high .28, and a recipe that switches DAPO's other parts on (arXiv 2503.14476).

    The recipe: token-mean (equation 8), dynamic sampling (section 3.2), overlong shaping over the last fifth of the
    response limit (section 3.4: 4,096 of 20,480 tokens). Each part is a key of the spec and can be set alone.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``DAPO``.
    """
    return grpo(logprobs_bt, batch, hp)
