"""Reduction of per-token values to one loss, with the denominators of the whole optimiser step.

A term's mask depends on the batch and never on the model's output, so its counts over all micro-batches and ranks are
known before the first forward. Consequence: one batch = k micro-batches = n processes, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


@dataclass(frozen=True, slots=True)
class Term:
    """One addend of the loss: ``weight * reduce(values, mask)``.

    Example:
        ``Term("policy", values=tokens.loss_bt, mask=batch.mask_bt)``,
        ``Term("kl", values=kl_bt, mask=batch.mask_bt, weight=0.001)``
    """

    name: str
    values: Tensor
    """Per-token [b, t] or per-sequence [b] values."""
    mask: Tensor
    """Bool, of the same shape as values."""
    weight: float = 1.0
    reduction: Reduction = "token-mean"
    """For per-sequence values every reduction is the mean over sequences."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A term's denominators over the whole optimiser step (all micro-batches, all ranks).

    Example:
        ``Counts(tokens=812, sequences=64, max_tokens=24)``
    """

    tokens: int
    """Valid tokens."""
    sequences: int
    """Sequences with at least one valid token."""
    max_tokens: int = 1
    """The constant of ``seq-mean-token-sum-norm``: the longest response allowed (tokens)."""


def count(masks: Iterable[Tensor], max_tokens: int = 1) -> Counts:
    """Counts over a list of [b, t] (or [b]) masks.

    Args:
        masks: the masks of every micro-batch of the optimiser step on this rank.
        max_tokens: see ``Counts``.
    """
    tokens = sequences = 0
    for mask in masks:
        rows = mask.flatten(1) if mask.dim() > 1 else mask[:, None]  # no reshape: a side may have no sequence
        tokens += int(rows.sum())
        sequences += int(rows.any(dim=1).sum())
    return Counts(tokens, sequences, max_tokens)


def reduce(values: Tensor, mask: Tensor, reduction: Reduction, counts: Counts) -> Tensor:
    """This micro-batch's share of the step's loss; the shares of all micro-batches and ranks add up to it.

    With m the mask, N the step's tokens, S its sequences, L the longest response allowed:

        token-mean                sum_bt m v / N                 (DAPO, arXiv 2503.14476, equation 8)
        seq-mean-token-mean       sum_b (sum_t m v / sum_t m)/S  (GRPO, arXiv 2402.03300, equation 3)
        seq-mean-token-sum        sum_b (sum_t m v) / S
        seq-mean-token-sum-norm   sum_b (sum_t m v) / (S L)      (Dr. GRPO, arXiv 2503.20783)

    Sequences without a valid token don't count. Masked values have no influence, not even when they are NaN.

    Args:
        values: per-token [b, t] or per-sequence [b] values.
        mask: bool, same shape.
        reduction: see above.
        counts: denominators of the whole optimiser step.
    """
    masked = torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))
    if values.dim() == 1:
        return masked.sum() / max(counts.sequences, 1)
    if reduction == "token-mean":
        return masked.sum() / max(counts.tokens, 1)
    if reduction == "seq-mean-token-mean":
        return sequence_mean(values, mask).sum() / max(counts.sequences, 1)
    scale = counts.max_tokens if reduction == "seq-mean-token-sum-norm" else 1
    return masked.sum() / (max(counts.sequences, 1) * scale)


def total(terms: Iterable[Term], counts: Mapping[str, Counts]) -> Tensor:
    """Sum of ``weight * reduce`` over terms; ``counts`` has one entry per term name."""
    parts = [term.weight * reduce(term.values, term.mask, term.reduction, counts[term.name]) for term in terms]
    return torch.stack(parts).sum()


def sequence_mean(values_bt: Tensor, mask_bt: Tensor) -> Tensor:
    """Mean over each sequence's valid tokens [b]; 0 for a sequence without any. Differentiable."""
    masked_bt = torch.where(mask_bt, values_bt, torch.zeros((), dtype=values_bt.dtype, device=values_bt.device))
    return masked_bt.sum(dim=1) / mask_bt.sum(dim=1).clamp(min=1)
