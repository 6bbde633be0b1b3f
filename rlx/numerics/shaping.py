"""Penalties on rewards, and weights of tokens in the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from rlx.numerics.ratio import log_ratio


def overlong_penalty(lengths_b: Tensor, max_tokens: int, buffer: float) -> Tensor:
    """0 up to (1 - buffer) max_tokens, then linearly down to -1 at max_tokens (DAPO, arXiv 2503.14476, equation 13).

    Args:
        lengths_b: response lengths (tokens).
        max_tokens: longest response allowed (tokens).
        buffer: share of it over which the penalty rises, within [0, 1); 0 gives no penalty.
    """
    if buffer == 0:
        return torch.zeros_like(lengths_b, dtype=torch.float64)
    width = buffer * max_tokens
    return ((max_tokens - width - lengths_b.double()) / width).clamp(-1.0, 0.0)


def truncated_importance_weight(old_logprobs_bt: Tensor, sampler_logprobs_bt: Tensor, cap: float) -> Tensor:
    """min(pi_trainer / pi_sampler, cap) of each sampled token [b, t], without gradient (TIS, fengyao.notion.site).

    Args:
        old_logprobs_bt: the trainer's log-probs at the time of sampling [b, t], nats.
        sampler_logprobs_bt: the sampler's own [b, t], nats.
        cap: largest weight, 2 is usual.
    """
    return log_ratio(old_logprobs_bt, sampler_logprobs_bt).exp().clamp(max=cap).detach()
