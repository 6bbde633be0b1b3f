"""CISPO: the clipped ratio is a constant weight on the policy gradient, so that no token loses its gradient."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import log_ratio, outside
from rlx.registry import Hyper, register


class CISPO(Hyper):
    """Parameters of ``cispo``."""

    clip_low: float = Field(default=1.0, ge=0)
    """The weight is at least 1 - clip_low; 1 and more is no lower bound."""
    clip_high: float = Field(default=0.28, ge=0)
    """The weight is at most 1 + clip_high (.28 is the DGPO paper's setting)."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the weight is at most this; null (official) turns it off."""


@register(
    "policy",
    paper="2506.13585",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_cispo",
    presets={
        "minimax": {"clip_low": 1.0},
        "verl": {"clip_low": 0.2, "clip_high": 0.2},
        "scalerl": {"clip_low": 10.0, "clip_high": 4.0},
        "trl": {"clip_low": 1.0, "clip_high": 4.0},
    },
)
def cispo(logprobs_bt: Tensor, batch: PolicyBatch, hp: CISPO) -> Tokens:
    """-sg[clip(r, 1-clip_low, 1+clip_high)] A log pi (arXiv 2506.13585, equation 4).

    Presets by source: ``minimax`` has no lower bound, ``verl`` floors the weight at .8, ``scalerl`` caps it at 5,
    ``trl`` names its cap absolutely (5 is 1 + clip_high).

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``CISPO``.
    """
    adv_bt = batch.adv_bt
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp().detach()
    low, high = 1 - hp.clip_low, 1 + hp.clip_high
    weight_bt = ratio_bt.clamp(low, high)
    if hp.dual_clip is not None:
        weight_bt = weight_bt.where(adv_bt >= 0, weight_bt.clamp(max=hp.dual_clip))
    return Tokens(-weight_bt * adv_bt * logprobs_bt, outside(ratio_bt, adv_bt, low, high))
