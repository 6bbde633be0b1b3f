"""The term that holds what must be kept; the unlearning methods share it."""

from __future__ import annotations

from typing import Literal

import torch

from rlx.numerics.output_layer.statistics import divergence
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch

Retain = Literal["nll", "kl", "kl_released"]


def retain_needs(kind: Retain) -> frozenset[str]:
    """What ``retain_term`` reads beyond the retain labels."""
    needs = {
        "nll": frozenset[str](),
        "kl": frozenset({"retain.ref_hidden"}),
        "kl_released": frozenset({"retain.ref_hidden", "retain.all_positions"}),
    }
    return needs[kind]


def retain_term(retain: LabelledBatch, kind: Retain, weight: float) -> Term:
    """``weight`` times R, averaged over tokens.

        nll          -log p(label) on labelled tokens
        kl           KL(ref || model) on labelled tokens
        kl_released  KL(ref || model) on all positions, prompt and padding included, as the released codes have it
                     (locuslab/open-unlearning, src/trainer/utils.py, compute_kl_divergence)

    Args:
        retain: labelled tokens of the sequences to be kept.
        kind: which R.
        weight: its coefficient, the methods' ``alpha``.
    """
    if kind == "nll":
        return Term("retain", retain.padded(retain.nll()), retain.labelled_bt, weight)
    hidden_nd, head = retain.reference.distribution()
    values_n = divergence(retain.hidden_nd, retain.head, hidden_nd, head, forward=True)
    everywhere = torch.ones_like(retain.mask_bt) if kind == "kl_released" else retain.labelled_bt
    return Term("retain", retain.padded(values_n), everywhere, weight)
