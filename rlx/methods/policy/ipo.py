"""IPO of prime-rl: tokens whose probability has moved by more than eps keep only a pull towards the old policy."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import dual_clip, log_ratio
from rlx.registry import Hyper, register


class IPO(Hyper):
    """Parameters of ``ipo``."""

    eps: float = Field(default=0.1, ge=0)
    """A token is trained on while |pi - pi_old| is at most this, whatever the sign of A."""
    kl_tau: float = Field(default=1e-3, ge=0)
    """Weight of (log pi - log pi_old)^2 on all tokens (nats squared)."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss before the kl_tau term is capped at -A * dual_clip; null (official) turns it off."""


@register(
    "policy",
    paper="2602.02276",
    official="PrimeIntellect-ai/prime-rl@559b447:src/prime_rl/trainer/rl/loss.py:ipo_loss_fn",
    needs_if=lambda hp: frozenset({"zero_advantage"} if hp.kl_tau > 0 else ()),
)
def ipo(logprobs_bt: Tensor, batch: PolicyBatch, hp: IPO) -> Tokens:
    """-A r where |pi - pi_old| <= eps, 0 elsewhere, + kl_tau (log pi - log pi_old)^2 on all tokens.

    prime-rl's default since August 2026; the squared log-ratio is the KL term of Kimi K2.5 (arXiv 2602.02276). Where
    A = 0 that term remains, so such tokens are trained on too.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``IPO``.
    """
    moved_bt = logprobs_bt.detach().exp() - batch.old_logprobs_bt.exp()
    outside_bt = moved_bt.abs() > hp.eps
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    policy_bt = dual_clip(-batch.adv_bt * ratio_bt, batch.adv_bt, hp.dual_clip)
    policy_bt = torch.where(outside_bt, torch.zeros_like(policy_bt), policy_bt)
    pull_bt = hp.kl_tau * (logprobs_bt - batch.old_logprobs_bt).square()
    return Tokens(policy_bt + pull_bt, {"masked": outside_bt})
