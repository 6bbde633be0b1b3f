"""DPPO with binary KL divergence: tokens that have moved too far away from the old policy lose their gradient."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import log_ratio
from rlx.registry import Hyper, register

EPSILON = 1e-8
"""Added to the probability of all other tokens, as in the official code."""


class DPPOKL(Hyper):
    """Parameters of ``dppo_kl``."""

    clip_low: float = Field(default=0.05, ge=0)
    """Largest binary KL (nats) at which a token with A <= 0 whose probability has fallen is trained on."""
    clip_high: float = Field(default=0.05, ge=0)
    """Largest binary KL (nats) at which a token with A > 0 whose probability has risen is trained on."""
    ratio_cap: float | None = Field(default=20.0, gt=0)
    """Largest weight of a token; null turns it off."""


@register(
    "policy",
    paper="2602.04879",
    official="volcengine/verl@v0.9.1:verl/trainer/ppo/core_algos.py:compute_policy_loss_dppo_kl",
)
def dppo_kl(logprobs_bt: Tensor, batch: PolicyBatch, hp: DPPOKL) -> Tokens:
    """-A sg[min(r, ratio_cap)] log pi where the binary KL has not passed an edge, 0 elsewhere (arXiv 2602.04879).

        KL = q (log q - log p) + (1 - q) log((1 - q + 1e-8) / (1 - p + 1e-8)),   p = pi, q = pi_old
        A > 0:  trained on while KL <= clip_high or p <= q
        A <= 0: trained on while KL <= clip_low or p >= q

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``DPPOKL``.
    """
    current_bt, old_bt, adv_bt = logprobs_bt.detach(), batch.old_logprobs_bt, batch.adv_bt
    p_bt, q_bt = current_bt.exp(), old_bt.exp()
    others_bt = ((1 - q_bt + EPSILON) / (1 - p_bt + EPSILON)).log()
    kl_bt = q_bt * (old_bt - current_bt) + (1 - q_bt) * others_bt
    up_bt = (kl_bt <= hp.clip_high) | (p_bt <= q_bt)
    down_bt = (kl_bt <= hp.clip_low) | (p_bt >= q_bt)
    inside_bt = torch.where(adv_bt > 0, up_bt, down_bt)
    cap = math.inf if hp.ratio_cap is None else hp.ratio_cap
    weight_bt = log_ratio(current_bt, old_bt).exp().clamp(max=cap)
    loss_bt = torch.where(inside_bt, -adv_bt * weight_bt * logprobs_bt, torch.zeros_like(logprobs_bt))
    return Tokens(loss_bt, {"masked": ~inside_bt})
