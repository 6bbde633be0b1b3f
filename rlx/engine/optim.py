"""AdamW over float32 master weights, and the learning rate as a pure function of the update's index."""

from __future__ import annotations

import math

import torch
from torch import nn

from rlx.specs.train import Optim


def make_optimizer(model: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, without weight decay on vectors (norms and biases)."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True
    )


def learning_rate(optim: Optim, update: int, total: int) -> float:
    """Learning rate of the optimiser update with index ``update`` (from 0) of ``total``.

    It rises linearly from lr / warm-up to lr during the warm-up, then stays constant or falls to 0 at ``total``,
    linearly or along half a cosine.
    """
    if update < optim.warmup_updates:
        return optim.lr * (update + 1) / optim.warmup_updates
    if optim.schedule == "constant":
        return optim.lr
    left = (total - update) / max(total - optim.warmup_updates, 1)
    return optim.lr * (left if optim.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))
