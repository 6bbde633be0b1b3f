"""VESPO: a smooth function of the sequence's importance weight replaces the clip."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import LOG_RATIO_LIMIT, log_ratio
from rlx.registry import Hyper, register

SMALLEST_WEIGHT = 1e-8
"""Smallest importance weight of a sequence, as in TRL."""


class VESPO(Hyper):
    """Parameters of ``vespo``."""

    k_pos: float = Field(default=2.0, ge=0)
    """For A >= 0: exponent of the sequence's importance weight."""
    lambda_pos: float = Field(default=3.0, ge=0)
    """For A >= 0: rate at which a large importance weight is reduced."""
    k_neg: float = Field(default=3.0, ge=0)
    """For A < 0: exponent of the sequence's importance weight."""
    lambda_neg: float = Field(default=2.0, ge=0)
    """For A < 0: rate at which a large importance weight is reduced."""


@register(
    "policy",
    paper="2602.10693",
    official="huggingface/trl@v1.16.0:trl/trainer/grpo_trainer.py:get_gamma_weights",
)
def vespo(logprobs_bt: Tensor, batch: PolicyBatch, hp: VESPO) -> Tokens:
    """-sg[w^k exp(lambda (1 - w))] A log pi, w the importance weight of the whole sequence (arXiv 2602.10693).

    log w = sum_t log r, each log r clamped to +-20 nats and the sum to [log 1e-8, 20]; (k, lambda) depend on the sign
    of A. The weight is 1 at w = 1 and largest at w = k / lambda.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``VESPO``.
    """
    log_ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).detach()
    log_w_b = torch.where(batch.mask_bt, log_ratio_bt, torch.zeros_like(log_ratio_bt)).sum(dim=1)
    log_w_bt = log_w_b.clamp(math.log(SMALLEST_WEIGHT), LOG_RATIO_LIMIT)[:, None]
    above_bt = log_w_bt.exp() - 1
    positive_bt = (hp.k_pos * log_w_bt - hp.lambda_pos * above_bt).exp()
    negative_bt = (hp.k_neg * log_w_bt - hp.lambda_neg * above_bt).exp()
    weight_bt = torch.where(batch.adv_bt >= 0, positive_bt, negative_bt)
    return Tokens(-weight_bt * batch.adv_bt * logprobs_bt, {"sequence_weight": weight_bt})
