"""DGPO: outside the trust region the gradient weight decays instead of vanishing."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import dual_clip, log_ratio, outside
from rlx.registry import Hyper, register


class DGPO(Hyper):
    """Parameters of ``dgpo``."""

    n: float = Field(default=1.0, gt=0)
    """Left of the region the weight on grad(pi) falls like pi^n; the official README takes 2 at 1.5B."""
    m: float = Field(default=2.0, ge=1)
    """Right of the region the weight on grad(pi) falls like pi^(-1/m)."""
    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """The region's left edge is r = 1 - clip_low."""
    clip_high: float = Field(default=0.2, ge=0)
    """The region's right edge is r = 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null (official) turns it off."""


@register(
    "policy",
    paper="2603.14389",
    official="DGPO's published repository:core_algos.py:compute_policy_loss ratio_mode=dgpo",
)
def dgpo(logprobs_bt: Tensor, batch: PolicyBatch, hp: DGPO) -> Tokens:
    """-A r sg[gate], the gate continuous at both edges and 1 between them (arXiv 2603.14389).

        A < 0 and r < 1-clip_low:    gate = (r / (1-clip_low))^n
        A > 0 and r > 1+clip_high:   gate = ((1+clip_high) / r)^(1/m)

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``DGPO``.

    Deviation: the released code leaves the two edge branches without the clamp of the log-ratio to +-20 nats; in ratio
    space it covers all three.
    """
    log_ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt)
    fixed_bt = log_ratio_bt.detach()
    edges = outside(fixed_bt.exp(), batch.adv_bt, 1 - hp.clip_low, 1 + hp.clip_high)
    log_left_bt = hp.n * (fixed_bt - math.log1p(-hp.clip_low))
    log_right_bt = (math.log1p(hp.clip_high) - fixed_bt) / hp.m
    zero_bt = torch.zeros_like(fixed_bt)
    log_gate_bt = torch.where(edges["clip_low"], log_left_bt, torch.where(edges["clip_high"], log_right_bt, zero_bt))
    loss_bt = -batch.adv_bt * (log_ratio_bt + log_gate_bt).exp()
    return Tokens(dual_clip(loss_bt, batch.adv_bt, hp.dual_clip), edges)
