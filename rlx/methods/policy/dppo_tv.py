"""DPPO with binary total variation: tokens whose probability has moved too far lose their gradient."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import log_ratio
from rlx.registry import Hyper, register


class DPPOTV(Hyper):
    """Parameters of ``dppo_tv``."""

    clip_low: float = Field(default=0.2, ge=0)
    """For A <= 0 a token is trained on while its probability has fallen by at most this."""
    clip_high: float = Field(default=0.2, ge=0)
    """For A > 0 a token is trained on while its probability has risen by at most this."""
    ratio_cap: float | None = Field(default=20.0, gt=0)
    """Largest weight of a token; null turns it off."""
    surrogate: Literal["logprob", "ratio"] = "logprob"
    """Where the gradient flows: ``logprob`` is -A sg[r] log pi, ``ratio`` is -A r; their gradients are equal below
    ratio_cap, beyond which ``ratio`` has none."""
    kl_tau: float = Field(default=0.0, ge=0)
    """Weight of (log pi - log pi_old)^2 on all tokens (nats squared)."""


@register(
    "policy",
    paper="2602.04879",
    official="volcengine/verl@v0.9.1:verl/trainer/ppo/core_algos.py:compute_policy_loss_dppo_tv",
    presets={"verl": {}, "prime": {"ratio_cap": None, "surrogate": "ratio", "kl_tau": 1e-3}},
    needs_if=lambda hp: frozenset({"zero_advantage"} if hp.kl_tau > 0 else ()),
)
def dppo_tv(logprobs_bt: Tensor, batch: PolicyBatch, hp: DPPOTV) -> Tokens:
    """-A sg[min(r, ratio_cap)] log pi where pi - pi_old has not passed an edge, 0 elsewhere (arXiv 2602.04879).

        A > 0:  trained on while pi - pi_old <= clip_high
        A <= 0: trained on while pi - pi_old >= -clip_low

    |pi - pi_old| is the total variation between the two policies, reduced to "this token or another". The preset
    ``prime`` is prime-rl's default until August 2026 (commit 559b447, ``default_loss_fn``): -A r and a squared
    log-ratio on all tokens, those with A = 0 included.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``DPPOTV``.
    """
    moved_bt = logprobs_bt.detach().exp() - batch.old_logprobs_bt.exp()
    inside_bt = torch.where(batch.adv_bt > 0, moved_bt <= hp.clip_high, moved_bt >= -hp.clip_low)
    cap = math.inf if hp.ratio_cap is None else hp.ratio_cap
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp().clamp(max=cap)
    score_bt = ratio_bt if hp.surrogate == "ratio" else ratio_bt.detach() * logprobs_bt
    loss_bt = torch.where(inside_bt, -batch.adv_bt * score_bt, torch.zeros_like(score_bt))
    if hp.kl_tau > 0:
        loss_bt = loss_bt + hp.kl_tau * (logprobs_bt - batch.old_logprobs_bt).square()
    return Tokens(loss_bt, {"masked": ~inside_bt})
