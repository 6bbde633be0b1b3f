"""ASPO: the ratio of positive tokens is turned over, so that rare good tokens are pushed harder."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import log_ratio, outside
from rlx.registry import Hyper, register


class ASPO(Hyper):
    """Parameters of ``aspo``."""

    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """For A < 0 no gradient below r = 1 - clip_low."""
    clip_high: float = Field(default=0.2, ge=0)
    """For A > 0 no gradient above r = 1 + clip_high."""
    dual_clip_neg: float | None = Field(default=3.0, gt=1)
    """For A < 0 the weight on log pi is at most this; null turns it off."""
    dual_clip_pos: float | None = Field(default=3.0, gt=1)
    """For A >= 0 the weight 1/r on log pi is at most this; null turns it off."""


@register(
    "policy",
    paper="2510.06062",
    official="ASPO's published repository (Archer2.0):compute_policy_loss_archer",
    presets={"low_entropy": {}, "high_entropy": {"clip_low": 0.4, "clip_high": 0.4}},
)
def aspo(logprobs_bt: Tensor, batch: PolicyBatch, hp: ASPO) -> Tokens:
    """Asymmetric ratios: r for A < 0, 1/r for A >= 0, each clipped hard at its edge and softly at its cap.

        A < 0:   q = max(r, 1-clip_low);   -A q if q <= dual_clip_neg, else -A sg[dual_clip_neg] log pi
        A >= 0:  p = min(r, 1+clip_high);  -A (p/sg[p])/sg[p] if 1/p <= dual_clip_pos, else -A sg[dual_clip_pos] log pi

    (arXiv 2510.06062.) One clip range for all tokens: the official code takes .4/.4 (preset ``high_entropy``) for the
    fifth of tokens with the highest entropy.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``ASPO``.
    """
    adv_bt = batch.adv_bt
    log_r_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt)
    ratio_bt = log_r_bt.exp()
    low, high = 1 - hp.clip_low, 1 + hp.clip_high
    cap_neg = torch.inf if hp.dual_clip_neg is None else hp.dual_clip_neg
    cap_pos = torch.inf if hp.dual_clip_pos is None else hp.dual_clip_pos
    q_bt = ratio_bt.clamp(min=low)
    negative_bt = torch.where(q_bt <= cap_neg, -adv_bt * q_bt, -adv_bt * q_bt.detach().clamp(max=cap_neg) * logprobs_bt)
    p_bt = ratio_bt.clamp(max=high)
    turned_bt = (1 / p_bt).detach()
    positive_bt = torch.where(
        turned_bt <= cap_pos, -adv_bt * p_bt * turned_bt.square(), -adv_bt * turned_bt.clamp(max=cap_pos) * logprobs_bt
    )
    return Tokens(torch.where(adv_bt < 0, negative_bt, positive_bt), outside(ratio_bt.detach(), adv_bt, low, high))
