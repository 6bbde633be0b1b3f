"""GRPO: the clipped surrogate with group advantages."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import clipped_surrogate, dual_clip, log_ratio, outside
from rlx.registry import Hyper, register


class GRPO(Hyper):
    """Parameters of ``grpo``."""

    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """The ratio is clipped from below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, ge=0)
    """The ratio is clipped from above at 1 + clip_high."""
    dual_clip: float | None = Field(default=3.0, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip (arXiv 1912.09729); null turns it off."""


@register(
    "policy",
    paper="2402.03300",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_vanilla",
)
def grpo(logprobs_bt: Tensor, batch: PolicyBatch, hp: GRPO) -> Tokens:
    """max(-A r, -A clip(r, 1-clip_low, 1+clip_high)), capped at -A dual_clip where A < 0.

    Equation 3 of arXiv 2402.03300 without its KL term, with the dual clip of arXiv 1912.09729 (equation 5) that the
    official code adds. The KL term is the engine's (``algorithm.kl_coef``).

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``GRPO``.
    """
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    low, high = 1 - hp.clip_low, 1 + hp.clip_high
    loss_bt = clipped_surrogate(ratio_bt, batch.adv_bt, low, high)
    return Tokens(dual_clip(loss_bt, batch.adv_bt, hp.dual_clip), outside(ratio_bt.detach(), batch.adv_bt, low, high))
