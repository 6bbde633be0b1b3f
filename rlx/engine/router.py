"""Mixture of experts: how evenly a router spreads tokens over the experts of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class RouterMonitor:
    """Counts how many tokens each expert of each layer receives, by hooks on the modules that hold the experts.

    transformers calls these modules as ``experts(hidden, expert_indices, weights)``. Padding tokens are counted too.

    Args:
        lm: a transformers causal language model; without such modules the monitor records nothing.
    """

    def __init__(self, lm: nn.Module) -> None:
        self._counts: dict[int, Tensor] = {}
        for layer, experts in enumerate(m for m in lm.modules() if type(m).__name__.endswith("Experts")):
            experts.register_forward_pre_hook(self._hook(layer))

    def take_counts(self) -> dict[int, list[int]]:
        """Tokens per expert [experts] of each layer since the last call, which are then reset."""
        layers, self._counts = self._counts, {}
        if not layers:
            return {}
        all_counts = torch.cat(list(layers.values())).cpu()  # one transfer for all layers
        rows = torch.split(all_counts, [len(counts) for counts in layers.values()])
        return {layer: row[:-1].tolist() for layer, row in zip(layers, rows, strict=True)}

    def _hook(self, layer: int) -> Any:
        def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            indices = next((x for x in inputs[1:] if isinstance(x, Tensor) and not x.is_floating_point()), None)
            if module.training or torch.is_grad_enabled():
                experts = next((p.shape[0] for p in module.parameters() if p.dim() == 3), 0)
                if indices is not None and experts:
                    # Indices beyond the stored experts are those of experts without weights (LongCat).
                    counts = torch.bincount(indices.flatten().clamp(max=experts), minlength=experts + 1)
                    self._counts[layer] = self._counts.get(layer, torch.zeros_like(counts)) + counts

        return count


def merged_counts(counts: Sequence[dict[int, list[int]]]) -> dict[int, list[int]]:
    """Tokens per expert [experts] of each layer, summed over processes."""
    merged: dict[int, list[int]] = {}
    for own in counts:
        for layer, row in own.items():
            merged[layer] = [a + b for a, b in zip(row, merged.get(layer, [0] * len(row)), strict=True)]
    return merged


def load_metrics(counts: dict[int, list[int]]) -> dict[str, float]:
    """``moe/load_max`` and ``moe/load_entropy``; empty without counts.

    With p_e the fraction of a layer's assignments that expert e of E receives: ``load_max`` is the largest E p_e over
    layers (1 is balanced, E is one expert only), ``load_entropy`` the mean over layers of -sum_e p_e ln p_e / ln E
    (1 is balanced, 0 is one expert only).

    Args:
        counts: tokens per expert of each layer.
    """
    shares = [[n / sum(row) for n in row] for row in counts.values() if sum(row) and len(row) > 1]
    if not shares:
        return {}
    entropies = [-sum(p * math.log(p) for p in row if p) / math.log(len(row)) for row in shares]
    return {
        "moe/load_max": max(max(row) * len(row) for row in shares),
        "moe/load_entropy": sum(entropies) / len(entropies),
    }
