"""GPPO: CE-GPPO with both coefficients at 1."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.methods.policy.ce_gppo import CEGPPO, ce_gppo
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import register


class GPPO(CEGPPO):
    """Parameters of ``gppo``: CE-GPPO's with another default."""

    beta_low: float = Field(default=1.0, ge=0)
    """Gradient kept left of the region."""


@register(
    "policy",
    paper="2508.07629",
    official="CE-GPPO's published repository:compute_gppo_loss_general_beta",
    presets={"script": {"dual_clip": 10.0}},
)
def gppo(logprobs_bt: Tensor, batch: PolicyBatch, hp: GPPO) -> Tokens:
    """Clipped tokens keep the gradient of the edge they are clipped at (arXiv 2508.07629): ce_gppo, both betas 1.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: see ``GPPO``.
    """
    return ce_gppo(logprobs_bt, batch, hp)
