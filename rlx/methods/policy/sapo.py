"""SAPO: a sigmoid gate on the ratio in place of the clip, steeper for negative advantages."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import dual_clip, log_ratio
from rlx.registry import Hyper, register


class SAPO(Hyper):
    """Parameters of ``sapo``."""

    tau_pos: float = Field(default=1.0, gt=0)
    """Steepness of the gate for A > 0."""
    tau_neg: float = Field(default=1.05, gt=0)
    """Steepness of the gate for A <= 0."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null (official) turns it off."""


@register(
    "policy",
    paper="2511.20347",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_sapo",
    recipe={"algorithm.reduction": "seq-mean-token-mean"},
)
def sapo(logprobs_bt: Tensor, batch: PolicyBatch, hp: SAPO) -> Tokens:
    """-A sigmoid(tau (r-1)) 4/tau, tau by the sign of A (arXiv 2511.20347, equation 5).

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``SAPO``.
    """
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    tau_pos_bt, tau_neg_bt = torch.full_like(ratio_bt, hp.tau_pos), torch.full_like(ratio_bt, hp.tau_neg)
    tau_bt = torch.where(batch.adv_bt > 0, tau_pos_bt, tau_neg_bt)
    loss_bt = -batch.adv_bt * torch.sigmoid(tau_bt * (ratio_bt - 1)) * 4 / tau_bt
    return Tokens(dual_clip(loss_bt, batch.adv_bt, hp.dual_clip))
