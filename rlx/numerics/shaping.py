"""Penalties on rewards, and weights and selections of tokens in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlx.numerics.ratio import log_ratio
from rlx.specs.algorithm import Mismatch


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


def mismatch_weight(
    old_logprobs_bt: Tensor, sampler_logprobs_bt: Tensor, mask_bt: Tensor, correction: Mismatch
) -> Tensor:
    r"""Weight of each token for log-probs of the sampler that differ from the trainer's [b, t], without gradient.

    w = pi_trainer / pi_sampler of the token, or its product over the response (log w clamped to +-20 nats). With

        mode truncate:  min(max(w, low), high)     (TIS, fengyao.notion.site/off-policy-rl)
        mode mask:      w 1[low <= w <= high]      (IcePop, arXiv 2510.18855; MIS, richardli.xyz/rl-collapse)

    as verl 0.9.1 computes them (``verl/trainer/ppo/rollout_corr_helper.py``).

    Args:
        old_logprobs_bt: the trainer's log-probs at the time of sampling [b, t], nats.
        sampler_logprobs_bt: the sampler's own [b, t], nats.
        mask_bt: True at response tokens.
        correction: mode, bounds and level.
    """
    difference_bt = (old_logprobs_bt - sampler_logprobs_bt).detach()
    if correction.level == "sequence":
        difference_bt = torch.where(mask_bt, difference_bt, torch.zeros_like(difference_bt))
        difference_bt = difference_bt.sum(dim=1, keepdim=True).expand_as(mask_bt)
    ratio_bt = log_ratio(difference_bt, torch.zeros_like(difference_bt)).exp()
    if correction.mode == "truncate":
        return ratio_bt.clamp(correction.low, correction.high)
    inside_bt = (ratio_bt >= correction.low) & (ratio_bt <= correction.high)
    return torch.where(inside_bt, ratio_bt, torch.zeros_like(ratio_bt))


def cut_gradient(logprobs_bt: Tensor, selected_bt: Tensor | None) -> Tensor:
    """The same log-probs, without gradient where a token is not selected; None selects all.

    For losses whose tokens share a ratio this differs from a mask on the loss: a selected token keeps its full weight.
    """
    return logprobs_bt if selected_bt is None else torch.where(selected_bt, logprobs_bt, logprobs_bt.detach())


def without_values(loss_bt: Tensor, selected_bt: Tensor | None) -> Tensor:
    """The same gradient, with the value 0 at tokens that are not selected; None selects all."""
    if selected_bt is None:
        return loss_bt
    return loss_bt - torch.where(selected_bt, torch.zeros_like(loss_bt), loss_bt.detach())


def highest_entropy(entropies: Sequence[Tensor], share: float) -> Tensor:
    """The lowest entropy among the ``share`` of tokens with the highest entropy (arXiv 2506.01939), nats, a scalar.

    At least one token is among them; tokens with exactly this entropy all are.

    Args:
        entropies: entropies [t] of each sample (nats), at least one token.
        share: fraction of the tokens, above 0.
    """
    entropy_n = torch.cat(list(entropies))
    count = max(1, int(share * len(entropy_n)))
    return entropy_n.topk(count).values[-1]
