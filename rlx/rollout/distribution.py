"""The distribution that tokens are drawn from, and drawing from it with given uniform random numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rlx.rollout.sampler import Sampling


def draw(logits_bv: Tensor, uniforms_b: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """One token per row by inverting the cumulative distribution, or the most likely one; and its log-prob (nats).

    Args:
        logits_bv: raw logits.
        uniforms_b: uniform random numbers in [0, 1).
        sampling: the parameters.
    """
    logprobs_bv = sampling_logprobs(logits_bv, sampling)
    if sampling.temperature == 0:
        token_b = logprobs_bv.argmax(dim=-1)
    else:
        cumulative_bv = logprobs_bv.exp().cumsum(dim=-1, dtype=torch.float64)
        # u * total instead of u: the last entry is 1 only to rounding. right=True never takes a token of mass 0.
        target_b = uniforms_b * cumulative_bv[:, -1]
        token_b = torch.searchsorted(cumulative_bv, target_b[:, None], right=True).squeeze(1)
        token_b = token_b.clamp(max=logprobs_bv.shape[1] - 1)
    return token_b, logprobs_bv.gather(1, token_b[:, None]).squeeze(1)


def sampling_logprobs(logits_bv: Tensor, sampling: Sampling) -> Tensor:
    """Log-probs [b, v] (nats) of the distribution that tokens are drawn from, after temperature and truncation.

    Truncation keeps, in this order, the ``top_k`` most likely tokens, those with at least ``min_p`` times the
    probability of the most likely one, and the fewest tokens whose total probability reaches ``top_p``; the remaining
    ones are renormalised.

    Args:
        logits_bv: raw logits.
        sampling: temperature 0 is treated as 1, because greedy decoding has no distribution of its own.
    """
    scaled_bv = logits_bv.float()
    if sampling.temperature not in (0.0, 1.0):
        scaled_bv = scaled_bv / sampling.temperature
    logprobs_bv = torch.log_softmax(scaled_bv, dim=-1)
    if not sampling.truncated:
        return logprobs_bv
    if sampling.top_k:
        kth_b1 = logprobs_bv.topk(min(sampling.top_k, logprobs_bv.shape[-1]), dim=-1).values[:, -1:]
        logprobs_bv = logprobs_bv.masked_fill(logprobs_bv < kth_b1, -torch.inf)
    if sampling.min_p:
        floor_b1 = logprobs_bv.max(dim=-1, keepdim=True).values + float(np.log(sampling.min_p))
        logprobs_bv = logprobs_bv.masked_fill(logprobs_bv < floor_b1, -torch.inf)
    if sampling.top_p < 1:
        ordered_bv, order_bv = torch.log_softmax(logprobs_bv, dim=-1).sort(dim=-1, descending=True)
        before_bv = ordered_bv.exp().cumsum(dim=-1) - ordered_bv.exp()
        dropped_bv = torch.zeros_like(before_bv, dtype=torch.bool).scatter(1, order_bv, before_bv >= sampling.top_p)
        logprobs_bv = logprobs_bv.masked_fill(dropped_bv, -torch.inf)
    return torch.log_softmax(logprobs_bv, dim=-1)
