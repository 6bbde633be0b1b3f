"""LUSPO: GSPO's sequence ratio, summed over tokens, so that a long response counts as much as its tokens."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import LOG_RATIO_LIMIT, clipped_surrogate, dual_clip, outside
from rlx.numerics.terms import sequence_mean
from rlx.registry import Hyper, register


class LUSPO(Hyper):
    """Parameters of ``luspo``."""

    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """The sequence's ratio is clipped from below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, ge=0)
    """The sequence's ratio is clipped from above at 1 + clip_high."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null (official) turns it off."""


@register(
    "policy",
    paper="2602.05261",
    official="huggingface/trl@v1.16.0:trl/trainer/grpo_trainer.py:_compute_loss (luspo, sequence level)",
    presets={"trl": {}, "gspo": {"clip_low": 3e-4, "clip_high": 4e-4}},
    requires={"algorithm.reduction": "seq-mean-token-sum"},
)
def luspo(logprobs_bt: Tensor, batch: PolicyBatch, hp: LUSPO) -> Tokens:
    """max(-A s, -A clip(s, 1-clip_low, 1+clip_high)) on each token, s = exp(mean_t log r) (arXiv 2602.05261).

    The gradient flows through s itself; the sum over a sequence's tokens cancels the mean in s, so that at s = 1 every
    token has weight 1, whatever the length. The preset ``gspo`` has GSPO's bounds. The mean log-ratio is clamped to
    +-20 nats.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``LUSPO``.
    """
    log_s_b = sequence_mean(logprobs_bt - batch.old_logprobs_bt, batch.mask_bt)
    ratio_bt = log_s_b.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()[:, None].expand_as(logprobs_bt)
    low, high = 1 - hp.clip_low, 1 + hp.clip_high
    loss_bt = dual_clip(clipped_surrogate(ratio_bt, batch.adv_bt, low, high), batch.adv_bt, hp.dual_clip)
    return Tokens(loss_bt, outside(ratio_bt.detach(), batch.adv_bt, low, high))
