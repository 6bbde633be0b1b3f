"""PDU: flatten the logits on the forget set, with a dual variable that holds the retain loss at a bound."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.output_layer.statistics import over_logits
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch
from rlx.registry import Hyper, register


class PDU(Hyper):
    """Parameters of ``pdu``."""

    retain_loss_eps: float = Field(default=0.3, ge=0)
    """Bound on the retain NLL (nats a token)."""
    eta: float = Field(default=1.0, ge=0)
    """Step of the dual variable."""
    warmup_updates: int = Field(default=0, ge=0)
    """Updates before the dual variable moves."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """The dual variable at the start."""
    compat: bool = False
    """Mask the logits without the shift by one, as the released code does."""


def _needs(hp: PDU) -> frozenset[str]:
    return frozenset({"forget.all_positions"} if hp.compat else ())


def dual_ascent(hp: PDU, means: Mapping[str, float], updates: int) -> PDU:
    """Dual variable: alpha <- max(0, alpha + eta (R - eps)) once the warm-up is over.

    Args:
        hp: parameters of the update just made.
        means: mean of each term over the update; ``retain`` is R - eps.
        updates: updates made so far, this one counted.
    """
    if updates <= hp.warmup_updates:
        return hp
    return hp.model_copy(update={"alpha": max(0.0, hp.alpha + hp.eta * means["retain"])})


@register(
    "unlearn",
    paper="2506.05314",
    official="locuslab/open-unlearning@fdeb28f:src/trainer/unlearn/pdu.py",
    needs_if=_needs,
    after_update=dual_ascent,
)
def pdu(forget: LabelledBatch, retain: LabelledBatch, hp: PDU) -> list[Term]:
    """Flat logits, and a dual variable alpha on the retain bound (arXiv 2506.05314).

        gamma mean_t (max_v z - mean_v z)^2 + alpha (NLL(retain) - eps)

    Args:
        forget: labelled tokens to be forgotten.
        retain: labelled tokens to be kept.
        hp: see ``PDU``; ``alpha`` is the present dual variable.

    Deviation: the released code masks the logits by the labels of the same position, one late, so that the first
    answer token is left out and what follows the last is taken in; ours is shifted, ``compat`` gives the released one.
    """

    def spread(logits_nv: Tensor) -> Tensor:
        return (logits_nv.amax(dim=1) - logits_nv.mean(dim=1)).square()

    mask_bt = forget.labelled_bt
    if hp.compat:
        mask_bt = torch.cat([torch.zeros_like(mask_bt[:, :1]), mask_bt[:, :-1]], dim=1)
    values_n = over_logits(spread, forget.hidden_nd, forget.head)
    return [
        Term("forget", forget.padded(values_n), mask_bt, hp.gamma),
        Term("retain", retain.padded(retain.nll() - hp.retain_loss_eps), retain.labelled_bt, hp.alpha),
    ]
