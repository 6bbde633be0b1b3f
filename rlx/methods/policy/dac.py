"""DAC (DCPO): clip bounds that widen for rare tokens."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import clipped_surrogate, dual_clip, log_ratio, outside
from rlx.registry import Hyper, register


class DAC(Hyper):
    """Parameters of ``dac``."""

    clip_low: float = Field(default=0.16, ge=0)
    """Width of the lower bound."""
    clip_high: float = Field(default=0.2, ge=0)
    """Width of the upper bound."""
    ratio_cap: float = Field(default=10.0, gt=1)
    """The upper bound is never above this."""
    dual_clip: float | None = Field(default=10.0, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null turns it off."""


@register(
    "policy",
    paper="2509.02333",
    official="DCPO's published repository:compute_policy_loss_dcpo clip_type=dynamic",
)
def dac(logprobs_bt: Tensor, batch: PolicyBatch, hp: DAC) -> Tokens:
    """GRPO's clipped loss with bounds that depend on the token's old probability q (DCPO, arXiv 2509.02333).

        low  = (1 + sqrt(max(1 - 4 clip_low/q, 0))) / 2
        high = min((1 + sqrt(1 + 4 clip_high/q)) / 2, ratio_cap)

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``DAC``.

    Deviation: none in the loss; the paper's smoothed advantages are not part of it.
    """
    # 1/q as exp(-log q), bounded so that 4 clip/q stays finite in float32.
    inverse_bt = (-batch.old_logprobs_bt).clamp(max=60.0).exp()
    low_bt = (1 + (1 - 4 * hp.clip_low * inverse_bt).clamp(min=0).sqrt()) / 2
    high_bt = ((1 + (1 + 4 * hp.clip_high * inverse_bt).sqrt()) / 2).clamp(max=hp.ratio_cap)
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    loss_bt = clipped_surrogate(ratio_bt, batch.adv_bt, low_bt, high_bt)
    stats_bt = outside(ratio_bt.detach(), batch.adv_bt, low_bt, high_bt)
    return Tokens(dual_clip(loss_bt, batch.adv_bt, hp.dual_clip), stats_bt)
