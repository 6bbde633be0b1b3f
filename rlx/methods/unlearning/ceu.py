"""CEU: cross-entropy towards the model's own distribution with the label taken out."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.output_layer.statistics import over_logits
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch
from rlx.registry import Hyper, register


class CEU(Hyper):
    """Parameters of ``ceu``."""

    ignore_first_n_answer_tokens: int = Field(default=1, ge=0)
    """So many first tokens of each answer are left out."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""


@register(
    "unlearn",
    paper="2503.01224",
    official="locuslab/open-unlearning@afcd6b6:src/trainer/unlearn/ceu.py",
    needs={"forget_only"},
)
def ceu(forget: LabelledBatch, retain: LabelledBatch, hp: CEU) -> list[Term]:
    """CE(sg[softmax(z with z_y = -inf)], softmax(z)), mean over labelled tokens but the first n of each answer.

    Args:
        forget: labelled tokens to be forgotten.
        retain: not read.
        hp: see ``CEU``.
    """

    def cross_entropy(logits_nv: Tensor, labels_n: Tensor) -> Tensor:
        without_nv = logits_nv.detach().scatter(1, labels_n[:, None], -torch.inf)
        return -(without_nv.softmax(dim=1) * logits_nv.log_softmax(dim=1)).sum(dim=1)

    labelled_bt = forget.labelled_bt
    later_bt = labelled_bt & (labelled_bt.cumsum(dim=1) > hp.ignore_first_n_answer_tokens)
    values_n = over_logits(cross_entropy, forget.hidden_nd, forget.head, forget.labels_n)
    return [Term("forget", forget.padded(values_n), later_bt, hp.gamma)]
