"""Rounding of weights to few bits and back, as in a deployed quantised copy of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

GROUP = 64
"""Columns that share a scale, as in common 4-bit formats."""


@torch.no_grad()
def round_trip(lm: Any, bits: int) -> int:
    """Round every linear layer's weights to ``bits`` and back, in place.

    Symmetric rounding to nearest with one scale for each row and group of 64 columns; embeddings, and an output layer
    that is tied to them, are not changed.

    Args:
        lm: a transformers causal language model.
        bits: 4 or 8.

    Returns:
        The number of rounded weights.
    """
    embeddings = lm.get_input_embeddings().weight
    rounded = 0
    for module in lm.modules():
        if isinstance(module, nn.Linear) and module.weight is not embeddings:
            module.weight.copy_(rounded_weights(module.weight, bits))
            rounded += module.weight.numel()
    return rounded


def rounded_weights(weight: Tensor, bits: int) -> Tensor:
    """The nearest weights that ``bits`` can represent [out, in]."""
    top = 2 ** (bits - 1) - 1
    parts = []
    for part in torch.split(weight, GROUP, dim=1):
        scale = part.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / top
        parts.append((part / scale).round().clamp(-top, top) * scale)
    return torch.cat(parts, dim=1)
