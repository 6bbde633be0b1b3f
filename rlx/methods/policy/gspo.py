"""GSPO: the ratio of the whole sequence, its geometric mean over tokens, is clipped."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import clipped_surrogate, dual_clip, outside
from rlx.numerics.terms import sequence_mean
from rlx.registry import Hyper, register

LOG_LIMIT = 10.0
"""Largest log-ratio of a sequence (nats), as in the official code."""


class GSPO(Hyper):
    """Parameters of ``gspo``."""

    clip_low: float = Field(default=3e-4, ge=0, lt=1)
    """The sequence's ratio is clipped from below at 1 - clip_low."""
    clip_high: float = Field(default=4e-4, ge=0)
    """The sequence's ratio is clipped from above at 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null (official) turns it off."""


@register(
    "policy",
    paper="2507.18071",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_gspo",
    requires={"algorithm.reduction": "seq-mean-token-mean"},
)
def gspo(logprobs_bt: Tensor, batch: PolicyBatch, hp: GSPO) -> Tokens:
    """max(-A s, -A clip(s, 1-clip_low, 1+clip_high)), s = exp(mean_t log r), gradient through each token's log-prob.

    The token form s_t = sg[s] pi / sg[pi] of arXiv 2507.18071 (equation 14), equal to the sequence form (equation 5)
    in value and gradient when A is one number a sequence. It must stay a mean over sequences of means over tokens.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``GSPO``.
    """
    log_s_b = sequence_mean((logprobs_bt - batch.old_logprobs_bt).detach(), batch.mask_bt)
    ratio_bt = (logprobs_bt - logprobs_bt.detach() + log_s_b[:, None]).clamp(max=LOG_LIMIT).exp()
    low, high = 1 - hp.clip_low, 1 + hp.clip_high
    loss_bt = clipped_surrogate(ratio_bt, batch.adv_bt, low, high)
    return Tokens(dual_clip(loss_bt, batch.adv_bt, hp.dual_clip), outside(ratio_bt.detach(), batch.adv_bt, low, high))
