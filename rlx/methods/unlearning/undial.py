"""UNDIAL: distil from the reference with the label's logit lowered."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.output_layer.statistics import over_logits
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch
from rlx.registry import Hyper, register


class UNDIAL(Hyper):
    """Parameters of ``undial``."""

    beta: float = Field(default=10.0, gt=0)
    """How far the label's logit is lowered in the target distribution."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=0.0, ge=0)
    """Weight of the retain term; the paper has none."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


@register(
    "unlearn",
    paper="2402.10052",
    official="locuslab/open-unlearning@8b62e39:src/trainer/unlearn/undial.py",
    needs={"forget.ref_hidden"},
    needs_if=lambda hp: retain_needs(hp.retain) if hp.alpha else frozenset(),
)
def undial(forget: LabelledBatch, retain: LabelledBatch, hp: UNDIAL) -> list[Term]:
    """CE(softmax(z_ref - beta onehot(y)), softmax(z)), mean over labelled tokens (arXiv 2402.10052).

    Args:
        forget: labelled tokens to be forgotten, with ``ref_hidden``.
        retain: labelled tokens to be kept.
        hp: see ``UNDIAL``.
    """
    ref_nd, ref_head = forget.reference.distribution()

    def cross_entropy(logits_nv: Tensor, ref: Tensor, labels_n: Tensor) -> Tensor:
        with torch.no_grad():
            target_nv = ref_head.logits(ref)
            lowered_n1 = torch.full_like(target_nv[:, :1], -hp.beta)
            target_nv = target_nv.scatter_add(1, labels_n[:, None], lowered_n1).softmax(dim=1)
        return -(target_nv * logits_nv.log_softmax(dim=1)).sum(dim=1)

    values_n = over_logits(cross_entropy, forget.hidden_nd, forget.head, ref_nd, forget.labels_n)
    terms = [Term("forget", forget.padded(values_n), forget.labelled_bt, hp.gamma)]
    return [*terms, retain_term(retain, hp.retain, hp.alpha)] if hp.alpha else terms
