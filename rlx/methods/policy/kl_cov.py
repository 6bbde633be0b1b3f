"""KL-Cov: a KL penalty on the few tokens whose covariance of advantage and log-prob is largest."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import dual_clip, log_ratio
from rlx.registry import Hyper, register


class KLCov(Hyper):
    """Parameters of ``kl_cov``."""

    kl_cov_ratio: float = Field(default=0.0002, gt=0, le=1)
    """Share of tokens that are penalised, at least one."""
    ppo_kl_coef: float = Field(default=1.0, ge=0)
    """Weight of |log pi - log pi_old| on them."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null (official) turns it off."""


def covariance(logprobs_bt: Tensor, batch: PolicyBatch) -> Tensor:
    """(A - mean A)(log pi - mean log pi) of each token [b, t], means over the whole batch's valid tokens."""
    mask_bt = batch.mask_bt
    adv_n, logprobs_n = batch.adv_bt[mask_bt], logprobs_bt.detach()[mask_bt]
    return (batch.adv_bt - adv_n.mean()) * (logprobs_bt.detach() - logprobs_n.mean())


def largest_covariance(logprobs_bt: Tensor, batch: PolicyBatch, hp: KLCov) -> dict[str, Tensor]:
    """``chosen`` [b, t], bool: the share ``kl_cov_ratio`` of valid tokens with the largest covariance.

    Args:
        logprobs_bt: current log-probs of the whole optimiser batch [b, t], nats.
        batch: the whole optimiser batch.
        hp: see ``KLCov``.
    """
    # Among valid tokens only, as the official code does: equal covariances are common and topk then picks by place.
    cov_n = covariance(logprobs_bt, batch)[batch.mask_bt]
    chosen_n = torch.zeros(len(cov_n), dtype=torch.bool, device=cov_n.device)
    chosen_n[cov_n.topk(min(max(1, int(hp.kl_cov_ratio * len(cov_n))), len(cov_n))).indices] = True
    return {"chosen": torch.zeros_like(batch.mask_bt).masked_scatter(batch.mask_bt, chosen_n)}


@register(
    "policy",
    paper="2505.22617",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_kl_cov",
    needs={"zero_advantage"},
    whole_batch=largest_covariance,
)
def kl_cov(logprobs_bt: Tensor, batch: PolicyBatch, hp: KLCov) -> Tokens:
    """-A r, plus ppo_kl_coef |log pi - log pi_old| on the tokens that ``largest_covariance`` chose (arXiv 2505.22617).

    Tokens with A = 0 count in the covariance's means and may be chosen.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t]; ``statistics`` holds ``chosen``.
        hp: see ``KLCov``.
    """
    log_r_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt)
    chosen_bt = batch.statistics["chosen"].bool()
    loss_bt = dual_clip(-batch.adv_bt * log_r_bt.exp(), batch.adv_bt, hp.dual_clip)
    penalty_bt = torch.where(chosen_bt, hp.ppo_kl_coef * log_r_bt.abs(), torch.zeros_like(log_r_bt))
    return Tokens(loss_bt + penalty_bt, {"chosen": chosen_bt})
