"""CE-GPPO: clipped tokens keep a bounded gradient, scaled by two coefficients."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import dual_clip, log_ratio, outside
from rlx.registry import Hyper, register


class CEGPPO(Hyper):
    """Parameters of ``ce_gppo``."""

    beta_low: float = Field(default=0.5, ge=0)
    """Gradient kept left of the region: .5 at 1.5B, .75 at 7B in the paper."""
    beta_high: float = Field(default=1.0, ge=0)
    """Gradient kept right of the region."""
    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """The region's left edge is r = 1 - clip_low."""
    clip_high: float = Field(default=0.28, ge=0)
    """The region's right edge is r = 1 + clip_high."""
    dual_clip: float | None = Field(default=3.0, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip (10 in the official scripts); null turns it off."""


@register(
    "policy",
    paper="2509.20712",
    official="CE-GPPO's published repository:compute_gppo_loss_general_beta",
    presets={
        "1.5b": {"beta_low": 0.5, "beta_high": 1.0},
        "7b": {"beta_low": 0.75, "beta_high": 1.0},
        "script": {"dual_clip": 10.0},
    },
)
def ce_gppo(logprobs_bt: Tensor, batch: PolicyBatch, hp: CEGPPO) -> Tokens:
    """-A r inside the region; beyond an edge -beta edge r/sg[r] A, capped at -A dual_clip where A < 0.

        A < 0 and r < 1-clip_low:    -beta_low (1-clip_low) r/sg[r] A
        A > 0 and r > 1+clip_high:   -beta_high (1+clip_high) r/sg[r] A

    (arXiv 2509.20712.)

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``CEGPPO``.
    """
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    low, high = 1 - hp.clip_low, 1 + hp.clip_high
    edges = outside(ratio_bt.detach(), batch.adv_bt, low, high)
    # r/sg[r] from log-probs, not by division: the clamp of the log-ratio would take the gradient of far tokens away.
    unit_bt = (logprobs_bt - logprobs_bt.detach()).exp()
    kept_bt = torch.where(edges["clip_low"], hp.beta_low * low * unit_bt, hp.beta_high * high * unit_bt)
    inside_bt = ~(edges["clip_low"] | edges["clip_high"])
    loss_bt = -batch.adv_bt * torch.where(inside_bt, ratio_bt, kept_bt)
    return Tokens(dual_clip(loss_bt, batch.adv_bt, hp.dual_clip), edges)
