"""GPG: the plain policy gradient, no ratio."""

from __future__ import annotations

from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.registry import Hyper, register


class GPG(Hyper):
    """``gpg`` has no parameters."""


@register(
    "policy",
    paper="2504.02546",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_gpg",
)
def gpg(logprobs_bt: Tensor, batch: PolicyBatch, hp: GPG) -> Tokens:
    """-A log pi (arXiv 2504.02546, equation 8).

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t].
        hp: none.

    Deviation: the official trainer also scales A by batch / number of prompts with signal, which dynamic sampling
    makes 1.
    """
    return Tokens(-batch.adv_bt * logprobs_bt)
