"""Importance-sampled policy gradient: no clip at all, the control that neither paper has."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import dual_clip, log_ratio
from rlx.registry import Hyper, register


class ISPG(Hyper):
    """Parameters of ``is_pg``."""

    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null turns it off."""


@register("policy", paper="no paper: a control", official="")
def is_pg(logprobs_bt: Tensor, batch: PolicyBatch, hp: ISPG) -> Tokens:
    """-A r: what every trust-region method is without its trust region.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``ISPG``.
    """
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    return Tokens(dual_clip(-batch.adv_bt * ratio_bt, batch.adv_bt, hp.dual_clip))
