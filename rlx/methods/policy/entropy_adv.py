"""Entropy-based advantage: tokens at uncertain points get a bonus."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from rlx.methods.policy.grpo import GRPO, grpo
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import register


class EntropyAdv(GRPO):
    """Parameters of ``entropy_adv``: GRPO's and the bonus's."""

    alpha: float = Field(default=0.4, ge=0)
    """Bonus for a nat of entropy (reward units)."""
    kappa: float = Field(default=2.0, gt=1)
    """The bonus is at most |A| / kappa, so that it never turns an advantage's sign."""


@register(
    "policy",
    paper="2506.14758",
    official="no official code was compared with; the clipped loss under it is grpo's",
    needs={"entropy"},
)
def entropy_adv(logprobs_bt: Tensor, batch: PolicyBatch, hp: EntropyAdv) -> Tokens:
    """GRPO's clipped loss on A + min(alpha sg[H], |A|/kappa), H the token's entropy (arXiv 2506.14758, equation 5).

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages, mask and entropy, each [b, t].
        hp: see ``EntropyAdv``.
    """
    assert batch.entropy_bt is not None
    bonus_bt = torch.minimum(hp.alpha * batch.entropy_bt.detach(), batch.adv_bt.abs() / hp.kappa)
    policy = grpo(logprobs_bt, replace(batch, adv_bt=batch.adv_bt + bonus_bt), hp)
    return Tokens(policy.loss_bt, {**policy.stats_bt, "bonus": bonus_bt})
