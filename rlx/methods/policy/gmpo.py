"""GMPO: the geometric mean of clipped token ratios weighs a whole sequence."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import dual_clip, log_ratio, outside
from rlx.numerics.terms import sequence_mean
from rlx.registry import Hyper, register


class GMPO(Hyper):
    """Parameters of ``gmpo``."""

    log_clip_low: float = Field(default=0.4, ge=0)
    """Token log-ratios are clipped from below at -log_clip_low (nats)."""
    log_clip_high: float = Field(default=0.4, ge=0)
    """Token log-ratios are clipped from above at log_clip_high (nats)."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the sequence's loss is capped at -A * dual_clip; null (official) turns it off."""


@register(
    "policy",
    paper="2507.20673",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_geo_mean",
    requires={"algorithm.reduction": "seq-mean-token-mean"},
)
def gmpo(logprobs_bt: Tensor, batch: PolicyBatch, hp: GMPO) -> Tokens:
    """-A exp(mean_t u), u the token log-ratio clipped pessimistically; one value a sequence, put on all its tokens.

    u = sgn(A) min(sgn(A) l, sgn(A) clip(l, -log_clip_low, log_clip_high)), l = log pi - log pi_old (arXiv 2507.20673,
    equation 4). The mean over sequences of means over tokens gives the mean over sequences.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``GMPO``.
    """
    log_r_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt)
    sign_bt = torch.sign(batch.adv_bt)
    clipped_bt = log_r_bt.clamp(-hp.log_clip_low, hp.log_clip_high)
    chosen_bt = sign_bt * torch.minimum(sign_bt * log_r_bt, sign_bt * clipped_bt)
    adv_b = sequence_mean(batch.adv_bt, batch.mask_bt)
    ratio_b = sequence_mean(chosen_bt, batch.mask_bt).exp()
    loss_b = dual_clip(-adv_b * ratio_b, adv_b, hp.dual_clip)
    stats_bt = outside(log_r_bt.detach(), batch.adv_bt, -hp.log_clip_low, hp.log_clip_high)
    return Tokens(loss_b[:, None].expand_as(logprobs_bt), stats_bt)
