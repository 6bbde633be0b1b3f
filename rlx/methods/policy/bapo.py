"""BAPO: the clip bounds move until positive tokens weigh enough against negative ones."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import clipped_surrogate, dual_clip, log_ratio, outside
from rlx.registry import Hyper, register


class BAPO(Hyper):
    """Parameters of ``bapo``."""

    target: float = Field(default=1.0, gt=0)
    """Positive over negative contribution that the bounds are moved for."""
    low_start: float = Field(default=0.6, ge=0, lt=1)
    """Lower bound at the start of each update."""
    low_max: float = Field(default=0.8, ge=0, le=1)
    """Highest lower bound."""
    low_step: float = Field(default=0.05, gt=0)
    """Step of the lower bound."""
    high_start: float = Field(default=1.2, gt=1)
    """Upper bound at the start of each update."""
    high_max: float = Field(default=2.0, gt=1)
    """Highest upper bound."""
    high_step: float = Field(default=0.05, gt=0)
    """Step of the upper bound."""
    first: Literal["low", "high"] = "low"
    """Which bound is moved to its end before the other: ``low`` in the code, ``high`` in the paper."""
    dual_clip: float | None = Field(default=3.0, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null turns it off."""


def bapo_bounds(logprobs_bt: Tensor, batch: PolicyBatch, hp: BAPO) -> dict[str, Tensor]:
    """The update's clip bounds, ``low`` and ``high``, scalars.

    With P and N the sums of the positive and negative parts of c A over all tokens of the optimiser batch, c =
    min(r, high) for A >= 0 and max(r, low) for A < 0: while P / (N + 1e-8) < target, move the first bound a step
    towards its end, then the other.

    Args:
        logprobs_bt: current log-probs of the whole optimiser batch [b, t], nats.
        batch: the whole optimiser batch.
        hp: see ``BAPO``.
    """
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    adv_bt = batch.adv_bt * batch.mask_bt
    low, high = hp.low_start, hp.high_start
    while _balance(ratio_bt, adv_bt, low, high) < hp.target:
        can_low, can_high = low + hp.low_step <= hp.low_max + 1e-9, high + hp.high_step <= hp.high_max + 1e-9
        if can_low and (hp.first == "low" or not can_high):
            low += hp.low_step
        elif can_high:
            high += hp.high_step
        else:
            break
    return {
        name: torch.tensor(bound, dtype=ratio_bt.dtype, device=ratio_bt.device)
        for name, bound in (("low", low), ("high", high))
    }


def _balance(ratio_bt: Tensor, adv_bt: Tensor, low: float, high: float) -> float:
    part_bt = torch.where(adv_bt >= 0, ratio_bt.clamp(max=high), ratio_bt.clamp(min=low)) * adv_bt
    return float(part_bt.clamp(min=0).sum() / (-part_bt.clamp(max=0).sum() + 1e-8))


@register(
    "policy",
    paper="2510.18927",
    official="BAPO's published repository:policy_loss.py",
    presets={
        "code": {},
        # A share of .4 of the total contribution is P / N = .4 / .6.
        "paper": {
            "target": 2 / 3,
            "low_max": 0.9,
            "low_step": 0.02,
            "high_max": 3.0,
            "high_step": 0.05,
            "first": "high",
        },
    },
    whole_batch=bapo_bounds,
)
def bapo(logprobs_bt: Tensor, batch: PolicyBatch, hp: BAPO) -> Tokens:
    """GRPO's clipped loss between bounds that ``bapo_bounds`` chose for this update (arXiv 2510.18927).

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t]; ``statistics`` holds ``low`` and ``high``.
        hp: see ``BAPO``.
    """
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    low, high = batch.statistics["low"].to(ratio_bt), batch.statistics["high"].to(ratio_bt)
    loss_bt = clipped_surrogate(ratio_bt, batch.adv_bt, low, high)
    return Tokens(dual_clip(loss_bt, batch.adv_bt, hp.dual_clip), outside(ratio_bt.detach(), batch.adv_bt, low, high))
