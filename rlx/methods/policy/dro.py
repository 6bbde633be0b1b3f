"""DRO: the policy gradient with a quadratic pull towards the old policy."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import Hyper, register


class DRO(Hyper):
    """Parameters of ``dro``."""

    beta: float = Field(default=0.5, ge=0)
    """Strength of the pull."""


@register(
    "policy",
    paper="2405.19107",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_dro",
    needs={"zero_advantage"},
)
def dro(logprobs_bt: Tensor, batch: PolicyBatch, hp: DRO) -> Tokens:
    """-(A log pi - beta/2 (log pi - log pi_old)^2), as verl has it (Kimi k1.5's and DRO's squared log-ratio).

    Where A = 0 the pull remains, so such tokens are trained on too.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``DRO``.
    """
    pull_bt = 0.5 * hp.beta * (logprobs_bt - batch.old_logprobs_bt).square()
    return Tokens(-(batch.adv_bt * logprobs_bt - pull_bt))
