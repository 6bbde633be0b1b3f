"""What a policy loss is given and what it gives back.

Names carry shapes by lower-case suffix, one letter an axis:

    b  sequence (prompt + response)      q  question (prompt)
    t  response token                    g  sample of a question's group, b = q * g
    s  token of the whole sequence       v  vocabulary entry
    n  response token, flattened         k  top-k index

``logprobs_bt[i, t]`` is the log-probability OF response token t of sequence i. Log-probs, entropies and KL are in
nats, lengths in tokens, clip fractions are fractions of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """One micro-batch as a policy loss sees it. Masked positions hold 0 everywhere.

    Example:
        ``PolicyBatch(old_logprobs_bt=torch.tensor([[-0.7, -1.2]]), adv_bt=torch.tensor([[1.0, 1.0]]),
        mask_bt=torch.tensor([[True, True]]))``
    """

    old_logprobs_bt: Tensor
    """Log-probs under the old policy (nats), the centre of the trust region, from the trainer's own forward."""
    adv_bt: Tensor
    """Advantage of each token (reward units)."""
    mask_bt: Tensor
    """True at response tokens, bool."""
    entropy_bt: Tensor | None = None
    """Entropy of the current policy at each token (nats), detached; only for methods that need ``entropy``."""
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    """Results of the method's ``whole_batch`` function over the optimiser batch and all ranks; [b, t] or scalars."""

    def __post_init__(self) -> None:
        shape = self.mask_bt.shape
        if len(shape) != 2 or self.mask_bt.dtype != torch.bool:
            raise ValueError(f"mask_bt must be a [b, t] bool tensor, not {tuple(shape)} {self.mask_bt.dtype}")
        for name in ("old_logprobs_bt", "adv_bt", "entropy_bt"):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, mask_bt has {tuple(shape)}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A policy loss's result: values only; the engine masks, averages and logs them.

    Example:
        ``Tokens(loss_bt=-adv_bt * ratio_bt, stats_bt={"clip_low": below_bt, "clip_high": above_bt})``
    """

    loss_bt: Tensor
    """Loss of each token, differentiable in the log-probs."""
    stats_bt: Mapping[str, Tensor] = field(default_factory=dict)
    """Named per-token statistics (bool or float), averaged over valid tokens and logged as ``policy/<name>``."""
