"""The importance ratio, and the clips that policy losses share."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to +- this (nats) before exp, so that no ratio overflows float32."""


def log_ratio(logprobs_bt: Tensor, old_logprobs_bt: Tensor) -> Tensor:
    """Log r = log pi - log pi_old, clamped to +-20 nats; no gradient flows where it is clamped.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        old_logprobs_bt: log-probs at the trust region's centre [b, t], nats.
    """
    return (logprobs_bt - old_logprobs_bt).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def clipped_surrogate(ratio_bt: Tensor, adv_bt: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """PPO's pessimistic loss max(-A r, -A clip(r, low, high)) (arXiv 1707.06347, equation 7), per token.

    Args:
        ratio_bt: importance ratio [b, t].
        adv_bt: advantage [b, t].
        low: lower bound of the ratio, a number or [b, t].
        high: upper bound of the ratio, a number or [b, t].
    """
    # clamp keeps the full gradient of a ratio exactly on an edge; minimum and maximum would halve it.
    clipped_bt = torch.clamp(ratio_bt, _like(low, ratio_bt), _like(high, ratio_bt))
    return torch.maximum(-adv_bt * ratio_bt, -adv_bt * clipped_bt)


def dual_clip(loss_bt: Tensor, adv_bt: Tensor, bound: float | None) -> Tensor:
    """Where A < 0, cap the loss at -A * bound (arXiv 1912.09729, equation 5); ``None`` leaves it unchanged.

    Args:
        loss_bt: per-token loss [b, t].
        adv_bt: advantage [b, t].
        bound: largest ratio that still pushes a bad token down, above 1.
    """
    if bound is None:
        return loss_bt
    return torch.where(adv_bt < 0, torch.minimum(loss_bt, -adv_bt * bound), loss_bt)


def outside(ratio_bt: Tensor, adv_bt: Tensor, low: Tensor | float, high: Tensor | float) -> dict[str, Tensor]:
    """Masks of the tokens beyond the edge towards which their advantage pushes: the usual clip fractions.

    Returns:
        ``clip_low`` (A < 0 and r < low) and ``clip_high`` (A > 0 and r > high), bool [b, t].
    """
    return {"clip_low": (adv_bt < 0) & (ratio_bt < low), "clip_high": (adv_bt > 0) & (ratio_bt > high)}


def _like(bound: Tensor | float, ratio_bt: Tensor) -> Tensor:
    return bound if isinstance(bound, Tensor) else torch.full_like(ratio_bt, bound)
