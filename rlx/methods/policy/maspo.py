"""MASPO: a soft Gaussian gate whose width follows the token's probability and the advantage."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import dual_clip, log_ratio
from rlx.registry import Hyper, register


class MASPO(Hyper):
    """Parameters of ``maspo``."""

    sigma_base: float = Field(default=1.0, gt=0)
    """Smallest width of the gate, in units of the ratio."""
    alpha: float = Field(default=0.3, ge=0)
    """How fast the width grows as the token gets rarer: sigma_base / p_old^alpha (.5 in the paper at 1.5B)."""
    beta_pos: float = Field(default=0.03, ge=0)
    """How much a positive advantage widens the gate."""
    beta_neg: float = Field(default=0.03, ge=0)
    """How much a negative advantage narrows the gate."""
    sigma_max: float = Field(default=10.0, gt=0)
    """Largest width before the advantage's factor."""
    risk_min: float = Field(default=0.1, gt=0)
    """Smallest factor that the advantage may give."""
    risk_max: float = Field(default=10.0, gt=0)
    """Largest factor that the advantage may give."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null (official) turns it off."""


@register(
    "policy",
    paper="2602.17550",
    official="MASPO's published repository:core_algos.py:compute_policy_loss ratio_mode=maspo",
)
def maspo(logprobs_bt: Tensor, batch: PolicyBatch, hp: MASPO) -> Tokens:
    """-A w r with w = exp(-(sg[r]-1)^2 / (2 sigma^2)) where the update moves r further from 1, else 1.

        width     = clamp(sigma_base / p_old^alpha, sigma_base, sigma_max)
        sigma_pos = width clamp(1 + beta_pos A, risk_min, risk_max)        for A > 0 and r > 1
        sigma_neg = width clamp(1 / (1 - beta_neg A), risk_min, risk_max)  for A < 0 and r < 1

    (arXiv 2602.17550.) The default gate changes the weight by less than 5 % for .7 <= r <= 1.3: compare with ``is_pg``.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``MASPO``.
    """
    adv_bt = batch.adv_bt
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    fixed_bt = ratio_bt.detach()
    # p_old^-alpha as exp(-alpha log p_old): no underflow of p_old for very unlikely tokens.
    width_bt = (hp.sigma_base * (-hp.alpha * batch.old_logprobs_bt).exp()).clamp(hp.sigma_base, hp.sigma_max)
    widen_bt = (1 + hp.beta_pos * adv_bt).clamp(hp.risk_min, hp.risk_max)
    narrow_bt = (1 / (1 - hp.beta_neg * adv_bt.clamp(max=0))).clamp(hp.risk_min, hp.risk_max)
    gated = {"clip_low": (adv_bt < 0) & (fixed_bt < 1), "clip_high": (adv_bt > 0) & (fixed_bt > 1)}
    sigma_bt = width_bt * torch.where(adv_bt > 0, widen_bt, narrow_bt)
    gate_bt = torch.where(
        gated["clip_low"] | gated["clip_high"],
        (-(fixed_bt - 1).square() / (2 * sigma_bt.square())).exp(),
        torch.ones_like(fixed_bt),
    )
    loss_bt = -adv_bt * gate_bt * ratio_bt
    return Tokens(dual_clip(loss_bt, adv_bt, hp.dual_clip), {**gated, "gate": gate_bt})
